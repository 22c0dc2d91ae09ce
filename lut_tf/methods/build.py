"""From a pre-training configuration to the untrained method."""

from __future__ import annotations

from typing import Any

from lut_tf.config import Config
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.methods.registry import METHODS
from lut_tf.models.decoder import PixelDecoder


def build_model(config: Config, total_steps: int) -> MaskedImageModel:
    """Build the untrained method that a configuration describes.

    Args:
        config: validated.
        total_steps: optimizer steps of the whole run, for the teacher's momentum.
    """
    method, size, wanted = METHODS[config.method.name], config.encoder.size(), config.decoder
    policy = config.compute.precision
    encoder = method.make_encoder(image_size=config.encoder.image_size, **size._asdict(), name="encoder", dtype=policy)
    shape = (wanted.width, wanted.depth, wanted.heads) if method.decoder_kind is PixelDecoder else ()
    decoder = method.decoder_kind(encoder.grid, size.patch_size, size.width, *shape, name="decoder", dtype=policy)
    teacher: dict[str, Any] = {
        "momentum": CosineMomentum(config.method.momentum, total_steps),
        "teacher_dtype": config.compute.teacher_precision,
    }
    return method(encoder, decoder, settings=config.method, dtype=policy, **(teacher if method.has_teacher else {}))
