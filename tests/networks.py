"""The small networks and methods that the tests train, changed by name, and a batch that fits them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lut_tf import LUT, MAE, MLPHead, PixelDecoder, SimMIM, ViTClassifier, ViTEncoder
from lut_tf.config import HeadConfig
from lut_tf.methods.base import MaskedImageModel

HEAD = {field.name for field in dataclasses.fields(HeadConfig)}


def tiny_encoder(**changes: Any) -> ViTEncoder:
    """16 patches of 4 × 4 pixels, 16 channels, one block."""
    return ViTEncoder(**{"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, **changes})


def tiny_decoder(encoder: ViTEncoder, **changes: Any) -> PixelDecoder:
    """The decoder of an encoder, in its precision: 16 channels, one block."""
    fitting = {"grid": encoder.grid, "patch_size": encoder.patch_size, "encoder_width": encoder.width}
    small = {"width": 16, "depth": 1, "heads": 2, "dtype": encoder.dtype_policy}
    return PixelDecoder(**{**fitting, **small, **changes})


def tiny_head(**changes: Any) -> MLPHead:
    """A projector or predictor of the tiny encoder, built."""
    head = MLPHead(**{"width": 16, "hidden": 24, **changes})
    head.build((None, head.width))
    return head


def tiny_lut(encoder: ViTEncoder | None = None, **changes: Any) -> LUT:
    """A LUT of tiny parts in one precision; settings of `method.head` (`norm`, `hidden`, …) by their names too."""
    head = HeadConfig(**{"hidden": 24, **{name: changes.pop(name) for name in HEAD & changes.keys()}})
    encoder = encoder or tiny_encoder(dtype=changes.get("dtype"))
    return LUT(encoder, **{"decoder": tiny_decoder(encoder), "head": head, **changes})


def tiny_mae(encoder: ViTEncoder | None = None, **changes: Any) -> MAE:
    """An MAE of tiny parts in one precision."""
    encoder = encoder or tiny_encoder(dtype=changes.get("dtype"))
    return MAE(encoder, **{"decoder": tiny_decoder(encoder), **changes})


def tiny_classifier(classes: int = 10, class_names: list[str] | None = None, **changes: Any) -> ViTClassifier:
    """The encoder with a linear layer of some size, around its mean features: answers differ from image to image."""
    classifier = ViTClassifier.from_encoder(tiny_encoder(**changes), classes, class_names=class_names)
    random = np.random.default_rng(0)
    kernel = random.normal(size=(classifier.encoder.width, classes))
    features = classifier.features(random.normal(size=(32, *classifier.image_size, 3)).astype("float32"))
    classifier.head.set_weights([kernel, -np.asarray(features).mean(axis=0) @ kernel])
    return classifier


def tiny_simmim(encoder: ViTEncoder | None = None, **changes: Any) -> SimMIM:
    """A SimMIM of tiny parts in one precision; its units are 8 × 8 pixels."""
    encoder = encoder or tiny_encoder(positions="learned", dtype=changes.get("dtype"))
    return SimMIM(encoder, **{"mask_unit": 8, "mask_ratio": 0.5, **changes})


def tiny_batch(model: MaskedImageModel, count: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """`count` normalised images' views, noise and geometries, float32, as `model` takes them."""
    random = np.random.default_rng(seed)
    names = ("view1", "view2")[: model.view_count]
    views = {name: random.normal(size=(count, *model.encoder.image_size, 3)).astype("float32") for name in names}
    noise = random.random((count, model.noise_length), dtype="float32")
    geometries = {name.replace("view", "geometry"): crops(random, count) for name in views}
    masking = model.settings.masking
    asked = masking.name == "attention" and not masking.by_teacher
    weights = {"weights": random.random((count, model.encoder.patches), dtype="float32")} if asked else {}
    return {**views, "noise": noise, **geometries, **weights}


def crops(random: np.random.Generator, count: int) -> np.ndarray:
    """Geometries (count, 5) of crops that share a part of the image, and may be flipped."""
    start, extent = random.uniform(0, 0.4, (count, 2)), random.uniform(0.5, 0.6, (count, 2))
    return np.concatenate([start, extent, random.integers(0, 2, (count, 1))], axis=1).astype("float32")
