"""From a pre-training configuration to the untrained method."""

from __future__ import annotations

from typing import Any

from lut_tf.config import Config
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.methods.registry import METHODS
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder


def build_model(config: Config, total_steps: int) -> MaskedImageModel:
    """Build the untrained method that a configuration describes.

    Args:
        config: validated.
        total_steps: optimizer steps of the whole run, for the teacher's momentum.
    """
    size, wanted, policy = config.encoder.size(), config.decoder, config.compute.precision
    encoder = ViTEncoder(image_size=config.encoder.image_size, **size._asdict(), name="encoder", dtype=policy)
    decoder = PixelDecoder(
        encoder.grid,
        size.patch_size,
        size.width,
        wanted.width,
        wanted.depth,
        wanted.heads,
        name="decoder",
        dtype=policy,
    )
    teacher: dict[str, Any] = {
        "momentum": CosineMomentum(config.method.momentum, total_steps),
        "teacher_dtype": config.compute.teacher_precision,
    }
    method = METHODS[config.method.name]
    return method(encoder, decoder, settings=config.method, dtype=policy, **(teacher if method.has_teacher else {}))
