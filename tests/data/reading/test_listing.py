"""Guards the listing: everything is looked at once, what it says is what is read, and mistakes are named before."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from data_helpers import shown, write_files, write_records

from lut_tf.config import DataConfig
from lut_tf.data import evaluation_dataset, list_data, open_sources
from lut_tf.data.reading import listing as listings

IMAGES = ("ant/deep/1.png", "ant/2.png", "bee/3.png")
LOOKS = {
    "scandir": (os, "scandir"),
    "open": (builtins, "open"),
    "remote listdir": (tf.io.gfile, "listdir"),
    "remote glob": (tf.io.gfile, "glob"),
    "whole reading": (tf.data, "TFRecordDataset"),
    "reading": (tf.io.gfile, "GFile"),
}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Counter[tuple[str, str]]]:
    """Count from now on how often something looks at a folder (to match a pattern too) or a file below a root."""

    def counted(root: str) -> Counter[tuple[str, str]]:
        seen: Counter[tuple[str, str]] = Counter()

        def counting(kind: str, original: Any) -> Any:
            def look(place: Any, *more: Any, **named: Any) -> Any:
                if str(place).startswith(root):
                    seen[kind, str(place).removeprefix(root).strip("/")] += 1
                return original(place, *more, **named)

            return look

        for kind, (module, name) in LOOKS.items():
            monkeypatch.setattr(module, name, counting(kind, getattr(module, name)))
        return seen

    return counted


def records(root: str) -> DataConfig:
    for name in ("train", "test"):
        tf.io.gfile.makedirs(f"{root}/{name}")
        write_records(f"{root}/{name}/0", range(3))
        write_records(f"{root}/{name}/1", range(3, 5))
    return DataConfig("tfrecord", f"{root}/train/*", f"{root}/test/*", label_feature="label")


def folders(root: str) -> DataConfig:
    for name in ("train", "test"):
        write_files(f"{root}/{name}", *IMAGES)
    return DataConfig("image_folder", f"{root}/train", f"{root}/test")


FOLDERS = [f"{part}{folder}" for part in ("train", "test") for folder in ("", "/ant", "/ant/deep", "/bee")]
FILES = [f"{part}/{number}" for part in ("train", "test") for number in (0, 1)]


@pytest.mark.parametrize(
    ("remote", "write", "images", "expected"),
    [
        (False, folders, 3, {"scandir": FOLDERS}),
        (False, records, 5, {"scandir": ["train", "test"], "open": FILES, "reading": FILES}),
        (True, folders, 3, {"remote listdir": FOLDERS, "reading": ["train/ant/2.png", "train/ant/deep/1.png"]}),
        (True, records, 5, {"remote glob": ["train/*", "test/*"], "whole reading": FILES}),
    ],
    ids=["folder", "records", "remote folder", "remote records"],
)
def test_everything_is_looked_at_once(
    remote: bool, write: Any, images: int, expected: dict[str, list[str]], looks: Any, tmp_path: Path
) -> None:
    root = f"ram://once/{write.__name__}" if remote else str(tmp_path)
    data = write(root)
    seen = looks(root)
    listing = list_data(data)
    before = seen.copy()
    parts = open_sources(data, listing)
    assert parts.validation is not None
    (batch,) = evaluation_dataset(parts.train, range(2), 8, 2).as_numpy_iterator()
    assert batch[1].tolist() == ([0, 0] if write is folders else [0, 1])
    assert {look for look in (seen - before) if look[0] != "reading"} == set()  # not even looked at again
    assert seen == Counter({(kind, place): 1 for kind, places in expected.items() for place in places})
    assert listing.images == len(parts.train) == images == len(parts.validation) == listing.evaluation_images


def test_sources_without_a_listing_list_themselves(tmp_path: Path, looks: Any) -> None:
    write_files(tmp_path, *IMAGES)
    seen = looks(str(tmp_path))
    parts = open_sources(DataConfig("image_folder", str(tmp_path)))
    assert shown(parts.train) == [1, 0, 2] and parts.validation is None  # ant/2, ant/deep/1, bee/3
    assert set(seen.values()) == {1}


def test_digits_are_counted_and_open_in_three_parts() -> None:
    listing, parts = list_data(DataConfig()), open_sources(DataConfig())
    assert [len(part) for part in parts if part is not None] == [1197, 300, 300]
    assert (listing.images, listing.evaluation_images) == (1197, 300)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (DataConfig("image_folder"), r"data\.path=null, but data\.source=image_folder reads it"),
        (DataConfig(path="x"), r"data\.path='x' is not read by data\.source=digits"),
        (DataConfig(parallel_calls=0), r"data\.parallel_calls=0 is out of range"),
    ],
)
def test_contradictory_settings_are_named(data: DataConfig, named: str) -> None:
    for function in (list_data, open_sources):
        with pytest.raises(ValueError, match=named):
            function(data)


def test_evaluation_images_must_have_the_same_classes(tmp_path: Path) -> None:
    for name in ("train", "test", "odd"):
        write_files(tmp_path / name, "cat/1.png", f"{'eel' if name == 'odd' else 'dog'}/1.png")

    def listed(evaluation: str) -> Any:
        return list_data(DataConfig("image_folder", str(tmp_path / "train"), str(tmp_path / evaluation)))

    assert listed("test").evaluation_images == 2
    with pytest.raises(ValueError, match=r"data\.evaluation_path: .* differ in 2 classes \(dog, eel\)"):
        listed("odd")
    with pytest.raises(ValueError, match=r"data\.evaluation_path: .* is flat: sort it into class folders"):
        listed("test/cat")
    write_records(tmp_path / "records", range(2))
    with pytest.raises(ValueError, match=r"data\.evaluation_path: .* is read without labels: give data\.label_feature"):
        list_data(DataConfig("tfrecord", str(tmp_path / "records"), str(tmp_path / "records")))
    with pytest.raises(FileNotFoundError, match=r"data\.evaluation_path: .* does not exist"):
        listed("nowhere")


def test_listing_local_images_needs_no_tensorflow(tmp_path: Path) -> None:
    write_files(tmp_path / "images", *IMAGES)
    write_records(tmp_path / "records", range(4))
    code = f"""
import sys
from lut_tf.config import DataConfig
from lut_tf.data import list_data
settings = (), ("image_folder", "{tmp_path}/images"), ("tfrecord", "{tmp_path}/records")
counts = [list_data(DataConfig(*each)).images for each in settings]
counts += [list_data(DataConfig(*each, holdout=0.3, label_feature=each[0][:2] == "tf" and "label" or None)).images
           for each in settings[1:]]
print(counts, *{{"tensorflow", "keras"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[1197, 3, 4, 2, 3]\n", done.stderr


WHY_NONE = {
    "flat": (["1.png"], None, "the training images have no labels"),
    "no evaluation images": (["cat/1.png", "dog/1.png"], None, "there are no evaluation images (data.evaluation_path"),
    "one class": (["cat/1.png"], ["cat/2.png"], "the training images are of one class"),
    "two classes": (["cat/1.png", "dog/1.png"], ["cat/2.png", "dog/2.png"], ""),
}


@pytest.mark.parametrize("case", WHY_NONE)
def test_a_listing_tells_why_nothing_is_measured(case: str, tmp_path: Path) -> None:
    train, evaluation, why = WHY_NONE[case]
    write_files(tmp_path / "train", *train)
    write_files(tmp_path / "test", *evaluation or ["unused.png"])
    data = DataConfig("image_folder", str(tmp_path / "train"), evaluation and str(tmp_path / "test"))
    said = list_data(data).why_no_probes
    assert said.startswith(why) and bool(said) == bool(why)


def test_a_listing_is_digested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, *IMAGES)
    listing, calls, original = list_data(DataConfig("image_folder", str(tmp_path))), [], listings.digest_of
    monkeypatch.setattr(listings, "digest_of", lambda part: calls.append(part) or original(part))
    assert listing.digest == listing.digest == original(listing.train) and len(calls) == 1
