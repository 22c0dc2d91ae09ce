"""Resizing as Pillow does it (bicubic, antialiased), quickly and only where pixels are needed."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

SMALL = 64
BAND = 16
"""Lines of the result that one product makes: fewer are slow to multiply, more multiply many zeros."""
Places = tuple[tf.Tensor, tf.Tensor]
"""Rows and columns, int32 (S,) each, of a window in a piece."""


def resized(
    image: tf.Tensor, full: tf.Tensor, start: tf.Tensor, extent: tf.Tensor, windows: Sequence[Places], size: int
) -> list[tf.Tensor]:
    """Resize `image` to `full`, take the piece of `extent` at `start`, and cut windows out of it.

    Bicubic (Keys, a = -0.5), antialiased, as Pillow. Only the pixels that the piece needs are touched: all pixels enter
    with the weights that they have in the whole.

    Args:
        image: uint8 (h, w, 3).
        full: height and width of the whole result, int32 (2,), as the next two.
        start: where the piece begins in it.
        extent: height and width of the piece.
        windows: rows and columns of each window, counted in the piece; any order, so that windows may be flipped.
        size: side S of the windows, which decides how the same result is computed: TensorFlow's own kernel has little
            overhead and suits small views; products with bands of weights take a third of its time on large ones.

    Returns:
        uint8 (S, S, 3) for each window.
    """
    return (_by_kernel if size <= SMALL else _by_products)(image, full, start, extent, windows)


def _bytes(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(values), 0.0, 255.0), tf.uint8)


def _by_kernel(
    image: tf.Tensor, full: tf.Tensor, start: tf.Tensor, extent: tf.Tensor, windows: Sequence[Places]
) -> list[tf.Tensor]:
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    origin, target = tf.cast(start, tf.float32), tf.cast(full, tf.float32)
    step = size / target
    reach = 2.0 * tf.maximum(step, 1.0) + 1.0
    first = tf.maximum(tf.floor(origin * step - reach), 0.0)
    last = tf.minimum(tf.math.ceil((origin + tf.cast(extent, tf.float32)) * step + reach), size)
    begin, length = tf.cast(first, tf.int32), tf.cast(last - first, tf.int32)
    needed = tf.slice(image, tf.pad(begin, [[0, 1]]), tf.pad(length, [[0, 1]], constant_values=3))
    scale = target / size
    values = tf.raw_ops.ScaleAndTranslate(
        images=needed[tf.newaxis],
        size=extent,
        scale=scale,
        translation=first * scale - origin,
        kernel_type="keyscubic",
        antialias=True,
    )
    piece = _bytes(values[0])
    return [tf.gather(tf.gather(piece, rows), columns, axis=1) for rows, columns in windows]


def _by_products(
    image: tf.Tensor, full: tf.Tensor, start: tf.Tensor, extent: tf.Tensor, windows: Sequence[Places]
) -> list[tf.Tensor]:
    """Resize rows, then columns as rows of the transposed image; that one is cut, and windows transposed back."""
    size = tf.shape(image)[:2]
    row_weights, rows = _bands(size[0], full[0], start[0], extent[0])
    column_weights, columns = _bands(size[1], full[1], start[1], extent[1])
    width = tf.minimum(_rounded(columns[-1, -1] + 1 - columns[0, 0], 16), size[1])  # bands' lines rise, and so do bands
    left = tf.minimum(columns[0, 0], size[1] - width)
    tall = _product(row_weights, rows, tf.reshape(image[:, left : left + width], [size[0], width * 3]))
    height = tf.shape(tall)[0]  # the piece's, rounded up
    turned = tf.transpose(tf.reshape(tall, [height, width, 3]), [1, 0, 2])
    wide = _product(column_weights, columns - left, tf.reshape(turned, [width, height * 3]))
    piece = _bytes(tf.reshape(wide, [-1, height, 3]))
    return [tf.gather(tf.transpose(tf.gather(piece, across), [1, 0, 2]), down) for down, across in windows]


def _rounded(length: tf.Tensor, to: int) -> tf.Tensor:
    """Round up: oneDNN prepares itself anew, at length, for each new size of a product."""
    return (length + (to - 1)) // to * to


def _product(weights: tf.Tensor, lines: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return the weighted sums (bands · BAND, n) float32 of `lines` of `values` (h, n)."""
    gathered = tf.cast(tf.gather(values, lines), tf.float32)
    return tf.reshape(tf.matmul(weights, gathered), [-1, tf.shape(values)[1]])


def _bands(size: tf.Tensor, full: tf.Tensor, start: tf.Tensor, extent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights of one axis, in bands of BAND result lines, all int32 scalars.

    Returns:
        weights: float32 (bands, BAND, K); those of lines past the piece's end are of no use.
        lines: int32 (bands, K), the source's lines that the weights are for, rising.
    """
    step = tf.cast(size, tf.float32) / tf.cast(full, tf.float32)
    wide = tf.maximum(step, 1.0)
    reach = 2.0 * wide
    count = (extent + BAND - 1) // BAND
    # Past the end of the piece the last line is made again, so that no band reaches further than it must.
    places = tf.minimum(tf.range(count * BAND), extent - 1) + start
    centres = tf.reshape((tf.cast(places, tf.float32) + 0.5) * step - 0.5, [count, BAND])
    first = tf.cast(tf.math.ceil(centres[:, :1] - reach), tf.int32)
    length = _rounded(tf.cast(tf.math.ceil((BAND - 1) * step + 2.0 * reach), tf.int32) + 1, 8)
    lines = first + tf.range(length)
    # Lines outside of the image are put where the kernel is 0.
    known = tf.where((lines >= 0) & (lines < size), tf.cast(lines, tf.float32), 1e9)
    weights = _keys(tf.abs((known / wide)[:, tf.newaxis] - (centres / wide)[:, :, tf.newaxis]))
    weights = weights / tf.reduce_sum(weights, axis=2, keepdims=True)
    return weights, tf.clip_by_value(lines, 0, size - 1)


def _keys(distance: tf.Tensor) -> tf.Tensor:
    """Keys' cubic kernel with a = -0.5 (Keys 1981, eq. 15) at distances ≥ 0.

    Written with u = max(2 - d, 0) and v = max(1 - d, 0), as u²(u - 1)/2 + v²(1 - 2v): no choice between pieces.
    """
    u = tf.nn.relu(2.0 - distance)
    t = u - 1.0
    v = tf.nn.relu(t)
    return u * u * (0.5 * t) + v * v * (1.0 - 2.0 * v)
