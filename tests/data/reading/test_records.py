"""Guards TFRecord files: read by index in exact order, on any file system, and damage is replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import example, read, shown, write_records

from lut_tf.data import open_tfrecord
from lut_tf.data.reading.records import crc32c, list_records


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    for part in range(3):
        write_records(tmp_path / f"part-{part}.tfrecord", range(part * 10, part * 10 + 10))
    return str(tmp_path / "part-*.tfrecord")


def test_crc_of_the_standard() -> None:
    rows = np.stack([np.zeros(32, np.uint8), np.full(32, 255, np.uint8), np.arange(32, dtype=np.uint8)])
    assert [f"{crc:08x}" for crc in crc32c(rows)] == ["8a9136aa", "62a8ab43", "46dd794e"]  # RFC 3720, B.4


def test_records_are_read_by_index_with_labels(pattern: str) -> None:
    source = open_tfrecord(pattern, None, "label")
    order = np.random.default_rng(0).permutation(30).tolist()
    assert [int(image[0, 0, 0]) for image in read(source, *order)] == order and not source.damage.counts
    assert source.labels is not None and source.labels.tolist() == [n % 3 for n in range(30)]
    assert open_tfrecord(pattern, "image/encoded", None).labels is None


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


def test_damaged_remote_records_end_there(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    content = Path(pattern.replace("*", "0")).read_bytes()
    tf.io.write_file("ram://damaged/cut.tfrecord", content[:-1])
    assert shown(open_tfrecord("ram://damaged/cut.tfrecord", None, None)) == list(range(9))
    assert "ram://damaged/cut.tfrecord is damaged: its first 9 records are used" in caplog.text
    tf.io.write_file("ram://damaged/junk.tfrecord", "no record, but some text that is longer than a header")
    with pytest.raises(ValueError, match=r"data\.path: 'ram://damaged/junk\.tfrecord' is no TFRecord file"):
        open_tfrecord("ram://damaged/junk.tfrecord", None, None)


@pytest.mark.medium
def test_a_flipped_bit_and_a_cut_file_are_replaced(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    first, _, last = (Path(pattern.replace("*", str(n))) for n in range(3))
    start = list_records([str(first)]).index.start[4]
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
    start = list_records([str(first)]).index.start[6]
    content = bytearray(first.read_bytes())
    content[start + 3] = 7  # a length of gigabytes
    first.write_bytes(content)
    assert shown(open_tfrecord(pattern, None, None)) == [*range(6), *range(10, 30)]


def test_mistakes_are_named(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.path: 'nothing\*' finds no file: give"):
        open_tfrecord("nothing*", None, None)
    with pytest.raises(ValueError, match=r"data\.label_feature: 'class' .* image/encoded, label"):
        open_tfrecord(pattern, None, "class")
    for image, label, named in (
        (None, "image/encoded", r"data\.label_feature: 'image/encoded' holds bytes, but whole numbers .* \(label\)"),
        ("label", None, r"data\.image_feature: 'label' holds whole numbers, but bytes .* \(image/encoded\)"),
    ):
        with pytest.raises(ValueError, match=named):
            open_tfrecord(pattern, image, label)
    (tmp_path / "text").write_text("no records here, but long enough for a header")
    with pytest.raises(ValueError, match="is no TFRecord file"):
        open_tfrecord(str(tmp_path / "text"), None, None)
    with tf.io.TFRecordWriter(str(tmp_path / "zipped"), "GZIP") as writer:
        writer.write(example(1))
    with pytest.raises(ValueError, match="is compressed: give uncompressed"):
        open_tfrecord(str(tmp_path / "zipped"), None, None)
