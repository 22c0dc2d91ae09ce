"""Paths as users give them: `~` is somebody's home, and whatever else a file system takes is a name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

NAME_BYTES = 255
PATH_BYTES = 3840  # file systems end at 4096, and a run makes names of its own below the folder that is given
SAVED_CONFIG = "config.json"
"""What Hugging Face's and timm's `save_pretrained` write beside weights."""


def spelled_out(path: str | os.PathLike[str]) -> str:
    """Return a path with a leading `~` put in full and without slashes at its end; addresses (`gs://…`) stay."""
    text = os.fspath(path)
    if "://" in text:
        return text
    return os.path.expanduser(text).rstrip("/") or text[:1]


def is_saved_folder(path: Path) -> bool:
    """Return whether `path` is a folder with a `config.json`, as `save_pretrained` writes it."""
    return (path / SAVED_CONFIG).is_file()


def check_path(name: str, path: str | os.PathLike[str]) -> None:
    """Refuse what no file system takes as a path; looks at no disk but for a link that leads nowhere.

    Args:
        name: of the setting or argument, for the message.
        path: as `spelled_out` returns it.

    Raises:
        ValueError: a name of more than 255 bytes, a path of more than 3,840, a character that cannot be in one, an
            unknown user's home, or a link to what does not exist.
    """
    text = os.fspath(path)
    if "\0" in text or not encodes(text):
        raise ValueError(f"{name}={text!r} has a character that no path can have: give another {name}")
    if "://" in text:
        return
    longest = max(map(len, os.fsencode(text).split(b"/")))
    if longest > NAME_BYTES:
        raise ValueError(
            f"{name}={_shortened(text)} has a name of {longest} bytes, and file systems end at {NAME_BYTES}: "
            f"give a shorter {name}"
        )
    if (length := len(os.fsencode(os.path.abspath(text)))) > PATH_BYTES:
        raise ValueError(
            f"{name}={_shortened(text)} is a path of {length} bytes, and {PATH_BYTES} are the most: give a shorter "
            f"{name}"
        )
    if text.startswith("~"):
        raise ValueError(f"{name}={text!r} begins with the home of an unknown user: give ./{text} for a folder here")
    for place in (Path(text), *Path(text).parents):
        if place.is_symlink() and not place.exists():
            raise ValueError(f"{name}={text!r} leads nowhere, {place} is a link to what does not exist: mend the link")


@contextlib.contextmanager
def without_patterns(folder: Path) -> Iterator[Path]:
    r"""Give another path of `folder`, one that TensorFlow's C++ does not take for a pattern.

    It restores variables from whatever *matches* the path that it is given, so a folder called `a [1]` is not found;
    and a path with `*`, `?`, `[` or `\` escaped matches, but is then opened as it stands.
    """
    if not set(str(folder.absolute())) & set("*?[]\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "folder"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def encodes(text: str) -> bool:
    """Tell whether a text can be written as UTF-8: bytes of the command line that are none, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shortened(text: str) -> str:
    return f"'{text[:40]}…'"
