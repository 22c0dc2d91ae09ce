"""Guards remembered listings: used while nothing changed, made anew when something did, harmless when broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lut_tf.data.reading.cache import Texts
from lut_tf.data.reading.folder import list_folder

LONG_AGO = 1_600_000_000


def settle(root: Path) -> None:
    for place in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        os.utime(place, (LONG_AGO, LONG_AGO))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("b/2.png", "a/1.png", "a/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    settle(tmp_path)
    return tmp_path


def test_second_listing_is_remembered_and_equal(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list_folder(images)
    monkeypatch.setattr(os, "scandir", None)  # a folder that is gone through again would fail
    second = list_folder(images)
    assert list(first.files) == list(second.files) == [str(images / n) for n in ("a/1.png", "a/deep/3.png", "b/2.png")]
    assert first.labels is not None and second.labels is not None
    assert first.labels.tolist() == second.labels.tolist() == [0, 0, 1] and second.classes == ["a", "b"]


@pytest.mark.parametrize("settled", [False, True])
def test_a_change_is_seen(images: Path, settled: bool) -> None:
    list_folder(images)
    (images / "a" / "deep" / "4.png").write_bytes(b"x")
    if settled:
        settle(images)  # the number of entries tells even where times do not
    assert len(list_folder(images).files) == 4
    (images / "a" / "deep" / "4.png").rename(images / "a" / "deep" / "5.png")
    assert list_folder(images).files[2].endswith("5.png")  # the same number: the time tells


def test_a_folder_of_this_moment_is_not_trusted(images: Path, own_cache: Path) -> None:
    os.utime(images / "a")
    list_folder(images)
    assert not own_cache.exists()


def test_broken_memory_is_made_anew(images: Path, own_cache: Path) -> None:
    list_folder(images)
    (kept,) = own_cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    assert len(list_folder(images).files) == 3


def test_unwritable_memory_does_no_harm(images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    os.utime(tmp_path, (LONG_AGO, LONG_AGO))
    assert len(list_folder(images / "b").files) == 1


def test_texts() -> None:
    texts = Texts.of([b"a", b"", "ü".encode(), b"\xff"])
    assert len(texts) == 4 and list(texts) == ["a", "", "ü", "\udcff"] and texts[-1] == "\udcff"
    with pytest.raises(IndexError):
        texts[4]
