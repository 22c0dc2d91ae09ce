"""Finding the image files of a folder, which on this machine needs neither TensorFlow nor a decoder."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lut_tf.data.reading import cache
from lut_tf.data.reading.cache import Arrays, Stamps, Texts
from lut_tf.data.reading.formats import ENDINGS, MAX_BYTES, ending_of
from lut_tf.data.reading.remote import is_remote, remote_errors

LINKS = "links to folders that are listed anyway"


class FolderListing(NamedTuple):
    """The image files under a folder, in a fixed order.

    `files` are full paths, sorted by class and then by name; `labels` are class numbers, int32, one a file, and
    `classes` the sorted names of the class folders; both are None for a flat folder. `too_large` are the numbers of
    the files that have more than `MAX_BYTES` (of remote ones it is asked as they are read); `left_out` says how many
    other files there are, by their ending.
    """

    files: Texts
    labels: NDArray[np.int32] | None
    classes: list[str] | None
    too_large: NDArray[np.int64]
    left_out: dict[str, int]

    @property
    def images(self) -> int:
        """Number of image files."""
        return len(self.files)

    @property
    def labelled(self) -> bool:
        """Whether there are class folders."""
        return self.labels is not None


def _unusable(setting: str, path: object, what: str, remedy: str) -> str:
    return f"{setting}: {str(path)!r} {what}: {remedy}"


def _not_a_folder(setting: str, path: object) -> str:
    return _unusable(setting, path, "is not a folder", "give the folder that holds the images")


class _Entry(Protocol):
    """What is asked of an entry of a folder; `os.DirEntry` is one."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def is_file(self) -> bool: ...

    def is_dir(self) -> bool: ...

    def is_symlink(self) -> bool: ...

    def stat(self) -> _Status: ...


class _Status(Protocol):
    """What is asked of a file's status; `os.stat_result` is one."""

    @property
    def st_size(self) -> int: ...


class _Walk:
    """Goes through a folder and notes what it saw of every folder in it, so that a change can be told later.

    Links to folders are followed only to what is not listed anyway, else images would be listed twice, under a wrong
    class, or for ever.

    Attributes:
        stamps: of the folders.
        left_out: how many files are no images, by their ending.
        too_large: the files of more than `MAX_BYTES`. Asked here, once a listing, for where they are read TensorFlow
            cannot be told how much to read, and Python takes three times as long for it.
        trees: real paths of what is listed: the folder itself, and what links in it lead to.
        above: real paths whose own listing would come to one of `trees`.
    """

    def __init__(self, setting: str, root: str = "") -> None:
        self.setting = setting
        self.stamps: Stamps = {}
        self.left_out: Counter[str] = Counter()
        self.too_large: set[str] = set()
        self.trees = {os.path.realpath(root)}
        self.above = set(_upward(os.path.realpath(root)))

    def children(self, folder: str) -> list[_Entry]:
        """Return the folder's entries that are not hidden, sorted by name."""
        try:
            modified = os.stat(folder).st_mtime_ns
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            remedy = "make the folder readable or move it out of the data set"
            raise ValueError(_unusable(self.setting, folder, f"cannot be read ({error.strerror})", remedy)) from None
        self.stamps[folder] = [modified, len(found)]
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)

    def folders(self, entries: list[_Entry]) -> list[_Entry]:
        """Return those of some entries that are folders to be gone through."""
        return [entry for entry in entries if entry.is_dir() and (not entry.is_symlink() or self._follows(entry.path))]

    def files(self, entries: list[_Entry]) -> list[str]:
        """Return the paths of those of some entries that are image files, and count the files that are not."""
        found = []
        for entry in entries:
            if _is_image_file(entry):
                found.append(entry.path)
                if entry.stat().st_size > MAX_BYTES:
                    self.too_large.add(entry.path)
            elif not entry.is_dir():
                self.left_out[ending_of(entry.name) or "without an ending"] += 1
        return found

    def images(self, folder: str) -> Iterator[str]:
        """Yield the image files under `folder` at any depth."""
        entries = self.children(folder)
        yield from self.files(entries)
        for entry in self.folders(entries):
            yield from self.images(entry.path)

    def _follows(self, link: str) -> bool:
        """Tell whether a link leads to what is not listed anyway, and does not lead up; note where it leads."""
        real = os.path.realpath(link)
        if real in self.above or not self.trees.isdisjoint(_upward(real)):
            self.left_out[LINKS] += 1
            return False
        self.trees.add(real)
        self.above.update(_upward(real))
        return True


def _upward(folder: str) -> Iterator[str]:
    """Yield the folders (real paths) whose listing goes through `folder`: itself and those above, to a hidden one."""
    yield folder
    while not os.path.basename(folder).startswith(".") and folder != (folder := os.path.dirname(folder)):
        yield folder


@dataclass(frozen=True)
class _RemoteEntry:
    """What `os.DirEntry` is for this machine. To ask what an entry is takes a request, so image names are not asked."""

    name: str
    path: str
    setting: str

    @cached_property
    def _folder(self) -> bool:
        return ending_of(self.name) not in ENDINGS and _is_remote_folder(self.path, self.setting)

    def is_file(self) -> bool:
        return True

    def is_dir(self) -> bool:
        return self._folder

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> os.stat_result:
        return os.stat_result([0] * 10)  # would take a request: its size is asked when it is read


class _RemoteWalk(_Walk):
    """Goes through a folder of one of TensorFlow's file systems (`gs://…`), which have no links."""

    def children(self, folder: str) -> list[_Entry]:
        with remote_errors(folder, self.setting) as tf:
            names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
        return [_RemoteEntry(name, f"{folder}/{name}", self.setting) for name in names if not name.startswith(".")]


def _is_remote_folder(path: str, setting: str) -> bool:
    """Tell whether it is a folder; `gfile.isdir` would take every failure for a no, and leave out a class."""
    with remote_errors(path, setting) as tf:
        return tf.io.gfile.stat(path).is_directory


def _is_image_file(entry: _Entry) -> bool:
    # Regular files only: reading from a pipe or a device would hang.
    return ending_of(entry.name) in ENDINGS and entry.is_file()


def _unchanged(stamps: Stamps) -> bool:
    """Tell whether every folder has the time and the number of entries that it had."""
    try:
        return all([os.stat(folder).st_mtime_ns, len(os.listdir(folder))] == stamp for folder, stamp in stamps.items())
    except OSError:
        return False


def list_folder(path: str | os.PathLike[str], setting: str = "data.path") -> FolderListing:
    """List the images of a folder: one sub-folder a class (nested as deep as you like), or flat without classes.

    Hidden files and folders, files that do not end in `ENDINGS` and sub-folders without images are left out. The
    listing is remembered (see `lut_tf.data.reading.cache`) until a folder's time or number of entries changes.

    Args:
        path: the folder, or one of TensorFlow's file systems (`gs://…`), which is listed anew each time.
        setting: the setting that errors name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no folder, cannot be read, holds no images, or holds images both beside and in class folders.
    """
    if is_remote(str(path)):
        if not _is_remote_folder(str(path), setting):
            raise ValueError(_not_a_folder(setting, path))
        arrays = _listed(_RemoteWalk(setting), str(path).rstrip("/"), path)
    else:
        arrays = _remembered(path, setting)
    classes = json.loads(arrays["classes"].item())
    labels = None if classes is None else arrays["labels"]
    left_out = json.loads(arrays["left_out"].item())
    return FolderListing(Texts(arrays["blob"], arrays["ends"]), labels, classes, arrays["too_large"], left_out)


def _remembered(path: str | os.PathLike[str], setting: str) -> Arrays:
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(_unusable(setting, path, "does not exist", "give an existing folder of images"))
    if not root.is_dir():
        raise ValueError(_not_a_folder(setting, path))
    key = f"image_folder {root.absolute()}"
    known = cache.load(key)
    if known is not None and _unchanged(known[0]):
        return known[1]
    walk = _Walk(setting, str(root.absolute()))
    arrays = _listed(walk, str(root.absolute()), path)
    cache.save(key, walk.stamps, arrays)
    return arrays


def _listed(walk: _Walk, root: str, path: object) -> Arrays:
    top, setting = walk.children(root), walk.setting
    files = [os.fsencode(file) for file in walk.files(top)]
    flat = bool(files)
    classes: list[str] = []
    counts: list[int] = []
    for entry in walk.folders(top):  # all of them first: links in one class must not lead to another
        # One class at a time: what is kept of it is bytes.
        group = [os.fsencode(file) for file in sorted(walk.images(entry.path))]
        if group and flat:
            remedy = "move the images into class folders, or all of them into one flat folder"
            raise ValueError(_unusable(setting, path, f"holds images and the class folder {entry.name!r}", remedy))
        if group:
            files += group
            classes.append(entry.name)
            counts.append(len(group))
    if not files:
        others = f" (but {counted(walk.left_out)})" if walk.left_out else ""
        remedy = f"give a folder of files that end in {' '.join(sorted(ENDINGS))}"
        raise ValueError(_unusable(setting, path, f"holds no images{others}", remedy))
    texts = Texts.of(files)
    large = {os.fsencode(file) for file in walk.too_large}
    return {
        "blob": texts.blob,
        "ends": texts.ends,
        "labels": np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        "classes": np.array(json.dumps(None if flat else classes)),
        "too_large": np.array([number for number, file in enumerate(files) if large and file in large], np.int64),
        "left_out": np.array(json.dumps(dict(walk.left_out.most_common()))),
    }


def counted(left_out: Mapping[str, int]) -> str:
    """Say how many files were left out, by their ending: `120 .heic, 3 .txt`."""
    return ", ".join(f"{count} {ending}" for ending, count in left_out.items())
