"""Guards the views: Pillow's resizing, and geometry that tells where a crop came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from view_helpers import cut

from lut_tf.config import ViewsConfig
from lut_tf.config.networks import sides
from lut_tf.data.views.crops import evaluation_view
from lut_tf.models.preprocess import Preprocessing

GOLDEN = Path(__file__).parents[2] / "golden" / "augmentations.npz"
SIMPLE, MAE_CROP = ViewsConfig(), ViewsConfig(crop="random_resized")
SIZE = 48  # one for most tests: a graph is made for each


def ramp(height: int, width: int) -> np.ndarray:
    """Red tells the row and green the column: pixel centres run from 0 to 255 over the image."""
    rows = (np.arange(height) + 0.5) / height * 255
    columns = (np.arange(width) + 0.5) / width * 255
    return np.stack(np.broadcast_arrays(rows[:, None], columns[None], 128.0), axis=-1).round().astype(np.uint8)


@pytest.mark.medium
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


@pytest.mark.medium
def test_padding_equals_pillow(draws: np.ndarray) -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        crop, padded = golden["crop"], golden["pad4_reflect"]
    for row in range(4):
        for view, geometry in cut(crop, draws[row], 96, ViewsConfig(flip=False)):
            top, left = np.round(geometry[:2] * 96).astype(int) + 4
            np.testing.assert_array_equal(view, padded[top : top + 96, left : left + 96])


@pytest.mark.medium
@pytest.mark.parametrize("views", [SIMPLE, MAE_CROP])
@pytest.mark.parametrize("shape", [(150, 100), (60, 200)])
@pytest.mark.parametrize("size", [SIZE, (40, 64), (72, 32)])
def test_geometry_tells_where_the_crop_came_from(
    views: ViewsConfig, shape: tuple[int, int], size: int | tuple[int, int], draws: np.ndarray
) -> None:
    border = 6  # reflected borders do not follow the ramp
    down, across = ((np.arange(side) + 0.5) / side for side in sides(size))
    for row in range(10):
        for view, (top, left, height, width, flipped) in cut(ramp(*shape), draws[row], size, views):
            assert view.shape == (*sides(size), 3)
            rows, columns = 255 * (top + height * down), 255 * (left + width * across)
            columns = columns[::-1] if flipped else columns
            inner = slice(border, -border)
            assert np.abs(view[inner, inner, 0] - rows[inner, None]).max() < 2
            assert np.abs(view[inner, inner, 1] - columns[None, inner]).max() < 2


def test_first_view_does_not_depend_on_the_number_of_views(draws: np.ndarray) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    for views in (SIMPLE, MAE_CROP):
        one, two = cut(image, draws[1], SIZE, views, 1)[0], cut(image, draws[1], SIZE, views, 2)[0]
        np.testing.assert_array_equal(one.geometry, two.geometry)
        assert np.abs(one.image.astype(int) - two.image).max() <= 1  # the same pixel weights, another summation


def test_two_views_differ_and_flip_half_the_time(draws: np.ndarray) -> None:
    image = ramp(40, 40)
    geometry = np.array([[v.geometry for v in cut(image, row, SIZE, SIMPLE)] for row in draws[:200]])
    assert 60 <= geometry[:, 0, 4].sum() <= 140 and 60 <= geometry[:, 1, 4].sum() <= 140
    starts = np.round(geometry[..., :2] * SIZE).astype(int)
    assert set(starts.ravel().tolist()) == set(range(-4, 5))  # every offset of the padded image
    assert (starts[:, 0] != starts[:, 1]).any(axis=1).mean() > 0.95


def test_random_resized_crop_keeps_to_area_and_shape(draws: np.ndarray) -> None:
    height, width = 120, 160
    image = ramp(height, width)
    geometry = np.array([cut(image, row, SIZE, MAE_CROP, 1)[0].geometry for row in draws[:200]])
    top, left, high, wide, _ = geometry.T
    assert top.min() >= 0 and left.min() >= 0 and (top + high).max() <= 1 + 1e-6 and (left + wide).max() <= 1 + 1e-6
    assert 0.19 < (high * wide).min() < 0.25 and 0.85 < (high * wide).max() <= 1
    aspect = wide * width / (high * height)
    assert 0.73 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.36


@pytest.mark.medium
def test_a_rectangle_is_cut_from_rectangles_like_it(draws: np.ndarray) -> None:
    image = ramp(120, 160)
    geometry = np.array([cut(image, row, (72, 32), MAE_CROP, 1)[0].geometry for row in draws[:200]])
    aspect = geometry[:, 3] * 160 / (geometry[:, 2] * 120) / (32 / 72)
    assert 0.73 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.36


@pytest.mark.parametrize("views", [SIMPLE, MAE_CROP])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50_000), (3000, 2), (8, 8)])
def test_odd_shapes_give_views(views: ViewsConfig, shape: tuple[int, int], draws: np.ndarray) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    for view, geometry in cut(image, draws[2], SIZE, views):
        assert np.all(view == 77) and np.all(np.isfinite(geometry))
    assert np.all(evaluation_view(image, SIZE).numpy() == 77)


@pytest.mark.parametrize(("size", "short"), [(32, 32), (64, 64), (96, 109), (224, 256), (384, 384)])
def test_evaluation_shows_the_centre(size: int, short: int) -> None:
    view = evaluation_view(ramp(400, 500), size).numpy().astype(float)
    assert view.shape == (size, size, 3)
    np.testing.assert_allclose(view[:, :, 0].mean(), 127.5, atol=1.3)  # half a pixel where the margin is odd
    np.testing.assert_allclose(view[:, :, 1].mean(), 127.5, atol=1.3)
    np.testing.assert_allclose(np.ptp(view[:, size // 2, 0]), 255 * (size - 1) / short, atol=4)


@pytest.mark.parametrize("size", [(40, 56), (96, 64), (112, 224)])
@pytest.mark.parametrize("share", [1.0, 0.8])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_of_rectangles_is_pillows(size: tuple[int, int], share: float, interpolation: str) -> None:
    """The image resized to just cover the view's size over `crop_share`, and the centre of it."""
    with np.load(GOLDEN, allow_pickle=False) as golden:
        image = golden["image"]
    view = evaluation_view(image, size, Preprocessing(interpolation=interpolation, crop_share=share))
    wanted = [int(side / share) for side in size]
    axis = 0 if image.shape[0] / wanted[0] <= image.shape[1] / wanted[1] else 1
    full = [wanted[axis] * side // image.shape[axis] for side in image.shape[:2]]
    resized = Image.fromarray(image).resize(full[::-1], Image.Resampling[interpolation.upper()])
    top, left = (round((side - part) / 2) for side, part in zip(full, size, strict=True))
    error = np.abs(view.numpy().astype(int) - np.asarray(resized)[top : top + size[0], left : left + size[1]])
    assert error.mean() < 0.5 and error.max() <= 12
