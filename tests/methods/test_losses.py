"""The exchangeable context distances against loops over single numbers, and the schedule of the momentum."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lut_tf.methods.context import infonce_distance, smooth_l1_distance
from lut_tf.methods.losses import patch_statistics, reconstruction_loss
from lut_tf.methods.momentum import CosineMomentum


def vectors(seed: int, rows: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype("float32")


def unit(x: np.ndarray) -> np.ndarray:
    x = x.astype("float64")
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_infonce(temperature: float) -> None:
    """1e-5 relative: −log of the own image's share among all keys of the global micro-batch."""
    query, keys = vectors(1), vectors(2, rows=10)
    total = 0.0
    for i in range(5):
        q, others = unit(query)[i], unit(keys)
        scores = [math.exp(float(q @ other) / temperature) for other in others]
        total -= math.log(scores[5 + i] / sum(scores)) / 5
    found = infonce_distance(query, keys[5:], keys, temperature)  # this replica holds the second half
    np.testing.assert_allclose(float(found), total, rtol=1e-5)


def test_smooth_l1() -> None:
    """1e-5 relative, with differences on both sides of 1."""
    query, key = vectors(3, 4, 2), vectors(4, 4, 2)
    key[0] = -query[0] + np.float32(0.01)
    total, large = 0.0, 0
    for a, b in zip(unit(query).ravel(), unit(key).ravel(), strict=True):
        gap = abs(a - b)
        large += gap >= 1
        total += (0.5 * gap**2 if gap < 1 else gap - 0.5) / 8
    assert large
    np.testing.assert_allclose(float(smooth_l1_distance(query, key)), total, rtol=1e-5)


def test_patch_statistics_are_unbiased() -> None:
    """1e-6: NumPy's variance with ddof=1."""
    x = vectors(5, 3, 12)[None]
    mean, deviation = patch_statistics(x)
    np.testing.assert_allclose(mean[..., 0], x.mean(-1), atol=1e-6)
    np.testing.assert_allclose(deviation[..., 0], np.sqrt(x.var(-1, ddof=1) + 1e-6), rtol=1e-6)


def test_reconstruction_loss_is_a_plain_mean() -> None:
    """1e-6 relative."""
    x, y = vectors(6)[None], vectors(7)[None]
    np.testing.assert_allclose(float(reconstruction_loss(x, y)), ((x - y) ** 2).mean(), rtol=1e-6)


def test_momentum_stays_at_one_after_the_run() -> None:
    schedule = CosineMomentum(0.9, 10)
    assert float(schedule(0)) == pytest.approx(0.9)
    assert float(schedule(10)) == float(schedule(1000)) == 1.0


@pytest.mark.parametrize("arguments", [(-0.1, 10), (1.1, 10), (0.9, 0)])
def test_momentum_refuses_what_cannot_be(arguments: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        CosineMomentum(*arguments)
