"""Files and folders that a kill, a full disk or a power cut must not leave half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

_UNFINISHED = "unfinished_"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to, and put it in the place of `path` once it is whole and on the disk.

    The path has the name of `path`, for libraries that look at the suffix, and lies in a new folder
    `unfinished_<host>_<pid>_<random>` beside it; where `path` is a link, beside what it leads to, which is replaced. At
    every moment the old or the new one is there; only where a folder replaces a folder does the old one step aside for
    an instant, because no folder can be renamed onto another (a kill in that instant leaves both, whole, in the new
    folder). Parents of `path` are made.

    Raises:
        OSError: it could not be written; the old one stays, and nothing is left beside it. The same after any other
            exception in the block.
    """
    name = Path(path).name
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{socket.gethostname()}_{os.getpid()}_", dir=path.parent))
    try:
        written = workspace / name
        yield written
        for part in (*written.rglob("*"), written):
            _sync(part)
        _put(written, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) by way of `replacing`.

    Raises:
        OSError: it could not be written; the old one stays.
    """
    with replacing(path) as written:
        written.write_text(text, encoding="utf-8")


def nearest_existing(path: Path) -> Path:
    """Return `path` or the nearest folder above it that exists: what decides whether `path` can be made."""
    path = Path(path).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder`; only for a process that has the folder to itself."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _put(written: Path, path: Path) -> None:
    """Rename `written` to `path`, out of whose way an earlier folder steps first."""
    if not (written.is_dir() and path.is_dir()):
        os.replace(written, path)
        return
    earlier = Path(tempfile.mkdtemp(dir=written.parent)) / path.name
    try:
        os.replace(path, earlier)
        os.replace(written, path)
    except BaseException:  # Ctrl-C between the two, too
        if earlier.exists() and not path.exists():
            os.replace(earlier, path)
        raise


def _sync(path: Path) -> None:
    """Have the disk hold a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # What file systems say that cannot sync, such as some of the network.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
