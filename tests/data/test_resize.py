"""Guards resizing: the two ways of computing it agree, for any scale and any piece."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lut_tf.data.resize import _by_kernel, _by_sums

SIDE = 40


@pytest.mark.parametrize("shape", [(375, 500), (90, 70), (20, 30), (41, 40), (1, 9), (700, 50)])
def test_sums_equal_the_kernel(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    full = tf.constant([SIDE * shape[0] // min(shape), SIDE * shape[1] // min(shape)])
    start = (full - SIDE) // 3
    places = tf.range(SIDE)
    windows = [(places, places), (places, places[::-1])]
    arguments = (image, full, start, tf.constant([SIDE, SIDE]), windows)
    for kernel, sums in zip(_by_kernel(*arguments), _by_sums(*arguments), strict=True):
        difference = np.abs(kernel.numpy().astype(int) - sums.numpy())
        assert difference.max() <= 1 and difference.mean() < 0.01  # sums in another order, then rounded
