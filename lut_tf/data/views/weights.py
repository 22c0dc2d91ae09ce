"""Where a view's patches lie in a grid of weights that the whole image has (AMT): the grid follows crop and flip."""

from __future__ import annotations

import tensorflow as tf


@tf.autograph.experimental.do_not_convert
def weights_of_views(weights: tf.Tensor, geometry: tf.Tensor, grid: tuple[int, int]) -> tf.Tensor:
    """Take images' weights to the patches of their views: cropped, flipped and resampled as the images were.

    Linear between the centres of the weights' cells, antialiased where a patch is larger than these; constant beyond
    the outermost ones. Where a crop reaches into the padding, it is reflected as the image is.

    Args:
        weights: (B, rows, columns) float, at least 0: of the whole image, squashed to a grid whose sides are its own.
        geometry: (B, 5) float32, see `View`.
        grid: (rows, columns) of the view's patches.

    Returns:
        (B, L) float32, at least 0, the patches row by row.
    """
    weights = tf.cast(weights, tf.float32)
    top, left, height, width, flipped = tf.unstack(geometry[..., None], axis=1)
    down, across = (_centres(patches) for patches in grid)
    across = tf.where(flipped > 0, 1.0 - across, across)
    rows = _shares(top + height * down, height, grid[0], weights.shape[1])
    columns = _shares(left + width * across, width, grid[1], weights.shape[2])
    return tf.reshape(rows @ weights @ tf.transpose(columns, [0, 2, 1]), [-1, grid[0] * grid[1]])


def _centres(patches: int) -> tf.Tensor:
    """Return the centres (1, patches) of a view's patches, its side being 1."""
    return ((tf.range(patches, dtype=tf.float32) + 0.5) / patches)[None]


def _shares(places: tf.Tensor, extent: tf.Tensor, patches: int, cells: int) -> tf.Tensor:
    """Return how much each cell of the image's axis counts for each patch of a view's, rows that sum to 1.

    Args:
        places: (B, patches), the patches' centres as fractions of the image.
        extent: (B, 1), the view's side as a fraction of the image.
        patches: of the view.
        cells: of the image.

    Returns:
        (B, patches, cells) float32.
    """
    places = 1.0 - tf.abs(1.0 - tf.abs(places))  # what lies in the padding is the image, reflected
    at = tf.clip_by_value(places * cells - 0.5, 0.0, cells - 1.0)
    reach = tf.maximum(extent * cells / patches, 1.0)[..., None]
    shares = tf.nn.relu(1.0 - tf.abs(at[..., None] - tf.range(cells, dtype=tf.float32)) / reach)
    return shares / tf.reduce_sum(shares, axis=-1, keepdims=True)
