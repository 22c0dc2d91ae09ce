"""Where files go: what may be overwritten, and how a file appears all at once or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return `path` with its parents spelled out, so that a sibling can be made even of `model` or `.`."""
    return Path(os.path.abspath(path))


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written; looks at the disk and writes nothing.

    Raises:
        NotADirectoryError: a parent of `path` is a file.
        PermissionError: no write permission.
    """
    existing = next(place for place in absolute(path).parents if place.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"output={path} cannot be written, {existing} is a file: give another output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"output={path} cannot be written, there is no write permission in {existing}: give another output"
        )


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Make a hidden directory next to `path`, on the same disk so that renaming is atomic; removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
