"""Learning rates and momentum against the reference program's numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lut_tf.config.training import scaled_rate
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.training.schedules import warmup_cosine

Golden = Callable[[str], dict[str, np.ndarray]]


def test_warmup_cosine(golden: Golden) -> None:
    """1e-6 of the peak at each of 60 steps: 10 epochs of 6, 2 of warm-up."""
    arrays = golden("schedules")
    np.testing.assert_allclose(arrays["lr_fractional_epoch"] * 6, np.arange(60), atol=1e-9)
    schedule = warmup_cosine(1e-3, 12, 60, minimum=1e-6)
    found = [float(schedule(step)) for step in range(60)]
    np.testing.assert_allclose(found, arrays["lr_base1e-3_min1e-6_warm2_epochs10"], rtol=0, atol=1e-9)


def test_teacher_momentum(golden: Golden) -> None:
    """1e-6 at each of 35 steps."""
    schedule = CosineMomentum(0.996, 35)
    found = [float(schedule(step)) for step in range(35)]
    np.testing.assert_allclose(found, golden("schedules")["ema_cosine_0.996_epochs5_steps7"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "base", "rule"), [("pretrain_lr_for_batch", 1.5e-4, "sqrt"), ("finetune_lr_for_batch", 1e-3, "finetune")]
)
def test_rate_of_a_batch(golden: Golden, name: str, base: float, rule: str) -> None:
    """1e-6 relative."""
    for batch, expected in golden("schedules")[name]:
        np.testing.assert_allclose(scaled_rate(base, int(batch), rule), expected, rtol=1e-6)


def test_other_rules() -> None:
    assert scaled_rate(1.5e-4, 4096, "linear") == pytest.approx(2.4e-3)
    assert scaled_rate(1.5e-4, 4096, "none") == 1.5e-4
    with pytest.raises(ValueError, match="rule='cubic'.*sqrt"):
        scaled_rate(1.0, 64, "cubic")


def test_without_warmup_it_starts_at_the_peak() -> None:
    schedule = warmup_cosine(2.0, 0, 10)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 5, 10, 99)], [2.0, 1.0, 0.0, 0.0], atol=1e-6)


def test_it_begins_and_ends_at_rates_above_zero() -> None:
    """SimMIM's: linear from the start, half cosine to the minimum."""
    schedule = warmup_cosine(1.0, 4, 12, minimum=0.2, start=0.4)
    expected = [0.4, 0.55, 0.7, 0.85, 1.0, *(0.2 + 0.4 * (1 + np.cos(np.pi * np.arange(1, 9) / 8)))]
    np.testing.assert_allclose([float(schedule(step)) for step in range(13)], expected, atol=1e-6)


def test_a_run_of_warmup_alone() -> None:
    schedule = warmup_cosine(2.0, 4, 4)
    np.testing.assert_allclose([float(schedule(step)) for step in range(5)], [0.0, 0.5, 1.0, 1.5, 2.0], atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [(0.0, 1, 10), (1.0, 11, 10), (1.0, -1, 10), (1.0, 0, 0), (1.0, 0, 10, 2.0), (1.0, 1, 10, 0.0, 2.0)],
)
def test_numbers_that_do_not_fit_are_refused(arguments: tuple[float, int, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        warmup_cosine(*arguments)
