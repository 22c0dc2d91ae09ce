"""Where one view's patches lie in the other: against plain loops, and against pictures whose colours are places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops
from networks import crops

from lut_tf.config import ViewsConfig
from lut_tf.data.views.crops import VIEW_DRAWS, training_views
from lut_tf.methods.locations import locations_of, tokens_at
from lut_tf.models.layers import patchify

GRIDS = [(4, 4), (3, 5), (1, 4), (7, 6)]


def geometries(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Of two views: they overlap in part, the last two images' not at all; flipped and not, in every combination."""
    random = np.random.default_rng(seed)
    one, other = crops(random, count), crops(random, count)
    one[:, 4], other[:, 4] = [0, 0, 1, 1, 0, 1], [0, 1, 0, 1, 1, 0]
    other[-2:, 0] += 1.0
    return one, other


def brute_force(
    ids: np.ndarray, one: np.ndarray, other: np.ndarray, tokens: np.ndarray, grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One patch at a time, in float64: whether it lies inside, and the other view's tokens there."""
    rows, columns = grid
    inside, found = np.zeros(ids.shape, bool), np.zeros((*ids.shape, tokens.shape[-1]))
    for image in range(len(ids)):
        (top, left, height, width, flipped), (top2, left2, height2, width2, flipped2) = one[image], other[image]
        for i, patch in enumerate(ids[image]):
            row, column = divmod(int(patch), columns)
            across = (column + 0.5) / columns
            y, x = top + (row + 0.5) / rows * height, left + (1 - across if flipped else across) * width
            down, across = (y - top2) / height2, (x - left2) / width2
            inside[image, i] = 0 <= down <= 1 and 0 <= across <= 1
            across = 1 - across if flipped2 else across
            for r in range(rows):  # a hat around each patch's centre, the outermost flat outwards
                for c in range(columns):
                    y, x = np.clip(down * rows - 0.5, 0, rows - 1), np.clip(across * columns - 0.5, 0, columns - 1)
                    found[image, i] += max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c)) * tokens[image, r * columns + c]
    return inside, found


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_places_are_those_of_plain_loops(grid: tuple[int, int]) -> None:
    """1e-4 absolute of numbers around 1, for crops, flips and rectangles; outside is outside."""
    random, patches = np.random.default_rng(1), grid[0] * grid[1]
    one, other = geometries(2)
    ids = np.argsort(random.random((6, patches)), axis=1)[:, : max(2, patches // 4)].astype("int32")
    tokens = random.normal(size=(6, patches, 3)).astype("float32")
    locations = locations_of(ids, one, other, grid)
    inside, found = brute_force(ids, one.astype("float64"), other.astype("float64"), tokens, grid)
    np.testing.assert_array_equal(locations.inside, inside)
    assert inside.any() and not inside.all() and not inside[-2:].any()
    np.testing.assert_allclose(tokens_at(tokens, locations, grid), found, atol=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("size", "views"),
    [
        (64, ViewsConfig(padding=0)),  # slides along the picture, which is wider than high
        ((64, 48), ViewsConfig(padding=0)),
        (64, ViewsConfig(crop="random_resized")),
        ((32, 64), ViewsConfig(crop="random_resized")),
    ],
    ids=["simple", "simple rectangle", "random resized", "random resized rectangle"],
)
def test_the_same_place_shows_the_same(size: Any, views: ViewsConfig) -> None:
    """Within two of 256 gray levels: red grows downwards and green to the right, and patches' means are tokens."""
    down, across = np.meshgrid(np.linspace(0, 255, 128), np.linspace(0, 255, 256), indexing="ij")
    picture = np.stack([down, across, 0 * down], axis=-1).round().astype("uint8")
    high, wide = (size, size) if isinstance(size, int) else size
    grid, compared, flips = (high // 8, wide // 8), 0, set()
    for draws in np.random.default_rng(3).random((12, 2 * VIEW_DRAWS), dtype="float32"):
        one, other = training_views(picture, draws, size, views, 2)
        tokens = [ops.mean(ops.reshape(patchify(np.array(v.image, "float32")[None], 8), (1, -1, 64, 3)), 2)
                  for v in (one, other)]  # fmt: skip
        ids = np.arange(grid[0] * grid[1])[None]
        locations = locations_of(ids, np.array(one.geometry)[None], np.array(other.geometry)[None], grid)
        between = [(np.array(x) >= 0) & (np.array(x) <= n - 1) for x, n in zip(locations[:2], grid, strict=True)]
        chosen = between[0] & between[1]  # beyond the outermost centres the outermost tokens stand for their surround
        assert np.array(locations.inside)[chosen].all()
        found = np.array(tokens_at(tokens[1], locations, grid))[chosen]
        np.testing.assert_allclose(found, np.array(tokens[0])[chosen], atol=2)
        compared += chosen.sum()
        flips.add((int(one.geometry[4]), int(other.geometry[4])))
    assert compared > 100 and len(flips) == 4


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_view_lies_where_it_is_itself(grid: tuple[int, int]) -> None:
    """1e-5: every patch inside, and at its place its own token."""
    patches, (geometry, _) = grid[0] * grid[1], geometries(4)
    tokens = np.random.default_rng(5).normal(size=(6, patches, 3)).astype("float32")
    locations = locations_of(np.tile(np.arange(patches), (6, 1)), geometry, geometry, grid)
    assert np.array(locations.inside).all()
    np.testing.assert_allclose(tokens_at(tokens, locations, grid), tokens, atol=1e-5)


@pytest.mark.parametrize("side", [48, 96, 112, 176, 224])
def test_a_place_on_the_border_is_inside_whatever_rounding_says(side: int) -> None:
    """Crops shifted by half a patch of 16, as a padding of 4 allows, bring whole rows of centres onto the border."""
    grid = (side // 16, side // 16)
    ids = np.arange(grid[0] ** 2)[None]
    for at, other in ((4, -4), (-4, 4)):
        crops = (np.array([[start / side, start / side, 1, 1, 0]], "float32") for start in (at, other))
        assert np.array(locations_of(ids, *crops, grid).inside).all()
