"""Where files go, and whether they can go there."""

from __future__ import annotations

import os
from pathlib import Path

from lut_tf.paths import check_path, spelled_out
from lut_tf.writing import nearest_existing


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return `path` with home and parents spelled out, so that a sibling can be made even of `model` or `.`."""
    return Path(os.path.abspath(spelled_out(path)))


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written; looks at the disk and writes nothing.

    Raises:
        NotADirectoryError: a parent of `path` is a file.
        PermissionError: no write permission.
        ValueError: it is no path.
    """
    check_path("output", path)
    existing = nearest_existing(absolute(path).parent)
    if not existing.is_dir():
        raise NotADirectoryError(f"output={path} cannot be written, {existing} is a file: give another output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"output={path} cannot be written, there is no write permission in {existing}: give another output"
        )
