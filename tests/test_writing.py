"""`replacing`, `write_text`: at every moment the old or the new one is there, whole, and a failure leaves nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lut_tf.writing import remove_unfinished, replacing, write_text

LONG = "n" * 245 + ".yaml"


@contextmanager
def small_disk() -> Iterator[None]:
    """Let no file grow beyond 10 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_folder(path: Path, *names: str) -> None:
    with replacing(path) as written:
        (written / "inner").mkdir(parents=True)
        for name in names:
            (written / "inner" / name).write_text(name, encoding="utf-8")


def held(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "inner").iterdir())


@pytest.mark.parametrize("name", ["file.yaml", LONG])
def test_the_new_text_replaces_the_old(tmp_path: Path, name: str) -> None:
    path = tmp_path / "made" / "as needed" / name
    for text in ("first", "größer"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


def test_the_path_to_write_to_has_the_same_name_on_the_same_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    with replacing(path) as written:
        assert written.name == path.name
        assert written.parent.parent == tmp_path
        written.touch()
    assert path.exists()


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with replacing(Path("file")) as written:
        monkeypatch.chdir(tmp_path / "elsewhere")
        written.write_text("new", encoding="utf-8")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    write_text(path, "old")
    with small_disk(), pytest.raises(OSError, match="File too large"):
        write_text(path, "x" * 1000)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    write_text(file, "old")
    write_folder(folder, "old")
    for path in (file, folder):
        with pytest.raises(error), replacing(path) as written:
            written.mkdir()
            (written / "half").touch()
            raise error
    assert file.read_text(encoding="utf-8") == "old"
    assert held(folder) == ["old"]
    assert sorted(tmp_path.iterdir()) == [file, folder]


def test_a_block_that_writes_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for names in (["a", "b"], ["c"]):
        write_folder(path, *names)
        assert held(path) == names
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [PermissionError, KeyboardInterrupt])
def test_a_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path, rename = tmp_path / "folder", os.replace
    write_folder(path, "old")

    def refuse(source: Path, target: Path) -> None:
        if (Path(source) / "inner" / "new").exists():
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(error):
        write_folder(path, "new")
    assert held(path) == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_and_a_file_do_not_replace_each_other(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    write_text(file, "old")
    write_folder(folder, "old")
    with pytest.raises(OSError):
        write_text(folder, "new")
    with pytest.raises(OSError):
        write_folder(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert held(folder) == ["old"]
    assert sorted(tmp_path.iterdir()) == [file, folder]


def test_all_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, (tmp_path / "folder").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_folder(tmp_path / "folder", "a", "b")
    assert sorted(synced[:-1]) == [("a", False), ("b", False), ("folder", False), ("inner", False)]
    assert synced[-1] == (tmp_path.name, True)


HANGS = """
import sys, time
from pathlib import Path
from lut_tf.writing import replacing
path = Path(sys.argv[1])
with replacing(path) as written:
    if path.is_dir():
        written.mkdir()
    (written / "half" if path.is_dir() else written).write_text("half")
    print("halfway", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_kill_leaves_the_old_one(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "old"
    write_folder(path, "whole") if folder else write_text(path, "whole")
    with subprocess.Popen([sys.executable, "-c", HANGS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
    assert (held(path) == ["whole"]) if folder else (path.read_text(encoding="utf-8") == "whole")
    leftover = [entry.name for entry in tmp_path.iterdir() if entry != path]
    assert len(leftover) == 1 and leftover[0].startswith("unfinished_") and f"_{process.pid}_" in leftover[0]
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
