"""Guards listings of folders: sorted, nested, without what is hidden, on this machine and on TensorFlow's systems."""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from data_helpers import png, read, write_files

from lut_tf.data.reading import formats
from lut_tf.data.reading.folder import list_folder
from lut_tf.data.reading.sources import ImageFolder


def test_listing_is_sorted_nested_and_without_hidden_files(tmp_path: Path) -> None:
    names = [
        "zebra/2.jpg",
        "zebra/1.PNG",
        "ant/deep/er/x.webp",
        "ant/a.gif",
        "ant/.hidden.jpg",
        ".git/x.png",
        "ant/notes.txt",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "no images here").mkdir()
    (tmp_path / "ant" / "loop").symlink_to(tmp_path / "ant")
    listing = list_folder(tmp_path)
    assert listing.classes == ["ant", "zebra"] and listing.labels is not None
    assert listing.labels.tolist() == [0, 0, 1, 1]
    assert [str(Path(file).relative_to(tmp_path)) for file in listing.files] == [
        "ant/a.gif", "ant/deep/er/x.webp", "zebra/1.PNG", "zebra/2.jpg",
    ]  # fmt: skip


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.path: '.*nowhere' does not exist: give"):
        list_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data\.path: '.*' holds no images: give"):
        list_folder(tmp_path)
    (tmp_path / "file.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="is not a folder"):
        list_folder(tmp_path / "file.jpg")
    (tmp_path / "class").mkdir()
    shutil.copy(tmp_path / "file.jpg", tmp_path / "class")
    with pytest.raises(ValueError, match="holds images and the class folder 'class'"):
        list_folder(tmp_path)


def _stat_that_fails(stat: Any, path: str) -> Any:
    if path.endswith("bee"):
        raise tf.errors.UnavailableError(None, None, "try later")
    return stat(path)


@pytest.mark.medium
def test_remote_folders_are_listed_read_and_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """On TensorFlow's file system in memory, which it treats as it treats buckets."""
    with pytest.raises(FileNotFoundError, match=r"data\.path: 'ram://photos' does not exist"):
        list_folder("ram://photos")
    with pytest.raises(ValueError, match=r"data\.path: 'nosuch://photos' cannot be read \(.*nosuch"):
        list_folder("nosuch://photos")
    names = ("ant/deep/1.png", "ant/deep/2.png", "bee/3.png", "bee/4.PNG")
    write_files("ram://photos", *names)
    files = [f"ram://photos/{name}" for name in names]
    tf.io.write_file("ram://photos/bee/notes.txt", "not an image")
    with pytest.raises(ValueError, match=r"data\.path: 'ram://photos/bee/notes.txt' is not a folder"):
        list_folder("ram://photos/bee/notes.txt")
    source = ImageFolder("ram://photos/", damaged_share=0.3)
    assert list(source.files) == files and source.classes == ["ant", "bee"]
    assert source.labels is not None and source.labels.tolist() == [0, 0, 1, 1]
    assert [image.max() for image in read(source, 3, 0, 2, 1)] == [3, 0, 2, 1]
    with monkeypatch.context() as failing, pytest.raises(ValueError, match="bee' cannot be read \\(try later"):
        failing.setattr(tf.io.gfile, "stat", partial(_stat_that_fails, tf.io.gfile.stat))
        list_folder("ram://photos")  # a class must not be left out, nor the others get its number
    tf.io.gfile.remove(files[2])
    assert [image.max() for image in read(source, 2)] == [3] and source.damage.counts == {"missing": 1}
    assert list_folder("ram://photos").images == 3


def test_a_remote_image_is_read_in_one_request_and_an_entry_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()
    for name in ("stat", "GFile"):
        original = getattr(tf.io.gfile, name)
        monkeypatch.setattr(
            tf.io.gfile, name, lambda path, *more, n=name, o=original: asked.update([f"{n} {path}"]) or o(path, *more)
        )
    write_files("ram://few", "ant/1.png", "ant/2.png", "ant/deep/3.png")
    tf.io.write_file("ram://few/ant/notes.txt", "not an image")
    tf.io.write_file("ram://few/notes", "not an image")
    asked.clear()
    source = ImageFolder("ram://few", damaged_share=0.5)
    assert asked == {f"stat ram://few{path}": 1 for path in ("", "/notes", "/ant", "/ant/notes.txt", "/ant/deep")}
    asked.clear()
    assert [image.max() for image in read(source, 0, 2)] == [0, 2]
    assert asked == {"GFile ram://few/ant/1.png": 1, "GFile ram://few/ant/deep/3.png": 1}
    monkeypatch.setattr(formats, "MAX_BYTES", len(png(0)) + 8)
    tf.io.write_file("ram://few/ant/2.png", png(1) + b"more than 8 bytes")
    assert read(source, 1)[0].max() == 2 and source.damage.counts == {"too large": 1}
