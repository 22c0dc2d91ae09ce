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
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pieces_are_pillows(side: int, shape: tuple[int, int], where: float, interpolation: str) -> None:
    """Of Pillow's floating-point resize of the whole, which does not round between rows and columns."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    full = np.array([side * shape[0] // min(shape), side * shape[1] // min(shape)], np.int32)
    start = ((full - side) * where).astype(np.int32)
    channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    kernel = Image.Resampling[interpolation.upper()]
    whole = np.stack([channel.resize(full[::-1].tolist(), kernel) for channel in channels], axis=2)
    expected = np.clip(whole, 0, 255)[start[0] : start[0] + side, start[1] : start[1] + side]
    places = tf.range(side)
    windows = [(places, places), (places, places[::-1])]
    piece = map(tf.constant, (full, start, [side, side]))
    plain, flipped = resized(image, *piece, windows, (side, side), interpolation)
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    # Rounded once; and a place near 700 is known to 6e-5 of a pixel in float32, over which values may change by 255.
    assert np.abs(plain.numpy() - expected).max() <= 0.5 + 255 * 6e-5
