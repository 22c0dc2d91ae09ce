"""Guards RandAugment: its operations are Pillow's, to a fraction of a pixel, and each is applied half of the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from lut_tf.data.views.rand_augment import FILL, operations, rand_augment

LEVEL, SIDE = 0.9, 40
KNOWN = operations()
SMOOTH = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)).resize((SIDE, SIDE))
)


def applied(name: str, sign: float) -> np.ndarray:
    images = tf.constant(SMOOTH, tf.float32)[tf.newaxis]
    return KNOWN[name](images, tf.constant(LEVEL), tf.constant(sign))[0].numpy()


def enhanced(kind: Any) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, sign: kind(image).enhance(1 + LEVEL * 0.9 * sign)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "auto_contrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "invert": lambda image, sign: ImageOps.invert(image),
    "posterize": lambda image, sign: ImageOps.posterize(image, 1),
    "solarize": lambda image, sign: ImageOps.solarize(image, 26),
    "solarize_add": lambda image, sign: image.point([min(255, i + 99) if i < 128 else i for i in range(256)] * 3),
    "colour": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
}


SHEAR, SHIFT, TURN = 0.3 * LEVEL, 0.45 * LEVEL * SIDE, math.radians(30 * LEVEL)


def turned(sign: float) -> tuple[float, ...]:
    cosine, sine, middle = math.cos(TURN), sign * math.sin(TURN), SIDE / 2
    offsets = middle - cosine * middle + sine * middle, middle - sine * middle - cosine * middle
    return cosine, -sine, offsets[0], sine, cosine, offsets[1]


# Where Pillow looks for output pixel (x, y): (a x + b y + c, d x + e y + f), counted at the corners of pixels. Shears
# are counted at their centres by keras-cv, so that they lie half the shear, at most 0.15 pixels, from the reference's.
AFFINE: dict[str, Callable[[float], tuple[float, ...]]] = {
    "rotate": turned,
    "shear_x": lambda sign: (1, sign * SHEAR, -sign * SHEAR / 2, 0, 1, 0),
    "shear_y": lambda sign: (1, 0, 0, sign * SHEAR, 1, -sign * SHEAR / 2),
    "translate_x": lambda sign: (1, 0, -sign * SHIFT, 0, 1, 0),
    "translate_y": lambda sign: (1, 0, 0, 0, 1, -sign * SHIFT),
}


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", PILLOW)
def test_operations_do_what_pillow_does(name: str, sign: float) -> None:
    expected = np.asarray(PILLOW[name](Image.fromarray(SMOOTH), sign)).astype(float)
    error = np.abs(np.clip(np.round(applied(name, sign)), 0, 255) - expected)
    assert error.mean() < 1.5 and error.max() <= 6


def pillows(matrix: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return Pillow's result in floating point, and where it knows pixels of the image (the border interpolates)."""
    channels = [
        Image.fromarray(SMOOTH[..., c].astype(np.float32)).transform(
            (SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=-1e6
        )
        for c in range(3)
    ]
    result = np.stack(channels, axis=-1)
    return result, result[..., 0] >= 0


def inner(mask: np.ndarray) -> np.ndarray:
    """Leave out what is within two pixels of something else, or of the image's border."""
    padded = np.pad(mask, 2)
    return np.all([padded[i : i + SIDE, j : j + SIDE] for i in range(5) for j in range(5)], axis=0)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", AFFINE)
def test_geometry_is_pillows(name: str, sign: float) -> None:
    result = applied(name, sign)
    expected, known = pillows(AFFINE[name](sign))
    assert inner(known).sum() > 600
    np.testing.assert_allclose(result[inner(known)], expected[inner(known)], atol=0.01)
    np.testing.assert_allclose(result[inner(~known)], np.tile(FILL, (inner(~known).sum(), 1)), atol=0.01)
    a, b, c, d, e, f = AFFINE[name](sign)
    moved, still = pillows((a, b, c + 0.5, d, e, f))
    both = inner(known & still)
    assert np.abs(result - moved)[both].max() > 4  # this picture tells half a pixel


def test_all_fifteen_are_there() -> None:
    assert KNOWN.keys() == PILLOW.keys() | AFFINE.keys() and len(KNOWN) == 15


@pytest.mark.medium
def test_operations_are_drawn_evenly_and_applied_half_of_the_time() -> None:
    """`which` chooses the operation, `whether` below a half applies it, `direction` is its sign."""
    image = tf.constant(SMOOTH)
    strong = tf.function(lambda draws: rand_augment(image, draws, tf.zeros([1]), 9.0, 0.0))

    def result(which: float, whether: float, direction: float) -> np.ndarray:
        return strong(tf.constant([[which, whether, direction]])).numpy()

    for number, name in enumerate(KNOWN):
        for direction, sign in ((0.1, -1.0), (0.9, 1.0)):
            exact = np.clip(applied(name, sign), 0, 255)  # to the nearest byte; a half, but for float32, to either
            rounded = np.abs(result((number + 0.5) / 15, 0.49, direction) - exact)
            assert rounded.max() <= 0.5 + 1e-4, name
        np.testing.assert_array_equal(result((number + 0.5) / 15, 0.5, 0.1), SMOOTH, err_msg=name)
