"""Learning rates by optimizer step (Keras only, no TensorFlow)."""

from __future__ import annotations

import keras


def warmup_cosine(
    peak: float, warmup_steps: int, total_steps: int, minimum: float = 0.0, start: float = 0.0
) -> keras.optimizers.schedules.CosineDecay:
    """Return the rate that rises linearly from `start` to `peak`, then falls along a half cosine to `minimum`.

    Args:
        peak: rate at the end of the warm-up, above 0.
        warmup_steps: optimizer steps of the rise; 0 starts at `peak`.
        total_steps: optimizer steps of the whole run, warm-up included; from there on the rate is `minimum`.
        minimum: rate at the end, from 0 to `peak` (LUT, MAE: 0).
        start: rate of the first step of a warm-up, from 0 to `peak` (LUT, MAE: 0).

    Raises:
        ValueError: the numbers do not fit together.
    """
    if peak <= 0 or not 0 <= minimum <= peak or not 0 <= start <= peak:
        raise ValueError(f"peak={peak} must be above 0, and minimum={minimum} and start={start} lie between 0 and it")
    if total_steps < 1 or not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps={warmup_steps} must lie between 0 and total_steps={total_steps} (1 or more)")
    decay_steps = max(1, total_steps - warmup_steps)  # Keras wants one, though a run of warm-up alone never takes it
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps, alpha=minimum / peak)
    return keras.optimizers.schedules.CosineDecay(
        start, decay_steps, alpha=minimum / peak, warmup_target=peak, warmup_steps=warmup_steps
    )
