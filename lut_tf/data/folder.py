"""Finding the image files of a data set: checks and listings that need neither TensorFlow nor a decoder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lut_tf.config import DataConfig

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
DIGITS_COUNTS = {"train": 1197, "validation": 300, "heldout": 300}


class FolderListing(NamedTuple):
    """The image files under a folder, in a fixed order.

    `files` are full paths, sorted by class and then by name; `labels` are class numbers, one a file, and `classes` the
    sorted names of the class folders; both are None for a flat folder.
    """

    files: list[str]
    labels: list[int] | None
    classes: list[str] | None


def _unusable(setting: str, path: object, what: str, remedy: str) -> str:
    return f"{setting}: {str(path)!r} {what}: {remedy}"


def _children(folder: str, setting: str) -> list[os.DirEntry[str]]:
    """The folder's entries that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        remedy = "make the folder readable or move it out of the data set"
        raise ValueError(_unusable(setting, folder, f"cannot be read ({error.strerror})", remedy)) from None


def _is_image_file(entry: os.DirEntry[str]) -> bool:
    # Regular files only: reading from a pipe or a device would hang.
    return os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()


def _image_files(folder: str, setting: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the image files under `folder` at any depth; a link back to a folder above is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _children(folder, setting):
        if entry.is_dir():
            yield from _image_files(entry.path, setting, above | {real})
        elif _is_image_file(entry):
            yield entry.path


def list_folder(path: str | os.PathLike[str], setting: str = "data.path") -> FolderListing:
    """List the images of a folder: one sub-folder a class (nested as deep as you like), or flat without classes.

    Hidden files and folders, files that do not end in `EXTENSIONS` and sub-folders without images are left out.

    Args:
        path: the folder.
        setting: the setting that errors name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no folder, cannot be read, holds no images, or holds images both beside and in class folders.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(_unusable(setting, path, "does not exist", "give an existing folder of images"))
    if not root.is_dir():
        raise ValueError(_unusable(setting, path, "is not a folder", "give the folder that holds the images"))
    top = _children(str(root), setting)
    flat = [entry.path for entry in top if _is_image_file(entry)]
    groups = [(entry.name, sorted(_image_files(entry.path, setting))) for entry in top if entry.is_dir()]
    groups = [(name, files) for name, files in groups if files]
    if flat and groups:
        remedy = "move the images into class folders, or all of them into one flat folder"
        raise ValueError(_unusable(setting, path, f"holds images and the class folder {groups[0][0]!r}", remedy))
    if flat:
        return FolderListing(flat, None, None)
    if not groups:
        endings = " ".join(sorted(EXTENSIONS))
        raise ValueError(_unusable(setting, path, "holds no images", f"give a folder of files that end in {endings}"))
    files = [file for _, group in groups for file in group]
    labels = [label for label, (_, group) in enumerate(groups) for _ in group]
    return FolderListing(files, labels, [name for name, _ in groups])


def check_data(data: DataConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ValueError: a folder is missing or given in vain, or `data.parallel_calls` is not positive.
    """
    if data.source == "image_folder" and not data.path:
        raise ValueError("data.path: null with data.source 'image_folder': give the folder of training images")
    if data.source == "digits":
        for setting, value in (("data.path", data.path), ("data.evaluation_path", data.evaluation_path)):
            if value is not None:
                raise ValueError(
                    f"{setting}: {value!r} is not used by data.source 'digits': set data.source=image_folder"
                )
    if data.parallel_calls is not None and data.parallel_calls < 1:
        raise ValueError(
            f"data.parallel_calls: {data.parallel_calls} must be at least 1, or null to let tf.data choose"
        )


def count_images(data: DataConfig) -> int:
    """Return the number of training images without importing TensorFlow or reading an image.

    Raises:
        FileNotFoundError, ValueError: as `check_data` and `list_folder`.
    """
    check_data(data)
    if data.source == "digits":
        return DIGITS_COUNTS["train"]
    assert data.path is not None
    return len(list_folder(data.path).files)
