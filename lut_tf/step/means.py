"""Running means of a step's losses, the same number on every replica (keras.ops only)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="lut_tf")
class StepMean(keras.metrics.Metric):
    """Mean over steps of a number that all replicas agree about.

    Keras' `Mean` sums what each replica has seen, and is saved as that sum: given back in equal parts, a run that goes
    on would round otherwise than one that was never stopped. Here every replica holds the whole, and one is saved.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._total, self._count = (
            self.add_variable((), "zeros", aggregation="only_first_replica", name=part) for part in ("total", "count")
        )

    def update_state(self, value: Any, counts: Any = True) -> None:
        """Add a step's value, if `counts`; one that does not count may be no number."""
        self._total.assign_add(ops.where(counts, ops.cast(value, self._total.dtype), 0.0))
        self._count.assign_add(ops.where(counts, 1.0, 0.0))

    def result(self) -> Any:
        """Return the mean, 0 before the first value."""
        return ops.divide_no_nan(self._total.value, self._count.value)
