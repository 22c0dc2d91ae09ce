"""Small encoders whose every weight counts: at their initial values, scales of one and shifts of zero fold away."""

from __future__ import annotations

from typing import Any

import numpy as np

from lut_tf.models.encoder import ViTEncoder


def disturbed(encoder: ViTEncoder) -> ViTEncoder:
    random = np.random.default_rng(0)
    for weight in encoder.trainable_variables:
        weight.assign(weight + random.normal(0.0, 0.05, weight.shape))
    return encoder


def small_encoder(**options: Any) -> ViTEncoder:
    return disturbed(ViTEncoder(**{"image_size": 32, "patch_size": 8, "width": 48, "depth": 2, "heads": 3, **options}))
