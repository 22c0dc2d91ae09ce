"""Guards `lut-tf prepare`: folders become records, public data sets are made ready, kills and mistakes do no harm."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import toy_data_set  # noqa: F401
from data_helpers import shown, write_files

from lut_tf.config import DataConfig
from lut_tf.data import list_data, open_sources, open_tfrecord
from lut_tf.data.preparing import shards as sharding
from lut_tf.data.preparing.prepare import prepare
from lut_tf.data.preparing.public import manual_files, prepare_public
from lut_tf.data.preparing.space import check_space
from lut_tf.data.reading.public import builder_of, list_splits, open_split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of two classes in turn."""
    write_files(tmp_path / "images", *(f"class{number % 2}/{number:02}.png" for number in range(12)))
    return tmp_path / "images"


@pytest.mark.medium
def test_processes_put_a_folder_into_records(folder: Path, tmp_path: Path) -> None:
    """One process beside this one: another would take the same way, and seconds to start TensorFlow."""
    output = tmp_path / "records"
    said = prepare(str(folder), "tfrecord", str(output), shards=1, workers=2)
    assert "12 images are ready in 1 files" in said
    source = open_tfrecord(f"{output}/*.tfrecord", None, "image/class/label")
    assert shown(source) == [*range(0, 12, 2), *range(1, 12, 2)]
    assert source.labels is not None and source.labels.tolist() == [0] * 6 + [1] * 6


def test_records_of_a_folder_are_listed_with_their_digests(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "records"
    prepare(str(folder), "tfrecord", str(output), shards=2, workers=1)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["classes"] == ["class0", "class1"] and manifest["images"] == 12
    for entry in manifest["files"]:
        file = output / entry["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"] and entry["images"] == 6
        labels = open_tfrecord(str(file), None, "image/class/label").labels
        assert labels is not None and labels.tolist() == [0, 0, 0, 1, 1, 1]  # every file holds all classes


def test_sharding_goes_on_after_a_kill(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, written, write_shard = tmp_path / "records", [], sharding.write_shard

    def killed_at_the_third(shard: sharding.Shard) -> dict[str, object]:
        if len(written) == 2:
            (output / "unfinished_host_1_x").mkdir()
            (output / "unfinished_host_1_x" / Path(shard.path).name).write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(shard.path)
        return write_shard(shard)

    monkeypatch.setattr(sharding, "write_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        sharding.write_shards(str(folder), str(output), 4, 1)
    assert not (output / "manifest.json").exists()
    before = written.copy()
    written.clear()
    folder = folder.rename(tmp_path / "moved")
    sharding.write_shards(str(folder), str(output), 4, 1)
    assert len(written) == 2 and not set(before) & set(written)
    assert not list(output.glob("unfinished_*"))
    assert sorted(shown(open_tfrecord(f"{output}/*.tfrecord", None, None))) == list(range(12))
    for other, shards in ((folder / "class0", 4), (folder, 3)):
        with pytest.raises(ValueError, match="holds records of other images or in another number of files"):
            sharding.write_shards(str(other), str(output), shards, 1)


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_public_data_sets_are_prepared_and_read(kind: str, tmp_path: Path) -> None:
    said = prepare("lut_toy", kind, str(tmp_path))
    assert "lut_toy is ready" in said and "train 12, test 4" in said
    assert prepare("lut_toy", kind, str(tmp_path)) == said  # nothing is done twice
    config = DataConfig("tfds", path=str(tmp_path), name="lut_toy", evaluation_split="test")
    listing = list_data(config)
    assert (listing.images, listing.evaluation_images) == (12, 4)
    parts = open_sources(config, listing)
    assert parts.validation is not None and sorted(shown(parts.validation)) == list(range(4))
    numbers = shown(parts.train)
    assert sorted(numbers) == list(range(12))
    assert parts.train.classes == ["even", "odd"] and parts.train.labels is not None
    assert [n % 2 for n in numbers] == parts.train.labels.tolist()
    held = replace(config, holdout=0.25)
    parts, listing = open_sources(held), list_data(held)
    assert parts.validation is not None and (listing.images, len(parts.validation)) == (len(parts.train), 3) == (9, 3)
    assert sorted(shown(parts.train) + shown(parts.validation)) == list(range(12))
    builder = builder_of("lut_toy", str(tmp_path))
    (middle,) = list_splits(builder, [("train[4:8]", "data.split")])
    assert middle.images == 4 and shown(open_split(middle)) == numbers[4:8]
    with pytest.raises(ValueError, match=r"data\.split='trian' is no split of lut_toy: give one of train, test"):
        list_splits(builder, [("trian", "data.split")])


def test_what_prepare_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="downloads/manual/LUT_images.tar"):
        prepare_public("lut_manual", "tfrecord", str(tmp_path))
    with pytest.raises(ValueError, match="SOURCE='no_such_set' is neither a folder nor a data set"):
        prepare("no_such_set", output=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="'no/such/folder' is no folder"):
        prepare("no/such/folder")
    with pytest.raises(ValueError, match="give --to tfrecord"):
        prepare(str(tmp_path))
    with pytest.raises(ValueError, match="give --output FOLDER"):
        prepare(str(tmp_path), "tfrecord")
    with pytest.raises(ValueError, match="GiB free and needs .*make room"):
        check_space(tmp_path / "new", 2**60)
    with pytest.raises(FileNotFoundError, match=r"run `lut-tf prepare lut_toy --output .*` first"):
        builder_of("lut_toy", str(tmp_path))
    assert manual_files("put train.tar and val.tar.gz.") == ["train.tar", "val.tar.gz"]
