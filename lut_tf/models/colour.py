"""Colour changes: decided on the host from uniform numbers, applied to whole batches on the device.

No randomness here: the numbers come with each image. Everything is float32, and what is applied compiles with XLA.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from keras import ops

from lut_tf.config.data import MAX_BLUR, ViewsConfig


class Colour(NamedTuple):
    """The colour decisions of one image; the fields are the columns of a batch's `colour`, in this order.

    The defaults change nothing. `*_at` are the positions 0 … 3 of the four jitter operations, all different. `choice`
    is 0 for nothing, 1 grayscale, 2 solarize, 3 Gaussian blur.
    """

    brightness: Any = 1.0
    contrast: Any = 1.0
    saturation: Any = 1.0
    hue: Any = 0.0
    brightness_at: Any = 0.0
    contrast_at: Any = 1.0
    saturation_at: Any = 2.0
    hue_at: Any = 3.0
    choice: Any = 0.0
    solarize_threshold: Any = 128.0
    blur_radius: Any = 1.0


COLOUR_DRAWS = 11  # numbers for an image: jitter or not, four factors, four sort keys, which of three, blur radius
GRAYSCALE, SOLARIZE, BLUR = 1, 2, 3
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
REACH = int(4 * MAX_BLUR)  # lines that a blur carries over at most: no pixel carries further than four deviations
BAND = 32  # lines blurred by one product
BLUR_PARTS = 8  # a batch that splits into eight is blurred an eighth at a time, until all are done that ask for it


def colour_decisions(draws: Any, views: ViewsConfig, xp: Any) -> Any:
    """Decide what happens to the colours of images, from uniform numbers.

    Args:
        draws: float32 (B, COLOUR_DRAWS) in [0, 1).
        views: probabilities and strengths.
        xp: the module that computes with `draws`, `numpy` or `tensorflow.experimental.numpy`: this runs in input
            pipelines, which are TensorFlow's whatever Keras' backend is.

    Returns:
        float32 (B, 11), columns as in `Colour`.
    """
    jitter = draws[:, 0] < views.jitter_probability

    def factor(column: int, centre: float, strength: float) -> Any:
        low, high = max(centre - strength, 0.0) if centre else -strength, centre + strength
        changed = low + (high - low) * draws[:, column]
        return xp.where(jitter, changed, xp.full_like(changed, centre))

    order = xp.asarray(xp.argsort(xp.argsort(draws[:, 5:9], axis=1, kind="stable"), axis=1), dtype=xp.float32)
    choice = 1.0 + xp.minimum(xp.floor(3.0 * draws[:, 9]), 2.0)
    least, most = views.blur_radius
    decisions = Colour(
        brightness=factor(1, 1.0, views.brightness),
        contrast=factor(2, 1.0, views.contrast),
        saturation=factor(3, 1.0, views.saturation),
        hue=factor(4, 0.0, views.hue),
        brightness_at=order[:, 0],
        contrast_at=order[:, 1],
        saturation_at=order[:, 2],
        hue_at=order[:, 3],
        choice=choice if views.one_of_three else xp.zeros_like(choice),
        solarize_threshold=xp.full_like(choice, float(views.solarize_threshold)),
        blur_radius=least + (most - least) * draws[:, 10],
    )
    return xp.stack(decisions, axis=1)


def apply_colour(images: Any, colour: Any) -> Any:
    """Colour jitter, then at most one of grayscale, solarize and blur, as decided for each image (LUT, "Views").

    The meaning of every operation is Pillow's, without its rounding to bytes in between.

    Args:
        images: (B, H, W, 3), uint8 or float in 0 … 255.
        colour: (B, 11) float32, columns as in `Colour`; the blur radius at most MAX_BLUR.

    Returns:
        float32 (B, H, W, 3) in 0 … 255.
    """
    columns = ops.split(ops.cast(colour, "float32"), len(Colour._fields), axis=1)
    decisions = Colour(*(ops.reshape(column, (-1, 1, 1)) for column in columns))
    # Channels first inside: whole planes are several times quicker than triples on a CPU.
    images = ops.cast(ops.transpose(images, (0, 3, 1, 2)), "float32")
    height, width = images.shape[2:]
    planes = ops.reshape(images, (-1, 3, height * width))
    # Each image has its own order, but hue, the costly one, need be computed only once: the blends that some image
    # wants before hue, hue, and the blends that some image wants after it.
    for position in range(3):
        planes = _blend(planes, decisions, position, position < decisions.hue_at)
    planes = _shift_hue(planes, decisions.hue)
    for position in range(1, 4):
        planes = _blend(planes, decisions, position, position > decisions.hue_at)
    result = _one_of_three(ops.reshape(planes, (-1, 3, height, width)), decisions)
    return ops.transpose(result, (0, 2, 3, 1))


def _gray(images: Any) -> Any:
    """Luma, (B, 1, H, W), of images (B, 3, H, W)."""
    red, green, blue = ops.split(images, 3, axis=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _blend(planes: Any, decisions: Colour, position: int, active: Any) -> Any:
    """The image's operation at `position`, if `active`: from or towards black, its mean gray, or its gray pixels.

    `planes` are (B, 3, H·W). The three channels are mixed by one small matrix for each image. A product it must be:
    XLA fuses sums with what they are made of, and would compute the whole chain of blends again for each image's mean
    gray (4.2 ms an image where this takes 1.3).
    """

    def chosen(at: Any) -> Any:
        return ops.cast(ops.logical_and(ops.equal(at, position), active), "float32")

    brightness, contrast = chosen(decisions.brightness_at), chosen(decisions.contrast_at)
    saturation = chosen(decisions.saturation_at)
    factor = 1.0 + (
        brightness * (decisions.brightness - 1.0)
        + contrast * (decisions.contrast - 1.0)
        + saturation * (decisions.saturation - 1.0)
    )
    luma = ops.array([LUMA], "float32")
    mean = ops.sum(ops.mean(planes, axis=2) * luma, axis=1)[:, None, None]
    matrix = factor * ops.eye(3, dtype="float32") + (1.0 - factor) * saturation * ops.repeat(luma, 3, axis=0)
    return ops.clip(ops.matmul(matrix, planes) + (1.0 - factor) * contrast * mean, 0.0, 255.0)


def _shift_hue(planes: Any, shift: Any) -> Any:
    """Turn the hue of HSV by `shift` circles; value and saturation stay. `planes` are (B, 3, H·W)."""
    red, green, blue = ops.split(planes, 3, axis=1)
    value = ops.maximum(ops.maximum(red, green), blue)
    chroma = value - ops.minimum(ops.minimum(red, green), blue)
    is_red, is_green = ops.equal(value, red), ops.equal(value, green)
    # Hue on a circle of six with red at 0, green at 2 and blue at 4: the place of the largest channel, and from there
    # towards the larger of the other two.
    towards = ops.where(is_red, green - blue, ops.where(is_green, blue - red, red - green))
    place = ops.where(is_red, 0.0, ops.where(is_green, 2.0, 4.0))
    hue = towards / ops.maximum(chroma, 1e-6) + (place + 6.0 * shift)
    channels = []
    for centre in (0.0, 2.0, 4.0):
        away = ops.abs(hue - centre)  # at most 8
        away = ops.minimum(away, ops.abs(away - 6.0))
        # A channel is the value up to 1 away from its own place, and the value less the chroma from 2 on.
        channels.append(value - chroma * ops.clip(away - 1.0, 0.0, 1.0))
    return ops.where(ops.equal(shift, 0.0), planes, ops.concatenate(channels, axis=1))


def _one_of_three(images: Any, decisions: Colour) -> Any:
    choice, threshold, radius = (
        column[..., None] for column in (decisions.choice, decisions.solarize_threshold, decisions.blur_radius)
    )
    # Bytes from the threshold up are inverted; half a level lower is where a value would round up to it.
    solarized = ops.where(images >= threshold - 0.5, 255.0 - images, images)
    result = ops.where(ops.equal(choice, SOLARIZE), solarized, images)
    result = ops.where(ops.equal(choice, GRAYSCALE), _gray(images), result)
    return _blur_some(result, ops.reshape(ops.equal(choice, BLUR), (-1,)), radius)


def _blur_some(images: Any, wanted: Any, radius: Any) -> Any:
    """Blur the images of which `wanted` (B,) is true: a third of them as a rule, and blurring costs the most of all.

    Batches of unknown size are blurred whole, and so are odd ones of which any image wants it.
    """
    batch = images.shape[0]
    if batch is None:
        return ops.where(wanted[:, None, None, None], _blur(images, radius), images)
    part = batch // math.gcd(batch, BLUR_PARTS)
    order = ops.argsort(ops.where(wanted, 0, batch) + ops.arange(batch))  # those that want it come first

    def blur_part(done: Any, images: Any) -> tuple[Any, Any]:
        chosen = ops.slice(order, [done], [part])
        taken = ops.take(images, chosen, axis=0)
        blurred = _blur(taken, ops.take(radius, chosen, axis=0))
        blurred = ops.where(ops.take(wanted, chosen)[:, None, None, None], blurred, taken)
        return done + part, ops.scatter_update(images, chosen[:, None], blurred)

    count = ops.sum(ops.cast(wanted, "int32"))
    return ops.while_loop(lambda done, _: done < count, blur_part, (0, images))[1]


def _blur(images: Any, radius: Any) -> Any:
    """Gaussian blur of standard deviation `radius` (B, 1, 1, 1) pixels; the border pixels go on outside.

    Products with two blur matrices for each image, or rather with the bands of them that are not zero: any radius up to
    MAX_BLUR, and quicker than shifted sums.
    """
    height, width = images.shape[2:]
    down, across = _blur_matrix(radius, height), ops.transpose(_blur_matrix(radius, width), (0, 1, 3, 2))
    rows = [ops.matmul(down[:, :, out, near], images[:, :, near]) for out, near in _bands(height)]
    images = ops.concatenate(rows, axis=2)
    columns = [ops.matmul(images[..., near], across[:, :, near, out]) for out, near in _bands(width)]
    return ops.concatenate(columns, axis=3)


def _bands(size: int) -> list[tuple[slice, slice]]:
    """Cut `size` lines into bands, and with each give the lines that a blur carries into it."""
    starts = range(0, size, BAND)
    return [(slice(a, min(a + BAND, size)), slice(max(a - REACH, 0), min(a + BAND + REACH, size))) for a in starts]


def _blur_matrix(radius: Any, size: int) -> Any:
    """Weights (B, 1, size, size) of input pixels for output pixels; what falls outside goes to the border pixel."""
    place = ops.arange(size, dtype="float32")
    spread = 2.0 * ops.square(ops.maximum(radius, 1e-3))
    inside = ops.exp(-ops.square(place[:, None] - place[None, :]) / spread)
    beyond = place[:, None] + place[None, :] + 1.0  # distances from output pixel i to pixels -1, -2, ...
    before = ops.sum(ops.exp(-ops.square(beyond) / spread), axis=3, keepdims=True)
    first = ops.cast(place == 0.0, "float32")
    weights = inside + before * first + ops.flip(before, axis=2) * ops.flip(first)
    return weights / ops.sum(weights, axis=3, keepdims=True)
