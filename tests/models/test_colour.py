"""Guards colour and normalisation: Pillow's golden results, a slow per-image reference in random orders, XLA."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lut_tf.models.colour import BLUR, GRAYSCALE, SOLARIZE, Colour, apply_colour
from lut_tf.models.preprocess import denormalise, normalise

GOLDEN = Path(__file__).parents[1] / "golden" / "augmentations.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def coloured(images: np.ndarray, *decisions: Colour) -> np.ndarray:
    return ops.convert_to_numpy(apply_colour(images, np.array(decisions, np.float32)))


@pytest.mark.parametrize(
    ("name", "decision", "mean_error"),
    [
        ("brightness_1.4", Colour(brightness=1.4), 1.0),
        ("brightness_0.6", Colour(brightness=0.6), 1.0),
        ("contrast_1.4", Colour(contrast=1.4), 1.0),
        ("contrast_0.6", Colour(contrast=0.6), 1.0),
        ("saturation_1.2", Colour(saturation=1.2), 1.0),
        ("saturation_0.8", Colour(saturation=0.8), 1.0),
        ("hue_0.1", Colour(hue=0.1), 1.5),
        ("hue_-0.1", Colour(hue=-0.1), 1.5),
        ("grayscale", Colour(choice=GRAYSCALE), 0.6),
        ("solarize_128", Colour(choice=SOLARIZE), 0.0),
        ("gaussian_blur_radius_0.1", Colour(choice=BLUR, blur_radius=0.1), 2.0),
        ("gaussian_blur_radius_0.5", Colour(choice=BLUR, blur_radius=0.5), 2.0),
        ("gaussian_blur_radius_1.0", Colour(choice=BLUR, blur_radius=1.0), 2.0),
        ("gaussian_blur_radius_2.0", Colour(choice=BLUR, blur_radius=2.0), 2.0),
    ],
)
def test_equals_pillow(golden: dict[str, np.ndarray], name: str, decision: Colour, mean_error: float) -> None:
    error = np.abs(coloured(golden["crop"][None], decision)[0] - golden[name])
    assert error.mean() <= mean_error


def _reference_blend(pixels: np.ndarray, base: Any, factor: float) -> np.ndarray:
    return np.clip(factor * pixels + (1 - factor) * base, 0, 255)


def _reference_hue(pixels: np.ndarray, shift: float) -> np.ndarray:
    def turned(pixel: np.ndarray) -> tuple[float, float, float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        return colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)

    return 255 * np.array([[turned(pixel) for pixel in row] for row in pixels])


def _reference_blur(pixels: np.ndarray, radius: float) -> np.ndarray:
    reach = 12
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * radius**2))
    taps /= taps.sum()
    for axis in (0, 1):
        edge = np.pad(pixels, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
        pixels = np.apply_along_axis(lambda line: np.convolve(line, taps, mode="valid"), axis, edge)
    return pixels


def reference(pixels: np.ndarray, colour: Colour) -> np.ndarray:
    """One image at a time, one operation at a time, in float64."""
    pixels = pixels.astype(np.float64)
    weights = [0.299, 0.587, 0.114]
    jitter = {
        colour.brightness_at: lambda x: _reference_blend(x, 0, colour.brightness),
        colour.contrast_at: lambda x: _reference_blend(x, (x @ weights).mean(), colour.contrast),
        colour.saturation_at: lambda x: _reference_blend(x, (x @ weights)[..., None], colour.saturation),
        colour.hue_at: lambda x: _reference_hue(x, colour.hue),
    }
    for position in range(4):
        pixels = jitter[position](pixels)
    if colour.choice == GRAYSCALE:
        return np.repeat((pixels @ weights)[..., None], 3, axis=-1)
    if colour.choice == SOLARIZE:
        return np.where(np.round(pixels) >= colour.solarize_threshold, 255 - pixels, pixels)
    return _reference_blur(pixels, colour.blur_radius) if colour.choice == BLUR else pixels


def random_colours(count: int) -> list[Colour]:
    random = np.random.default_rng(0)
    rows = []
    for row in range(count):
        factors = random.uniform([0.6, 0.6, 0.8, -0.1], [1.4, 1.4, 1.2, 0.1]).tolist()
        rows.append(Colour._make([*factors, *random.permutation(4).tolist(), row % 4, 128.0, random.uniform(0.1, 2)]))
    return rows


def test_equals_slow_reference_in_random_orders() -> None:
    images = np.random.default_rng(1).integers(0, 256, (32, 9, 12, 3)).astype(np.uint8)
    colours = random_colours(len(images))
    result = coloured(images, *colours)
    for image, colour, mine in zip(images, colours, result, strict=True):
        # A pixel within rounding of the solarize threshold may fall on either side.
        wrong = np.abs(mine - reference(image, colour)) > 0.02
        assert wrong.sum() <= (1 if colour.choice == SOLARIZE else 0), colour


def test_nothing_changes_nothing() -> None:
    images = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(coloured(images, *[Colour()] * 4), images)


def test_each_image_is_treated_alone_and_floats_equal_bytes() -> None:
    images = np.random.default_rng(3).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    colours = random_colours(8)
    batch = coloured(images, *colours)
    alone = np.concatenate([coloured(image[None], colour) for image, colour in zip(images, colours, strict=True)])
    np.testing.assert_allclose(batch, alone, atol=1e-3)
    np.testing.assert_array_equal(coloured(images.astype(np.float32), *colours), batch)


@pytest.mark.parametrize("batch", [None, 12])
def test_compiles_with_xla_for_any_batch(batch: int | None) -> None:
    images = np.random.default_rng(4).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    colour = np.array(random_colours(12), np.float32)
    signature = [tf.TensorSpec([batch, 8, 8, 3], tf.uint8), tf.TensorSpec([batch, 11])]
    compiled = tf.function(apply_colour, jit_compile=True, input_signature=signature)
    np.testing.assert_allclose(compiled(images, colour), apply_colour(images, colour), atol=1e-2)


def test_normalise_and_back() -> None:
    images = np.random.default_rng(5).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    normal = ops.convert_to_numpy(normalise(images))
    assert normal.dtype == np.float32
    expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normal, expected, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(denormalise(normal)), images, atol=1e-3)
