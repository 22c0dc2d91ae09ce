"""The optimizers: AdamW that decays matrices and tokens only, and AdamW whose rate falls towards the images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lut_tf.config.types import PositiveFraction, check_value
from lut_tf.models.encoder import ViTEncoder


@keras.saving.register_keras_serializable(package="lut_tf")
class AdamW(keras.optimizers.AdamW):
    """AdamW with epsilon where its authors and PyTorch have it, outside the bias correction.

    Keras adds it inside, where it counts up to 1/√(1 − β₂) times as much in the first steps. That is no detail: it
    moves weights whose gradients are near 1e-8 by half a learning rate, and these are found in every ViT.

    Args:
        decay_matrices_only: leave what `undecayed` names undecayed; unlike a list of variables it survives saving.
        undecayed_names: variables that are undecayed whatever their shape; None: those of the class.
    """

    undecayed_names: tuple[str, ...] = ("bias", "positions")
    """Variables that are undecayed whatever their shape. Class and mask tokens *are* decayed, as in the reference."""

    def __init__(
        self,
        *arguments: Any,
        decay_matrices_only: bool = False,
        undecayed_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*arguments, **kwargs)
        self.decay_matrices_only = decay_matrices_only
        if undecayed_names is not None:
            self.undecayed_names = tuple(undecayed_names)

    def build(self, variables: list[Any]) -> None:
        """Choose what decays, and create the moments."""
        if self.decay_matrices_only and not self.built:
            self.exclude_from_weight_decay(var_list=self.undecayed(variables))
        super().build(variables)

    def undecayed(self, variables: list[Any]) -> list[Any]:
        """Return those of `variables` that are not decayed: what has one dimension, and what has one of the names."""
        return [variable for variable in variables if len(variable.shape) < 2 or variable.name in self.undecayed_names]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"decay_matrices_only": self.decay_matrices_only, "undecayed_names": list(self.undecayed_names)}
        return {**super().get_config(), **own}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one step: variable −= rate · m̂ / (√v̂ + epsilon), with m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ)."""
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, "float32")
        bias1, bias2 = (ops.cast(-ops.expm1(step * math.log(beta)), variable.dtype) for beta in self._betas())
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - self.beta_2))
        deviation = ops.sqrt(second / bias2) + self.epsilon
        self.assign_sub(variable, rate / bias1 * first / deviation)

    def _betas(self) -> tuple[float, float]:
        smallest = 1e-30  # the logarithm of a beta of 0, with which nothing is remembered
        return max(self.beta_1, smallest), max(self.beta_2, smallest)


@keras.saving.register_keras_serializable(package="lut_tf")
class LayerwiseAdamW(AdamW):
    """AdamW that trains a Vision Transformer's layers the slower, the nearer they are to the images.

    The rate of layer i, and with it the decoupled decay, is multiplied by layer_decay^(depth + 1 − i); see `layer_of`.
    Beside what `AdamW` leaves undecayed it is the class token. It keeps nothing of its own from step to step: what a
    variable is, its path says, so that a saved optimizer goes on alike.

    Args:
        layer_decay: above 0 and up to 1, with which all layers are alike.
        depth: number of the encoder's blocks.
        encoder: the encoder's name.
    """

    undecayed_names = ("bias", "positions", "class_token")

    def __init__(
        self, *arguments: Any, layer_decay: float = 0.75, depth: int = 12, encoder: str = "encoder", **kwargs: Any
    ) -> None:
        super().__init__(*arguments, **{**kwargs, "decay_matrices_only": True})
        self.layer_decay, self.depth, self.encoder = layer_decay, depth, encoder

    def build(self, variables: list[Any]) -> None:
        """Look up each variable's layer, choose what decays, and create the moments."""
        self.scales = tuple(self.scale(variable) for variable in variables)
        super().build(variables)

    def scale(self, variable: Any) -> float:
        """Return what the rate of a Keras variable is multiplied by."""
        return self.layer_decay ** (self.depth + 1 - layer_of(variable.path, self.encoder, self.depth))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"layer_decay": self.layer_decay, "depth": self.depth, "encoder": self.encoder}
        return {**super().get_config(), **own}

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Do nothing: Keras would decay all variables at one rate here, and `update_step` does it at their own."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay the variable and take `AdamW`'s step, both at the rate of its layer."""
        rate = ops.cast(learning_rate, variable.dtype) * self.scales[self._get_variable_index(variable)]
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * (rate * self.weight_decay))
        super().update_step(gradient, variable, rate)


def layer_of(path: str, encoder: str, depth: int) -> int:
    """Return the layer that the path of a variable belongs to, as fine-tuning counts them (LUT, MAE, BEiT).

    Patch embedding, class token, register tokens and positions of the encoder are layer 0, its block i is layer i + 1;
    its final norm and all that is no part of it, such as a head, are the last one, depth + 1.
    """
    _, found, inside = f"/{path}".rpartition(f"/{encoder}/")
    if not found:
        return depth + 1
    if block := re.match(r"block(\d+)/", inside):
        return int(block[1]) + 1
    return depth + 1 if inside.startswith("norm/") else 0


def layerwise_adamw(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: float = 0.75,
    *,
    model: keras.Model,
) -> LayerwiseAdamW:
    """Make the AdamW that fine-tunes `model`, its rate falling from layer to layer (LUT §4; epsilon 1e-8).

    Args:
        learning_rate: of the last layer; a number, or a schedule of the optimizer step such as `warmup_cosine`.
        weight_decay: decoupled decay, multiplied by the rate of the layer, of what has two dimensions and is no bias,
            class token or position.
        betas: decay rates of the two moments.
        layer_decay: the rate of a layer, by that of the next one.
        model: what it will train, such as a `ViTClassifier`, or a model that contains one.

    Raises:
        ValueError: `layer_decay` is out of range, or the model has nothing to train, or not one encoder.
    """
    check_value("layer_decay", layer_decay, PositiveFraction)
    _check_trainable(model)
    encoders = [part for part in model._flatten_layers() if isinstance(part, ViTEncoder) and part.trainable_variables]
    if len(encoders) != 1:
        raise ValueError(
            f"model={model.name!r} has {len(encoders)} encoders to train, and layers are counted in one: give a "
            "ViTClassifier, or a model that contains one"
        )
    return LayerwiseAdamW(
        learning_rate,
        weight_decay=weight_decay,
        beta_1=betas[0],
        beta_2=betas[1],
        epsilon=1e-8,
        layer_decay=layer_decay,
        depth=encoders[0].depth,
        encoder=encoders[0].name,
    )


def _check_trainable(model: keras.Model) -> None:
    if not model.trainable_variables:
        raise ValueError(f"model={model.name!r} has nothing to train: build it, or make it trainable, first")


def adamw(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.95),
    *,
    model: keras.Model,
) -> AdamW:
    """Make the AdamW that trains `model` (LUT §4; epsilon 1e-8).

    Args:
        learning_rate: a number, or a schedule of the optimizer step such as `warmup_cosine`.
        weight_decay: decoupled decay, multiplied by the rate, of what `AdamW.undecayed` does not name.
        betas: decay rates of the two moments.
        model: what it will train; it may name what else is undecayed (see `Trainable.undecayed_names`).

    Raises:
        ValueError: the model has nothing to train.
    """
    _check_trainable(model)
    return AdamW(
        learning_rate,
        weight_decay=weight_decay,
        beta_1=betas[0],
        beta_2=betas[1],
        epsilon=1e-8,
        decay_matrices_only=True,
        undecayed_names=getattr(model, "undecayed_names", None),
    )
