"""How a configuration has its model trained."""

from __future__ import annotations

import keras

from lut_tf.config import Config, FinetuneConfig, LinearProbeConfig, RunConfig
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.classification import Classification
from lut_tf.methods.linear_probe import LinearProbe
from lut_tf.step import TrainableModel
from lut_tf.training.lars import LARS
from lut_tf.training.optimizer import adamw, layerwise_adamw
from lut_tf.training.schedules import warmup_cosine


def compile_model(config: Config, model: MaskedImageModel, steps_per_epoch: int) -> None:
    """Give a method the configuration's AdamW with its warm-up and cosine."""
    wanted = config.optimizer
    rate = _rate(config, steps_per_epoch, wanted.minimum_learning_rate, wanted.warmup_learning_rate)
    _compile(config, model, adamw(rate, wanted.weight_decay, wanted.betas, model=model))


def compile_classification(config: FinetuneConfig, model: Classification, steps_per_epoch: int) -> None:
    """Give a classifier the configuration's layer-wise AdamW with its warm-up and cosine."""
    wanted = config.optimizer
    rate = _rate(config, steps_per_epoch, wanted.minimum_learning_rate, wanted.warmup_learning_rate)
    optimizer = layerwise_adamw(rate, wanted.weight_decay, wanted.betas, wanted.layer_decay, model=model.classifier)
    _compile(config, model, optimizer)


def compile_probe(config: LinearProbeConfig, model: LinearProbe, steps_per_epoch: int) -> None:
    """Give the linear layers LARS, each its share of the largest of the configuration's rates."""
    largest = max(config.optimizer.base_learning_rates)
    shares = {head: rate / largest for head, (_, rate) in model.heads.items()}
    _compile(config, model, LARS(_rate(config, steps_per_epoch), shares=shares))


def _rate(
    config: RunConfig, steps_per_epoch: int, minimum: float = 0.0, start: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    wanted = config.optimizer
    warmup = round(wanted.warmup_epochs * steps_per_epoch)
    return warmup_cosine(wanted.peak_learning_rate, warmup, config.epochs * steps_per_epoch, minimum, start)


def _compile(config: RunConfig, model: TrainableModel, optimizer: keras.optimizers.Optimizer) -> None:
    wanted = config.optimizer
    model.compile(
        optimizer,
        accumulate=wanted.accumulate,
        clip_norm=getattr(wanted, "clip_norm", 0.0),
        jit_compile=config.compute.jit_compile,
        max_bad_steps=wanted.max_bad_steps,
    )
