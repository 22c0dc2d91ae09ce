"""How slowly the teacher follows the student."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from lut_tf.config import Count, Fraction, check_value


@keras.saving.register_keras_serializable(package="lut_tf")
class CosineMomentum:
    """Momentum that rises from `start` to 1 along a half cosine: 1 + (start − 1) · ½(1 + cos(π t/T)) (LUT §4).

    Called with the optimizer step t (integer tensor or number, from 0), it returns a float32 scalar; after the last
    step it stays 1.

    Args:
        start: momentum of the first update, in [0, 1].
        total_steps: T, optimizer steps of the whole run.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(self, start: float, total_steps: int) -> None:
        check_value("momentum", start, Fraction)
        check_value("total_steps", total_steps, Count)
        self.start, self.total_steps = start, total_steps

    def __call__(self, step: Any) -> Any:
        """Return the momentum of optimizer step `step`."""
        progress = ops.minimum(ops.cast(step, "float32") / self.total_steps, 1.0)
        return 1.0 + (self.start - 1.0) * 0.5 * (1.0 + ops.cos(math.pi * progress))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"start": self.start, "total_steps": self.total_steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CosineMomentum:
        """Make the schedule that `get_config` described."""
        return cls(**config)
