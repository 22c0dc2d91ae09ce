"""From a configuration to a compiled model."""

from __future__ import annotations

from lut_tf.checks import resolve_size
from lut_tf.config import Config
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.lut import LUT
from lut_tf.methods.mae import MAE
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead
from lut_tf.training.optimizer import adamw
from lut_tf.training.schedules import scaled_rate, warmup_cosine


def build_model(config: Config, total_steps: int) -> MaskedImageModel:
    """Build the untrained method that a configuration describes.

    Args:
        config: checked.
        total_steps: optimizer steps of the whole run, for the teacher's momentum.
    """
    size, method, wanted, policy = resolve_size(config.encoder), config.method, config.decoder, config.compute.precision
    encoder = ViTEncoder(image_size=config.encoder.image_size, **size._asdict(), name="encoder", dtype=policy)
    tokens = (encoder.grid, size.patch_size, size.width)
    decoder = PixelDecoder(*tokens, wanted.width, wanted.depth, wanted.heads, name="decoder", dtype=policy)
    if method.name == "mae":
        return MAE(encoder, decoder, method.mask_ratio, method.norm_pix_loss, dtype=policy)
    head = method.head
    projector, predictor = (
        MLPHead(size.width, head.hidden, depth, head.norm, head.activation, name=name, dtype=policy)
        for name, depth in (("projector", head.projector_depth), ("predictor", head.predictor_depth))
    )
    return LUT(
        encoder,
        decoder,
        method.mask_ratio,
        method.norm_pix_loss,
        reconstruction_weight=method.reconstruction_weight,
        context_weight=method.context_weight,
        context_distance=method.context_distance,
        temperature=method.temperature,
        symmetric=method.symmetric,
        momentum=CosineMomentum(method.momentum, total_steps),
        projector=projector,
        predictor=predictor,
        teacher_dtype=config.compute.teacher_precision,
        dtype=policy,
    )


def compile_model(config: Config, model: MaskedImageModel, steps_per_epoch: int) -> None:
    """Give the model the configuration's AdamW with its warm-up and cosine."""
    wanted = config.optimizer
    peak = scaled_rate(wanted.base_learning_rate, wanted.batch_size, wanted.rate_rule)
    rate = warmup_cosine(peak, round(wanted.warmup_epochs * steps_per_epoch), config.epochs * steps_per_epoch)
    optimizer = adamw(rate, wanted.weight_decay, wanted.betas, model=model)
    model.compile(
        optimizer,
        accumulate=wanted.accumulate,
        clip_norm=wanted.clip_norm,
        jit_compile=config.compute.jit_compile,
        max_bad_steps=wanted.max_bad_steps,
    )
