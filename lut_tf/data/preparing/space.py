"""Whether the disk can hold what is to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from lut_tf.writing import nearest_existing

GIB = 2**30


def check_space(folder: Path, needed: int, option: str = "--output") -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        ValueError: fewer than `needed` bytes are free.
    """
    existing = nearest_existing(folder)
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"{option}={str(folder)!r} has {free / GIB:.1f} GiB free and needs {needed / GIB:.1f}: "
            f"make room, or give another {option}"
        )
