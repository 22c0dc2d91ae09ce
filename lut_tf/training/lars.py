"""LARS, the optimizer of linear probes (Keras has none)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lut_tf")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling (arXiv 1708.03888), as MoCo v3, MAE and AMT probe with.

    Of a weight w of two dimensions or more with the gradient g, d = g + weight_decay · w, scaled by
    trust_coefficient · ‖w‖/‖d‖ (by 1 where either norm is 0); of one with fewer dimensions, d = g. Then
    m ← momentum · m + d and w ← w − rate · m.

    Args:
        learning_rate: a number, or a schedule of the optimizer step.
        weight_decay: see above.
        momentum: see above.
        trust_coefficient: see above.
        shares: what the rate is multiplied by for the variables of the layers that are named; 1 for others.
        name: of the optimizer.
        **kwargs: of Keras' optimizers.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
        shares: Mapping[str, float] | None = None,
        name: str = "lars",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.momentum, self.trust_coefficient = momentum, trust_coefficient
        self.shares = dict(shares or {})

    def build(self, variables: list[Any]) -> None:
        """Create the momenta, and look up each variable's share of the rate."""
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")
        self._rates = [self.shares.get(layer_of(variable), 1.0) for variable in variables]

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Do nothing: Keras would decay apart from the gradient, and here the decay is a part of it."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one step; see the class."""
        index = self._get_variable_index(variable)
        rate, update = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        if len(variable.shape) > 1:
            update = update + self.weight_decay * variable
            weight_norm, update_norm = _norm(variable), _norm(update)
            both = ops.logical_and(weight_norm > 0, update_norm > 0)
            scaled = self.trust_coefficient * weight_norm / ops.where(both, update_norm, 1.0)
            update = update * ops.where(both, scaled, 1.0)
        momentum = self._momenta[index]
        moved = momentum * self.momentum + update
        self.assign(momentum, moved)
        self.assign_sub(variable, rate * self._rates[index] * moved)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {name: getattr(self, name) for name in ("momentum", "trust_coefficient", "shares")}
        return {**super().get_config(), **own}


def layer_of(variable: Any) -> str:
    """Return the name of the layer that a Keras variable is of: the last but one of its path."""
    return str(variable.path).split("/")[-2] if "/" in variable.path else ""


def _norm(x: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(x)))
