"""Guards the views: Pillow's resizing, geometry that tells where a crop came from, and the statistics of decisions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lut_tf.config import ViewsConfig
from lut_tf.data.views.crops import (
    DRAWS,
    View,
    check_views,
    colour_decisions,
    draw,
    evaluation_view,
    training_views,
)
from lut_tf.models.preprocess import Colour

GOLDEN = Path(__file__).parents[1] / "golden" / "augmentations.npz"
SIMPLE, MAE_CROP = ViewsConfig(), ViewsConfig(crop="random_resized")


@tf.function(reduce_retracing=True)
def _draws(count: tf.Tensor) -> tf.Tensor:
    epoch = tf.constant(0, tf.int64)
    return tf.map_fn(lambda i: draw(3, epoch, i, 4), tf.range(count), fn_output_signature=tf.float32)


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    return _draws(tf.constant(2000, tf.int64)).numpy()


def cut(image: np.ndarray, numbers: np.ndarray, size: int, views: ViewsConfig, count: int = 2) -> list[View]:
    return [View(v.image.numpy(), v.geometry.numpy()) for v in training_views(image, numbers, size, views, count)]


def ramp(height: int, width: int) -> np.ndarray:
    """Red tells the row and green the column: pixel centres run from 0 to 255 over the image."""
    rows = (np.arange(height) + 0.5) / height * 255
    columns = (np.arange(width) + 0.5) / width * 255
    return np.stack(np.broadcast_arrays(rows[:, None], columns[None], 128.0), axis=-1).round().astype(np.uint8)


def test_draws_depend_on_seed_epoch_and_example_only() -> None:
    def numbers(seed: int, epoch: int, index: int) -> tuple[float, ...]:
        return tuple(draw(seed, tf.constant(epoch, tf.int64), tf.constant(index, tf.int64), 9).numpy().tolist())

    keys = [(s, e, i) for s in (0, 1, 2**31 - 1) for e in (0, 1, 1599) for i in (0, 1, 1_281_166)]
    assert len({numbers(*key) for key in keys}) == len(keys)
    assert numbers(1, 2, 3) == numbers(1, 2, 3)


def test_draws_are_uniform(draws: np.ndarray) -> None:
    assert draws.min() >= 0 and draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / len(draws)))
    between = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(between).max() < 5 / np.sqrt(len(draws))


def test_resizing_equals_pillow(draws: np.ndarray) -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        image, small, large = (
            golden[k] for k in ("image", "resize_short_side_64_bicubic", "resize_short_side_112_bicubic")
        )
    error = np.abs(evaluation_view(image, 64).numpy().astype(int) - small[:, 10:74])
    assert error.mean() < 0.5 and error.max() <= 12
    for view, geometry in cut(image, draws[0], 112, ViewsConfig(padding=0, flip=False)):
        left = round(geometry[1] * large.shape[1])
        error = np.abs(view.astype(int) - large[:, left : left + 112])
        assert error.mean() < 0.5 and error.max() <= 12


def test_padding_equals_pillow(draws: np.ndarray) -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        crop, padded = golden["crop"], golden["pad4_reflect"]
    for row in range(4):
        for view, geometry in cut(crop, draws[row], 96, ViewsConfig(flip=False)):
            top, left = np.round(geometry[:2] * 96).astype(int) + 4
            np.testing.assert_array_equal(view, padded[top : top + 96, left : left + 96])


@pytest.mark.parametrize("views", [SIMPLE, MAE_CROP])
@pytest.mark.parametrize("shape", [(150, 100), (60, 200)])
def test_geometry_tells_where_the_crop_came_from(views: ViewsConfig, shape: tuple[int, int], draws: np.ndarray) -> None:
    size, border = 48, 6  # reflected borders do not follow the ramp
    places = (np.arange(size) + 0.5) / size
    for row in range(10):
        for view, (top, left, height, width, flipped) in cut(ramp(*shape), draws[row], size, views):
            rows, columns = 255 * (top + height * places), 255 * (left + width * places)
            columns = columns[::-1] if flipped else columns
            inner = slice(border, -border)
            assert np.abs(view[inner, inner, 0] - rows[inner, None]).max() < 2
            assert np.abs(view[inner, inner, 1] - columns[None, inner]).max() < 2


def test_first_view_does_not_depend_on_the_number_of_views(draws: np.ndarray) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    for views in (SIMPLE, MAE_CROP):
        one, two = cut(image, draws[1], 32, views, 1)[0], cut(image, draws[1], 32, views, 2)[0]
        np.testing.assert_array_equal(one.geometry, two.geometry)
        assert np.abs(one.image.astype(int) - two.image).max() <= 1  # the same pixel weights, another summation


def test_two_views_differ_and_flip_half_the_time(draws: np.ndarray) -> None:
    image = ramp(40, 40)
    geometry = np.array([[v.geometry for v in cut(image, row, 32, SIMPLE)] for row in draws[:200]])
    assert 60 <= geometry[:, 0, 4].sum() <= 140 and 60 <= geometry[:, 1, 4].sum() <= 140
    starts = np.round(geometry[..., :2] * 32).astype(int)
    assert set(starts.ravel().tolist()) == set(range(-4, 5))  # every offset of the padded image
    assert (starts[:, 0] != starts[:, 1]).any(axis=1).mean() > 0.95


def test_random_resized_crop_keeps_to_area_and_shape(draws: np.ndarray) -> None:
    height, width = 120, 160
    geometry = np.array([cut(ramp(height, width), row, 16, MAE_CROP, 1)[0].geometry for row in draws[:200]])
    top, left, high, wide, _ = geometry.T
    assert top.min() >= 0 and left.min() >= 0 and (top + high).max() <= 1 + 1e-6 and (left + wide).max() <= 1 + 1e-6
    assert 0.19 < (high * wide).min() < 0.25 and 0.85 < (high * wide).max() <= 1
    aspect = wide * width / (high * height)
    assert 0.73 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.36


@pytest.mark.parametrize("views", [SIMPLE, MAE_CROP])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50_000), (3000, 2), (8, 8)])
def test_odd_shapes_give_views(views: ViewsConfig, shape: tuple[int, int], draws: np.ndarray) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    for view, geometry in cut(image, draws[2], 16, views):
        assert np.all(view == 77) and np.all(np.isfinite(geometry))
    assert np.all(evaluation_view(image, 16).numpy() == 77)


@pytest.mark.parametrize(("size", "short"), [(32, 32), (64, 64), (96, 109), (224, 256), (384, 384)])
def test_evaluation_shows_the_centre(size: int, short: int) -> None:
    view = evaluation_view(ramp(400, 500), size).numpy().astype(float)
    assert view.shape == (size, size, 3)
    np.testing.assert_allclose(view[:, :, 0].mean(), 127.5, atol=1.3)  # half a pixel where the margin is odd
    np.testing.assert_allclose(view[:, :, 1].mean(), 127.5, atol=1.3)
    np.testing.assert_allclose(np.ptp(view[:, size // 2, 0]), 255 * (size - 1) / short, atol=4)


def test_colour_decisions_follow_the_paper(draws: np.ndarray) -> None:
    colour = Colour(*colour_decisions(tf.constant(draws), SIMPLE).numpy().T)
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
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(4), (len(draws), 1)))
    assert len({tuple(order) for order in orders.tolist()}) == 24
    np.testing.assert_allclose([(colour.choice == c).mean() for c in range(4)], [0, 1 / 3, 1 / 3, 1 / 3], atol=0.05)
    assert 0.1 <= colour.blur_radius.min() < 0.2 and 1.9 < colour.blur_radius.max() <= 2.0


def test_colour_can_be_switched_off(draws: np.ndarray) -> None:
    views = ViewsConfig(jitter_probability=0.0, one_of_three=False)
    colour = Colour(*colour_decisions(tf.constant(draws), views).numpy().T)
    for values, nothing in [(colour.brightness, 1), (colour.contrast, 1), (colour.saturation, 1), (colour.hue, 0)]:
        assert np.all(values == nothing)
    assert np.all(colour.choice == 0)


def test_draws_end_where_noise_begins(draws: np.ndarray) -> None:
    assert draws.shape[1] == DRAWS + 4


@pytest.mark.parametrize(
    ("views", "named"),
    [
        (ViewsConfig(padding=16), "views.padding: 16"),
        (ViewsConfig(scale=(0.0, 1.0)), "views.scale"),
        (ViewsConfig(hue=0.6), "views.hue: 0.6"),
        (ViewsConfig(jitter_probability=1.1), "views.jitter_probability"),
        (ViewsConfig(blur_radius=(2.0, 0.1)), "views.blur_radius"),
    ],
)
def test_mistakes_are_named(views: ViewsConfig, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_views(views, 32)
