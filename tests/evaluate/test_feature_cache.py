"""Features are computed once, kept whole or not at all, and found again. Guards `lut_tf.evaluate.feature_cache`."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import png, write_records
from networks import tiny_encoder
from PIL import Image

from lut_tf.config import DataConfig
from lut_tf.data.reading.listing import list_data
from lut_tf.data.reading.sources import ArraySource, Chosen, ImageFolder
from lut_tf.evaluate import feature_cache
from lut_tf.evaluate.feature_cache import NonFiniteFeatures, cached_features
from lut_tf.evaluate.frozen import images_of, stamp_of
from lut_tf.interop.sources import OpenedEncoder, checksum
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.preprocess import Preprocessing, normalise

STAMP = {"part": "training", "digest": "d", "apply_exif": True}


def opened(encoder: ViTEncoder) -> OpenedEncoder:
    return OpenedEncoder(encoder, "/e", "e.keras", checksum(encoder), None, None)


def images(count: int = 130) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_features_are_the_encoders_and_are_computed_once(tmp_path: Path) -> None:
    source, each = ArraySource(images()), opened(tiny_encoder(image_size=8))
    found = cached_features(tmp_path / "features", each, "mean", source, STAMP)
    assert isinstance(found, np.memmap)
    assert (found.shape, found.dtype) == ((130, 16), np.float32)
    np.testing.assert_allclose(found, each.encoder.features(normalise(images())), atol=1e-5)
    (file,) = (tmp_path / "features").iterdir()
    before = file.stat()
    again = cached_features(tmp_path / "features", each, "mean", source, STAMP)
    assert again.tobytes() == found.tobytes()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in (tmp_path / "features").iterdir()] == [file.name]


def test_what_changes_features_is_another_file() -> None:
    encoder = tiny_encoder(image_size=8)
    same = ViTEncoder.from_config({**encoder.get_config(), "name": "another"})
    half = ViTEncoder.from_config({**encoder.get_config(), "preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5))})
    for other in (same, half):
        other.set_weights(encoder.get_weights())

    def name(encoder: ViTEncoder = encoder, pooling: str = "mean", **stamp: Any) -> str:
        return feature_cache._name(opened(encoder), pooling, {**STAMP, **stamp})

    assert name() == name(same) == name(digest="d")
    assert name().startswith("training_mean_8x8_")
    others = [name(half), name(pooling="cls"), name(digest="other"), name(apply_exif=False), name(part="evaluation")]
    others += [name(encoder.resized(16))]
    encoder.norm.beta.assign_add(np.ones(16))
    assert len({name(), name(same), *others}) == 8


def test_how_images_are_read_is_in_the_stamp() -> None:
    same = DataConfig(source="tfrecord", path="x", label_feature="other", damaged_share=0.1, parallel_calls=2)
    others = [{"image_feature": "depth"}, {"apply_exif": False}, {"bits": 12}, {"source": "tfds"}]
    stamps = [stamp_of(replace(same, **change)) for change in others]
    assert stamp_of(same) == stamp_of(DataConfig(source="tfrecord", path="x"))
    assert all(stamp != stamp_of(same) for stamp in stamps)


class Breaking(ArraySource):
    """Reads 120 images and fails at the next."""

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`."""
        with tf.control_dependencies([tf.debugging.assert_less(index, tf.constant(120, tf.int64))]):
            return super().image(index)


def test_what_is_cut_off_leaves_no_file_and_a_damaged_one_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    each = opened(tiny_encoder(image_size=8))
    with pytest.raises(tf.errors.InvalidArgumentError):
        cached_features(tmp_path, each, "mean", Breaking(images()), STAMP)
    assert not list(tmp_path.iterdir())
    found = cached_features(tmp_path, each, "mean", ArraySource(images()), STAMP).copy()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        again = cached_features(tmp_path, each, "mean", ArraySource(images()), STAMP)
    assert "is damaged" in caplog.text
    assert again.tobytes() == found.tobytes()


def test_images_that_were_written_anew_are_in_the_stamp(tmp_path: Path) -> None:
    """In the same place, of the same size: folders, records, and of these the training images' alone."""
    for name in ("train/a/1.png", "train/b/2.png", "test/a/1.png", "test/b/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    write_records(tmp_path / "0.tfrecord", [1, 2])
    folders = DataConfig(source="image_folder", path=str(tmp_path / "train"), evaluation_path=str(tmp_path / "test"))
    records = DataConfig(source="tfrecord", path=str(tmp_path / "*.tfrecord"), label_feature="label")
    before = {data: images_of(list_data(data)) for data in (folders, records)}
    assert before == {data: images_of(list_data(data)) for data in (folders, records)}
    for path in (tmp_path / "train/b/2.png", tmp_path / "0.tfrecord"):
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = {data: images_of(list_data(data)) for data in (folders, records)}
    assert after[folders][0] != before[folders][0] and after[folders][1] == before[folders][1]
    assert after[records] != before[records]
    assert after[folders][0]["digest"] == before[folders][0]["digest"]


@pytest.mark.medium
def test_an_image_whose_features_are_not_finite_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 255 * (number == 2), np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    plain = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    each, source = opened(tiny_encoder(image_size=8, preprocessing=plain)), ImageFolder(tmp_path / "photos")
    each.encoder.patch_embedding.kernel.assign(np.full((48, 16), 3e38))  # of black 0, of white more than float32 holds
    for part in (source, Chosen(source, np.array([3, 2]))):
        with pytest.raises(NonFiniteFeatures, match=r"2\.png of the training images"):
            cached_features(tmp_path / "features", each, "mean", part, STAMP)
    assert not list((tmp_path / "features").iterdir())


def test_a_disk_without_room_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"take 4000000\.0 GB, and .*: make room"):
        feature_cache._check_room(tmp_path / "features", (10**9, 10**6))
