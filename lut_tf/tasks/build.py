"""How a pre-training configuration has its method trained."""

from __future__ import annotations

from lut_tf.config import Config
from lut_tf.methods.base import MaskedImageModel
from lut_tf.training.optimizer import adamw
from lut_tf.training.schedules import warmup_cosine


def compile_model(config: Config, model: MaskedImageModel, steps_per_epoch: int) -> None:
    """Give the model the configuration's AdamW with its warm-up and cosine."""
    wanted = config.optimizer
    rate = warmup_cosine(
        wanted.peak_learning_rate,
        round(wanted.warmup_epochs * steps_per_epoch),
        config.epochs * steps_per_epoch,
        wanted.minimum_learning_rate,
        wanted.warmup_learning_rate,
    )
    optimizer = adamw(rate, wanted.weight_decay, wanted.betas, model=model)
    model.compile(
        optimizer,
        accumulate=wanted.accumulate,
        clip_norm=wanted.clip_norm,
        jit_compile=config.compute.jit_compile,
        max_bad_steps=wanted.max_bad_steps,
    )
