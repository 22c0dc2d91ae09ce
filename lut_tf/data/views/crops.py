"""What a run sees of an image: crops and flips, on the host, from uniform numbers (see `draws`).

TensorFlow is kept from rewriting the Python here: there is no control flow in it that a graph must have, and to rewrite
it takes a second whenever a process begins.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from lut_tf.config import ViewsConfig
from lut_tf.config.networks import sides
from lut_tf.data.views.resize import Places, Sides, resized
from lut_tf.models.preprocess import IMAGENET, Preprocessing

ATTEMPTS = 10
VIEW_DRAWS = 2 * ATTEMPTS + 3  # areas and shapes to try, top, left, flip
ASPECT = (3 / 4, 4 / 3)


class View(NamedTuple):
    """A crop and where it came from.

    `image` is uint8 (H, W, 3). `geometry` is float32 (5,): top, left, height and width as fractions of the source image
    (slightly outside 0 … 1 where the crop reaches into the padding), and 1 if flipped, else 0.
    """

    image: tf.Tensor
    geometry: tf.Tensor


def _covering(image: tf.Tensor, wanted: Sides) -> tf.Tensor:
    """Height and width of the image resized to just cover `wanted`; the side that is longer is cut to an integer."""
    shape = tf.cast(tf.shape(image)[:2], tf.int64)
    fitting = tf.where(shape[0] * wanted[1] <= shape[1] * wanted[0], [wanted[0], shape[0]], [wanted[1], shape[1]])
    return tf.cast(fitting[0] * shape // fitting[1], tf.int32)


def _reflect(places: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Fold pixel numbers beyond the border back (the border pixel itself is not repeated)."""
    places = tf.abs(places)
    return length - 1 - tf.abs(length - 1 - places)


def _simple_views(image: tf.Tensor, draws: tf.Tensor, size: Sides, views: ViewsConfig) -> list[View]:
    """Cut the views (V, VIEW_DRAWS) after resizing to cover `size` and padding by reflection."""
    full = _covering(image, size)
    room = full + (2 * views.padding + 1) - tf.constant(size)
    starts = tf.cast(tf.floor(draws[:, -3:-1] * tf.cast(room, tf.float32)), tf.int32)
    starts = tf.minimum(starts, room - 1) - views.padding  # a product just below the bound may round up to it
    count = draws.shape[0]
    flips = _flips(draws, views)
    low = tf.maximum(tf.reduce_min(starts, axis=0), 0)
    high = tf.minimum(tf.reduce_max(starts, axis=0) + size, full)

    def window(v: int, origin: tf.Tensor) -> Places:
        rows = _reflect(starts[v, 0] + tf.range(size[0]), full[0]) - origin[0]
        columns = _reflect(starts[v, 1] + tf.range(size[1]), full[1]) - origin[1]
        return rows, tf.where(flips[v], tf.reverse(columns, [0]), columns)

    def together() -> list[tf.Tensor]:
        return resized(image, full, low, high - low, [window(v, low) for v in range(count)], size)

    def apart() -> list[tf.Tensor]:
        windows = []
        for v in range(count):
            first, last = tf.maximum(starts[v], 0), tf.minimum(starts[v] + size, full)
            windows += resized(image, full, first, last - first, [window(v, first)], size)
        return windows

    # Resized once for all views, unless these lie far apart in a strip that may be a million pixels long.
    crops = (
        tf.cond(tf.reduce_prod(high - low) <= count * size[0] * size[1], together, apart) if count > 1 else together()
    )
    fractions = tf.concat([starts, tf.tile([size], [count, 1])], axis=1) / tf.concat([full, full], axis=0)
    return [_view(crops[v], fractions[v], flips[v]) for v in range(count)]


def _random_resized_view(image: tf.Tensor, draws: tf.Tensor, size: Sides, views: ViewsConfig) -> View:
    """MAE's crop (VIEW_DRAWS,): a random area and shape, resized to `size`."""
    shape = tf.shape(image)[:2]
    start, extent = _random_area(shape, draws, views.scale, size[1] / size[0])
    crop = tf.slice(image, tf.pad(start, [[0, 1]]), tf.pad(extent, [[0, 1]], constant_values=3))
    target = tf.constant(size)
    flip, rows, columns = _flips(draws, views), tf.range(size[0]), tf.range(size[1])
    window = (rows, tf.where(flip, tf.reverse(columns, [0]), columns))
    (crop,) = resized(crop, target, tf.zeros_like(target), target, [window], size)
    fractions = tf.cast(tf.concat([start, extent], 0), tf.float32) / tf.cast(tf.concat([shape, shape], 0), tf.float32)
    return _view(crop, fractions, flip)


def _random_area(
    shape: tf.Tensor, draws: tf.Tensor, scale: tuple[float, float], shape_wanted: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Start and extent of the first of ten tries that fits, else of the largest central crop of an allowed shape.

    Shapes are 3/4 to 4/3 of `shape_wanted`, the input's width over its height, so that rectangles are not distorted.
    """
    narrowest, widest = (aspect * shape_wanted for aspect in ASPECT)
    size = tf.cast(shape, tf.float32)
    area = size[0] * size[1] * (scale[0] + (scale[1] - scale[0]) * draws[:ATTEMPTS])
    low, high = math.log(narrowest), math.log(widest)
    aspect = tf.exp(low + (high - low) * draws[ATTEMPTS : 2 * ATTEMPTS])
    tries = tf.round(tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=1))
    fits = tf.reduce_all((tries >= 1.0) & (tries <= size), axis=1)
    largest = tf.stack([tf.minimum(size[0], size[1] / narrowest), tf.minimum(size[1], size[0] * widest)])
    fallback = tf.maximum(tf.round(largest), 1.0)
    found = tf.reduce_any(fits)
    extent = tf.where(found, tries[tf.argmax(tf.cast(fits, tf.int32))], fallback)
    room = size - extent
    random_start = tf.minimum(tf.floor(draws[-3:-1] * (room + 1.0)), room)
    start = tf.where(found, random_start, tf.floor(room / 2.0))
    return tf.cast(start, tf.int32), tf.cast(extent, tf.int32)


def _flips(draws: tf.Tensor, views: ViewsConfig) -> tf.Tensor:
    """Whether each view is flipped, from draws (..., VIEW_DRAWS)."""
    return draws[..., -1] < (0.5 if views.flip else 0.0)


def _view(image: tf.Tensor, fractions: tf.Tensor, flip: tf.Tensor) -> View:
    """Put the geometry together."""
    return View(image, tf.concat([tf.cast(fractions, tf.float32), [tf.cast(flip, tf.float32)]], axis=0))


@tf.autograph.experimental.do_not_convert
def training_views(image: tf.Tensor, draws: tf.Tensor, size: int | Sides, views: ViewsConfig, count: int) -> list[View]:
    """Cut one image into the views of pre-training.

    Args:
        image: uint8 (h, w, 3).
        draws: float32 (≥ count · VIEW_DRAWS,), uniform in [0, 1).
        size: side of a square view in pixels, or (height, width).
        views: which crop, and its settings.
        count: 1 or 2 views; the first does not depend on it.

    Returns:
        `count` views, before colour.
    """
    size = sides(size)
    each = tf.reshape(draws[: count * VIEW_DRAWS], [count, VIEW_DRAWS])
    if views.crop == "simple":
        result = _simple_views(image, each, size, views)
    else:
        result = [_random_resized_view(image, each[v], size, views) for v in range(count)]
    return [View(tf.ensure_shape(image, [*size, 3]), tf.ensure_shape(g, [5])) for image, g in result]


@tf.autograph.experimental.do_not_convert
def evaluation_view(image: tf.Tensor, size: int | Sides, preprocessing: Preprocessing = IMAGENET) -> tf.Tensor:
    """Return the fixed view (height, width, 3), uint8, on which encoders are measured.

    The image is resized to cover `preprocessing.resized_to` of the view's size, and the centre is cut out.
    """
    size = sides(size)
    full = _covering(image, preprocessing.resized_to(size))
    start = tf.cast(tf.round(tf.cast(full - tf.constant(size), tf.float32) / 2.0), tf.int32)
    whole = (tf.range(size[0]), tf.range(size[1]))
    (view,) = resized(image, full, start, tf.constant(size), [whole], size, preprocessing.interpolation)
    return tf.ensure_shape(view, [*size, 3])
