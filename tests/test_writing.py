"""`write_whole`: a write that fails leaves the old file and nothing else."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from lut_tf.writing import write_whole


def test_the_new_text_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    for text in ("first", "größer"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    write_whole(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
