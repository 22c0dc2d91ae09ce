"""Zip archives that may be damaged, or made to be large."""

from __future__ import annotations

import zipfile

EXPANSION = 4
"""How many times larger than its file an archive may be; PyTorch and Keras do not compress at all."""


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse a zip file of `size` bytes that holds much more than that, or whose checksums do not fit.

    Raises:
        ValueError: it is damaged.
    """
    if sum(entry.file_size for entry in archive.infolist()) > EXPANSION * size:
        raise ValueError(f"its entries are more than {EXPANSION} times as large as itself")
    if (name := archive.testzip()) is not None:
        raise ValueError(f"the checksum of {name} is wrong")
