"""Guards resizing: what small and large views are computed by are Pillow's, for any scale and any piece."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lut_tf.data.views.resize import SMALL, resized

SHAPES = [(375, 500), (90, 70), (20, 30), (41, 40), (1, 9), (700, 50)]


@pytest.mark.parametrize("side", [40, SMALL + 8])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("where", [0.0, 0.3, 1.0])
def test_pieces_are_pillows(side: int, shape: tuple[int, int], where: float) -> None:
    """Of Pillow's floating-point resize of the whole, which does not round between rows and columns."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    full = np.array([side * shape[0] // min(shape), side * shape[1] // min(shape)], np.int32)
    start = ((full - side) * where).astype(np.int32)
    channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    whole = np.stack([channel.resize(full[::-1].tolist(), Image.Resampling.BICUBIC) for channel in channels], axis=2)
    expected = np.clip(whole.round(), 0, 255)[start[0] : start[0] + side, start[1] : start[1] + side]
    places = tf.range(side)
    plain, flipped = resized(
        image, *map(tf.constant, (full, start, [side, side])), [(places, places), (places, places[::-1])], side
    )
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    difference = np.abs(plain.numpy() - expected)
    assert difference.max() <= 1 and difference.mean() < 0.01  # sums in another order, then rounded
