"""The pre-training optimizer: AdamW that decays matrices and tokens only."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lut_tf")
class AdamW(keras.optimizers.AdamW):
    """AdamW with epsilon where its authors and PyTorch have it, outside the bias correction.

    Keras adds it inside, where it counts up to 1/√(1 − β₂) times as much in the first steps. That is no detail: it
    moves weights whose gradients are near 1e-8 by half a learning rate, and these are found in every ViT.

    Args:
        decay_matrices_only: leave what `undecayed` names undecayed; unlike a list of variables it survives saving.
    """

    def __init__(self, *arguments: Any, decay_matrices_only: bool = False, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.decay_matrices_only = decay_matrices_only

    def build(self, variables: list[Any]) -> None:
        """Choose what decays, and create the moments."""
        if self.decay_matrices_only and not self.built:
            self.exclude_from_weight_decay(var_list=undecayed(variables))
        super().build(variables)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "decay_matrices_only": self.decay_matrices_only}

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


def undecayed(variables: list[Any]) -> list[Any]:
    """Return those of `variables` that AdamW leaves undecayed: what has one dimension, biases and learned positions.

    Class and mask tokens *are* decayed, as in the reference.
    """
    return [variable for variable in variables if len(variable.shape) < 2 or variable.name in ("bias", "positions")]


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
        weight_decay: decoupled decay, multiplied by the rate, of what `undecayed` does not name.
        betas: decay rates of the two moments.
        model: what it will train, to see that there is something.

    Raises:
        ValueError: the model has nothing to train.
    """
    if not model.trainable_variables:
        raise ValueError(f"model={model.name!r} has nothing to train: build it, or make it trainable, first")
    return AdamW(
        learning_rate,
        weight_decay=weight_decay,
        beta_1=betas[0],
        beta_2=betas[1],
        epsilon=1e-8,
        decay_matrices_only=True,
    )
