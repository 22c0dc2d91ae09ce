"""Guards normalisation: the numbers, back again, and that whatever feeds an encoder asks the encoder for them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import ops
from networks import tiny_encoder, tiny_mae

from lut_tf import ViTEncoder
from lut_tf.data.reading.sources import ArraySource
from lut_tf.evaluate.features import encoder_features
from lut_tf.export import to_onnx, to_saved_model
from lut_tf.export.signature import float32_copy
from lut_tf.export.verify import sample_images
from lut_tf.models.preprocess import HALF, IMAGENET, Preprocessing, denormalise, normalise

OTHER = Preprocessing((0.5, 0.4, 0.3), (0.5, 0.25, 0.2), "bilinear", 0.9)


@pytest.mark.parametrize("how", [IMAGENET, HALF, OTHER])
def test_normalise_and_back(how: Preprocessing) -> None:
    images = np.random.default_rng(5).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    normal = ops.convert_to_numpy(normalise(images, how))
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, (images / 255 - how.mean) / how.std, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(denormalise(normal, how)), images, atol=1e-3)


def test_the_default_is_imagenets() -> None:
    assert tiny_encoder().preprocessing == IMAGENET
    assert (IMAGENET.mean, IMAGENET.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5, 0.5)}, r"preprocessing\.mean=\[0\.5, 0\.5\]"),
        ({"mean": (123.0, 117.0, 104.0)}, r"preprocessing\.mean=\[123, 117, 104\] is out of range"),
        ({"std": (0.5, 0.0, 0.5)}, r"preprocessing\.std"),
        ({"interpolation": "nearest"}, r"preprocessing\.interpolation=nearest"),
        ({"crop_share": 1.5}, r"preprocessing\.crop_share=1\.5 is out of range"),
    ],
)
def test_wrong_preprocessing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder(preprocessing={**IMAGENET.asdict(), **change})


def reloaded(encoder: ViTEncoder, folder: Path) -> ViTEncoder:
    encoder.save(folder / "encoder.keras")
    return keras.saving.load_model(folder / "encoder.keras")


CARRIED: dict[str, Callable[[ViTEncoder, Path], ViTEncoder]] = {
    "a .keras file": reloaded,
    "get_config through JSON": lambda e, _: ViTEncoder.from_config(json.loads(json.dumps(e.get_config()))),
    "resized": lambda e, _: e.resized((24, 32)),
    "the exported copy": lambda e, _: float32_copy(e),
    "a method's .keras file": lambda e, folder: reloaded(tiny_mae(e), folder).encoder,
}


@pytest.mark.parametrize("way", CARRIED)
def test_an_encoder_keeps_it(way: str, tmp_path: Path) -> None:
    assert CARRIED[way](tiny_encoder(preprocessing=OTHER), tmp_path).preprocessing == OTHER


def test_what_feeds_an_encoder_asks_it() -> None:
    """Features, a method's batch and its pictures, and the images that exported files are compared on."""
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    encoder = tiny_encoder(preprocessing=dataclasses.replace(OTHER, crop_share=1.0))
    normal = normalise(images, OTHER)
    features = encoder_features(encoder)(ArraySource(images), np.arange(4))
    np.testing.assert_allclose(features, encoder.features(normal), atol=1e-5)
    model = tiny_mae(encoder)
    batch = {"view1": images, "noise": np.random.default_rng(1).random((4, 16), dtype="float32")}
    np.testing.assert_array_equal(model.prepare(batch)["view1"], normal)
    np.testing.assert_array_equal(model.reconstruct(batch)["view1"], normal)
    shown = sample_images((16, 16), IMAGENET) * IMAGENET.std + IMAGENET.mean
    np.testing.assert_allclose(sample_images((16, 16), OTHER) * OTHER.std + OTHER.mean, shown, atol=1e-5)


@pytest.mark.slow
def test_exported_files_name_it(tmp_path: Path) -> None:
    encoder = tiny_encoder(preprocessing=OTHER)
    to_onnx(encoder, tmp_path / "encoder.onnx")
    to_saved_model(encoder, tmp_path / "saved_model")
    note = json.loads((tmp_path / "saved_model/assets.extra/lut_tf.json").read_text(encoding="utf-8"))
    named = {prop.key: prop.value for prop in onnx.load(tmp_path / "encoder.onnx").metadata_props}
    for key, value in {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2], "resized_to": [17, 17]}.items():
        assert note[key] == value
        assert json.loads(named[key]) == value
    assert note["interpolation"] == named["interpolation"] == "bilinear"
