"""Guards colour: decisions as in the paper; Pillow's golden results, a slow reference in random orders, XLA."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lut_tf.config import ViewsConfig
from lut_tf.models.colour import BLUR, COLOUR_DRAWS, GRAYSCALE, SOLARIZE, Colour, apply_colour, colour_decisions

GOLDEN = Path(__file__).parents[1] / "golden" / "augmentations.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def coloured(images: np.ndarray, *decisions: Colour) -> np.ndarray:
    return ops.convert_to_numpy(apply_colour(images, np.array(decisions, np.float32)))


GOLDEN_CHANGES = {
    "brightness_1.4": (Colour(brightness=1.4), 1.0),
    "brightness_0.6": (Colour(brightness=0.6), 1.0),
    "contrast_1.4": (Colour(contrast=1.4), 1.0),
    "contrast_0.6": (Colour(contrast=0.6), 1.0),
    "saturation_1.2": (Colour(saturation=1.2), 1.0),
    "saturation_0.8": (Colour(saturation=0.8), 1.0),
    "hue_0.1": (Colour(hue=0.1), 1.5),
    "hue_-0.1": (Colour(hue=-0.1), 1.5),
    "grayscale": (Colour(choice=GRAYSCALE), 0.6),
    "solarize_128": (Colour(choice=SOLARIZE), 0.0),
    "gaussian_blur_radius_0.1": (Colour(choice=BLUR, blur_radius=0.1), 2.0),
    "gaussian_blur_radius_0.5": (Colour(choice=BLUR, blur_radius=0.5), 2.0),
    "gaussian_blur_radius_1.0": (Colour(choice=BLUR, blur_radius=1.0), 2.0),
    "gaussian_blur_radius_2.0": (Colour(choice=BLUR, blur_radius=2.0), 2.0),
}


@pytest.fixture(scope="module")
def changed(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    decisions = [decision for decision, _ in GOLDEN_CHANGES.values()]
    results = coloured(np.repeat(golden["crop"][None], len(decisions), axis=0), *decisions)
    return dict(zip(GOLDEN_CHANGES, results, strict=True))


@pytest.mark.parametrize("name", GOLDEN_CHANGES)
def test_equals_pillow(golden: dict[str, np.ndarray], changed: dict[str, np.ndarray], name: str) -> None:
    _, mean_error = GOLDEN_CHANGES[name]
    assert np.abs(changed[name] - golden[name]).mean() <= mean_error


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
    images = np.random.default_rng(1).integers(0, 256, (24, 7, 12, 3)).astype(np.uint8)
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
    for row in range(4):  # one of each choice
        np.testing.assert_allclose(coloured(images[row : row + 1], colours[row])[0], batch[row], atol=1e-3)
    np.testing.assert_array_equal(coloured(images.astype(np.float32), *colours), batch)


@pytest.mark.medium
@pytest.mark.parametrize("batch", [None, pytest.param(12, marks=pytest.mark.slow)])
def test_compiles_with_xla_for_any_batch(batch: int | None) -> None:
    images = np.random.default_rng(4).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    colour = np.array(random_colours(12), np.float32)
    signature = [tf.TensorSpec([batch, 8, 8, 3], tf.uint8), tf.TensorSpec([batch, 11])]
    compiled = tf.function(apply_colour, jit_compile=True, input_signature=signature)
    np.testing.assert_allclose(compiled(images, colour), apply_colour(images, colour), atol=1e-2)


# --------------------------------------------------------------------------------------------------------- decisions

DRAWS = np.random.default_rng(6).random((2000, COLOUR_DRAWS), np.float32)


def test_decisions_follow_the_paper() -> None:
    colour = Colour(*colour_decisions(DRAWS, ViewsConfig(), np).T)
    jitter = colour.brightness != 1
    np.testing.assert_allclose(jitter.mean(), 0.8, atol=0.04)
    for values, low, high in [
        (colour.brightness, 0.6, 1.4),
        (colour.contrast, 0.6, 1.4),
        (colour.saturation, 0.8, 1.2),
        (colour.hue, -0.1, 0.1),
    ]:
        assert low <= values.min() + 1e-6 and values.max() <= high + 1e-6
        np.testing.assert_allclose(
            np.quantile(values[jitter], [0.25, 0.75]), [0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high], atol=0.03
        )
    orders = np.stack([colour.brightness_at, colour.contrast_at, colour.saturation_at, colour.hue_at], axis=1)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(4), (len(DRAWS), 1)))
    assert len({tuple(order) for order in orders.tolist()}) == 24
    np.testing.assert_allclose([(colour.choice == c).mean() for c in range(4)], [0, 1 / 3, 1 / 3, 1 / 3], atol=0.05)
    assert 0.1 <= colour.blur_radius.min() < 0.2 and 1.9 < colour.blur_radius.max() <= 2.0


def test_decisions_can_be_switched_off() -> None:
    colour = Colour(*colour_decisions(DRAWS, ViewsConfig(jitter_probability=0.0, one_of_three=False), np).T)
    for values, nothing in [(colour.brightness, 1), (colour.contrast, 1), (colour.saturation, 1), (colour.hue, 0)]:
        assert np.all(values == nothing)
    assert np.all(colour.choice == 0)


def test_decisions_in_a_graph_equal_numpys() -> None:
    draws = DRAWS.copy()
    draws[:200] = np.round(draws[:200] * 4) / 4 * np.float32(0.99)  # equal keys too
    decide = tf.function(lambda draws: colour_decisions(draws, ViewsConfig(), tf.experimental.numpy))
    decisions = decide(draws)
    assert decisions.dtype == tf.float32
    np.testing.assert_array_equal(decisions, colour_decisions(draws, ViewsConfig(), np))
