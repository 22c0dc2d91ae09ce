"""Guards TFRecord files and prepared data sets: read by index in exact order, damage replaced, sharding resumable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from lut_tf.config import DataConfig, ViewsConfig
from lut_tf.data import open_sources, open_tfrecord, pretraining_dataset
from lut_tf.data.preparing import shards as sharding
from lut_tf.data.preparing.prepare import check_space, manual_files, prepare, prepare_public
from lut_tf.data.reading.folder import count_images
from lut_tf.data.reading.public import builder_of, open_tfds
from lut_tf.data.reading.records import crc32c, index_records


def image(number: int) -> np.ndarray:
    return np.full((8, 9, 3), number, np.uint8)


def example(number: int) -> bytes:
    def feature(**kind: Any) -> tf.train.Feature:
        return tf.train.Feature(**kind)

    features = {
        "image/encoded": feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(image(number)).numpy()])),
        "label": feature(int64_list=tf.train.Int64List(value=[number % 3])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    for part in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / f"part-{part}.tfrecord")) as writer:
            for number in range(part * 10, part * 10 + 10):
                writer.write(example(number))
    return str(tmp_path / "part-*.tfrecord")


def shown(source: Any) -> list[int]:
    images = tf.data.Dataset.range(len(source)).map(source.image, num_parallel_calls=3)
    return [int(pixels[0, 0, 0]) for pixels in images.as_numpy_iterator()]


def test_crc_of_the_standard() -> None:
    rows = np.stack([np.zeros(32, np.uint8), np.full(32, 255, np.uint8), np.arange(32, dtype=np.uint8)])
    assert [f"{crc:08x}" for crc in crc32c(rows)] == ["8a9136aa", "62a8ab43", "46dd794e"]  # RFC 3720, B.4


def test_records_are_read_by_index_with_labels(pattern: str) -> None:
    source = open_tfrecord(pattern, None, "label")
    assert shown(source) == list(range(30)) and not source.damage.counts
    assert source.labels is not None and source.labels.tolist() == [n % 3 for n in range(30)]
    assert open_tfrecord(pattern, "image/encoded", None).labels is None
    assert count_images(DataConfig("tfrecord", path=pattern)) == 30


def test_remote_records_equal_local_ones(pattern: str) -> None:
    """On TensorFlow's file system in memory, which it treats as it treats buckets."""
    with pytest.raises(ValueError, match=r"data\.path: 'nosuch://.*' cannot be read \(.*nosuch"):
        open_tfrecord("nosuch://records/*", None, "label")
    tf.io.gfile.GFile("ram://part-.tfrecord", "w").close()  # the first, and empty
    for file in tf.io.gfile.glob(pattern):
        tf.io.gfile.copy(file, f"ram://{Path(file).name}")
    remote, local = open_tfrecord("ram://part-*.tfrecord", None, "label"), open_tfrecord(pattern, None, "label")
    assert remote.labels is not None and local.labels is not None
    np.testing.assert_array_equal(remote.labels, local.labels)
    assert shown(remote) == list(range(30))
    assert count_images(DataConfig(source="tfrecord", path="ram://part-*.tfrecord")) == 30


def test_damaged_remote_records_end_there(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    content = Path(pattern.replace("*", "0")).read_bytes()
    tf.io.write_file("ram://damaged/cut.tfrecord", content[:-1])
    assert shown(open_tfrecord("ram://damaged/cut.tfrecord", None, None)) == list(range(9))
    assert "ram://damaged/cut.tfrecord is damaged: its first 9 records are used" in caplog.text
    tf.io.write_file("ram://damaged/junk.tfrecord", "no record, but some text that is longer than a header")
    with pytest.raises(ValueError, match=r"data\.path: 'ram://damaged/junk\.tfrecord' is no TFRecord file"):
        open_tfrecord("ram://damaged/junk.tfrecord", None, None)


def test_any_start_equals_the_uninterrupted_run(pattern: str) -> None:
    def run(start: int, calls: int) -> list[dict[str, np.ndarray]]:
        dataset = pretraining_dataset(
            open_tfrecord(pattern, None, None), batch_size=8, image_size=16, views=ViewsConfig(), seed=1, steps=6,
            noise_length=4, start_step=start, parallel_calls=calls,
        )  # fmt: skip
        return list(dataset.as_numpy_iterator())

    for whole, late in zip(run(0, 1)[4:], run(4, 3), strict=True):
        for key in whole:
            np.testing.assert_array_equal(whole[key], late[key])


def test_a_flipped_bit_and_a_cut_file_are_replaced(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    first, _, last = (Path(pattern.replace("*", str(n))) for n in range(3))
    start = index_records([str(first)]).start[4]
    content = bytearray(first.read_bytes())
    content[start + 60] ^= 1
    first.write_bytes(content)
    last.write_bytes(last.read_bytes()[:-30])
    source = open_tfrecord(pattern, None, "label", damaged_share=0.1)
    assert "part-2.tfrecord is damaged at byte" in caplog.text
    assert len(source) == 29 and shown(source) == [*range(4), 7, *range(5, 29)]  # the next of class 1
    assert source.damage.counts == {"damaged record": 1}
    assert "part-0.tfrecord at byte" in caplog.text


def test_a_damaged_header_ends_its_file(pattern: str) -> None:
    first = Path(pattern.replace("*", "0"))
    start = index_records([str(first)]).start[6]
    content = bytearray(first.read_bytes())
    content[start + 3] = 7  # a length of gigabytes
    first.write_bytes(content)
    assert shown(open_tfrecord(pattern, None, None)) == [*range(6), *range(10, 30)]


def test_mistakes_are_named(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.path: 'nothing\*' finds no file: give"):
        open_tfrecord("nothing*", None, None)
    with pytest.raises(ValueError, match=r"data\.label_feature: 'class' .* image/encoded, label"):
        open_tfrecord(pattern, None, "class")
    (tmp_path / "text").write_text("no records here, but long enough for a header")
    with pytest.raises(ValueError, match="is no TFRecord file"):
        open_tfrecord(str(tmp_path / "text"), None, None)
    with tf.io.TFRecordWriter(str(tmp_path / "zipped"), "GZIP") as writer:
        writer.write(example(1))
    with pytest.raises(ValueError, match="is compressed: give uncompressed"):
        open_tfrecord(str(tmp_path / "zipped"), None, None)


# ------------------------------------------------------------------------------------------------------------ prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        place = tmp_path / "images" / f"class{number % 2}" / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tf.io.encode_png(image(number)).numpy())
    return tmp_path / "images"


@pytest.mark.medium
def test_folder_to_tfrecord_in_parallel(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "records"
    said = prepare(str(folder), "tfrecord", str(output), shards=3, workers=2)
    assert "12 images are ready in 3 files" in said
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["classes"] == ["class0", "class1"] and manifest["images"] == 12
    for entry in manifest["files"]:
        assert hashlib.sha256((output / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["images"] == 4
    source = open_tfrecord(f"{output}/*.tfrecord", None, "image/class/label")
    assert sorted(shown(source)) == list(range(12))
    assert source.labels is not None and [n % 2 for n in shown(source)] == source.labels.tolist()


def test_sharding_goes_on_after_a_kill(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, written = tmp_path / "records", []

    def run(todo: list[sharding.Shard], workers: int, total: int, notes: dict[str, Any]) -> None:
        for shard in todo:
            if len(written) == 2:
                Path(shard.path + ".part").write_bytes(b"half a file")
                raise KeyboardInterrupt
            written.append(shard.path)
            notes[shard.path] = sharding.write_shard(shard)

    monkeypatch.setattr(sharding, "_run", run)
    with pytest.raises(KeyboardInterrupt):
        sharding.write_shards(str(folder), str(output), 4, 1)
    assert not (output / "manifest.json").exists()
    before = written.copy()
    written.clear()
    sharding.write_shards(str(folder), str(output), 4, 1)
    assert len(written) == 2 and not set(before) & set(written)
    assert not list(output.glob("*.part"))
    assert sorted(shown(open_tfrecord(f"{output}/*.tfrecord", None, None))) == list(range(12))
    with pytest.raises(ValueError, match="holds records of another folder"):
        sharding.write_shards(str(folder / "class0"), str(output), 4, 1)


class LutToy(tfds.core.GeneratorBasedBuilder):
    """Thirty images to train on and ten to test on."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples(30), "test": self._generate_examples(10)}

    def _generate_examples(self, count: int) -> Any:
        for number in range(count):
            yield number, {"image": image(number), "label": number % 2}


class LutManual(LutToy):
    """As above, with a file that only a user can download."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir should contain LUT_images.tar, from example.org."


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_public_data_sets_are_prepared_and_read(kind: str, tmp_path: Path) -> None:
    said = prepare("lut_toy", kind, str(tmp_path))
    assert "lut_toy is ready" in said and "train 30, test 10" in said
    assert prepare("lut_toy", kind, str(tmp_path)) == said  # nothing is done twice
    config = DataConfig("tfds", path=str(tmp_path), name="lut_toy", evaluation_split="test")
    parts = open_sources(config)
    assert parts.validation is not None and count_images(config) == len(parts.train) == 30
    assert sorted(shown(parts.train)) == list(range(30)) and sorted(shown(parts.validation)) == list(range(10))
    assert parts.train.classes == ["even", "odd"] and parts.train.labels is not None
    assert [n % 2 for n in shown(parts.train)] == parts.train.labels.tolist()
    builder = builder_of("lut_toy", str(tmp_path))
    assert shown(open_tfds(builder, "train[10:20]")) == shown(parts.train)[10:20]
    with pytest.raises(ValueError, match=r"data\.split='trian' is no split of lut_toy: give one of train, test"):
        open_tfds(builder, "trian")


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
