"""Weights of an image follow it into its views. Guards `lut_tf.data.views.weights`.

The published program always cuts the grid's top left corner: with it every test here fails.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lut_tf.config import ViewsConfig
from lut_tf.data.views.crops import VIEW_DRAWS, training_views
from lut_tf.data.views.weights import weights_of_views

CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
GRID = (6, 4)


def bright(corner: tuple[int, int], height: int = 84, width: int = 70) -> np.ndarray:
    """An image (H, W, 3) that is the brighter, the nearer to a corner, and nowhere the same."""
    down, across = (np.linspace(1.0, 0.0, n) if not end else np.linspace(0.0, 1.0, n)
                    for n, end in zip((height, width), corner, strict=True))  # fmt: skip
    return (
        np.round(255 * np.sqrt(np.outer(0.1 + 0.9 * down, 0.1 + 0.9 * across)))[..., None].repeat(3, 2).astype("uint8")
    )


def means(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Mean brightness of each cell of a grid, whose sides need not divide the image's."""
    rows, columns = (np.array_split(np.arange(n), parts) for n, parts in zip(image.shape[:2], grid, strict=True))
    return np.array([[image[row][:, column].mean() for column in columns] for row in rows])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("crop", ["simple", "random_resized"])
@pytest.mark.parametrize("corner", CORNERS)
def test_the_bright_corner_stays_the_heaviest(corner: str, crop: str, mirrored: bool) -> None:
    """And all weights are the view's own brightness, to 4 % of the brightest."""
    image, random = bright(CORNERS[corner]), np.random.default_rng(0)
    views = ViewsConfig(crop=crop, scale=(0.3, 1.0))
    draws = random.random((12, VIEW_DRAWS)).astype("float32")
    draws[:, -1] = 0.25 if mirrored else 0.75
    cut = [training_views(tf.constant(image), tf.constant(one), (48, 32), views, 1)[0] for one in draws]
    geometry = tf.stack([view.geometry for view in cut])
    assert (geometry.numpy()[:, 4] == mirrored).all()
    whole = np.tile(means(image, (14, 14)), (len(cut), 1, 1)).astype("float16")
    found = weights_of_views(tf.constant(whole), geometry, GRID).numpy().reshape(-1, *GRID)
    down, across = CORNERS[corner]
    for view, weights in zip(cut, found, strict=True):
        expected = means(view.image.numpy(), GRID)
        np.testing.assert_allclose(weights, expected, atol=0.04 * expected.max())
        heaviest = np.unravel_index(weights.argmax(), GRID)
        assert heaviest == np.unravel_index(expected.argmax(), GRID)
        assert heaviest[0] >= GRID[0] / 2 if down else heaviest[0] < GRID[0] / 2
        assert heaviest[1] >= GRID[1] / 2 if across != mirrored else heaviest[1] < GRID[1] / 2


def test_the_whole_image_on_its_own_grid_is_itself() -> None:
    """Exact; mirrored it is mirrored; and nothing becomes negative."""
    weights = np.random.default_rng(1).random((2, 5, 7)).astype("float32") ** 8
    geometry = tf.constant([[0.0, 0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    found = weights_of_views(tf.constant(weights), geometry, (5, 7)).numpy().reshape(2, 5, 7)
    np.testing.assert_allclose(found[0], weights[0], atol=1e-6)
    np.testing.assert_allclose(found[1], weights[1][:, ::-1], atol=1e-6)
    assert weights_of_views(tf.constant(weights), geometry, (2, 3)).numpy().min() >= 0
