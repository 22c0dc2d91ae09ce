"""From a batch of bytes to a network's input: colour changes and normalisation, batched and on the device.

Everything is float32, decided by numbers that come with the batch (no randomness here), and compiles with XLA.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


COLOUR_COLUMNS = Colour._fields
GRAYSCALE, SOLARIZE, BLUR = 1, 2, 3


def normalise(images: Any) -> Any:
    """Return images (..., 3), uint8 or float in 0 … 255, as float32 with ImageNet's mean 0 and deviation 1."""
    scaled = ops.cast(images, "float32") / 255.0
    return (scaled - ops.array(IMAGENET_MEAN, "float32")) / ops.array(IMAGENET_STD, "float32")


def denormalise(images: Any) -> Any:
    """Invert `normalise`: float32 in 0 … 255, not clipped."""
    scaled = ops.cast(images, "float32") * ops.array(IMAGENET_STD, "float32") + ops.array(IMAGENET_MEAN, "float32")
    return scaled * 255.0


def apply_colour(images: Any, colour: Any) -> Any:
    """Colour jitter, then at most one of grayscale, solarize and blur, as decided for each image (LUT, "Views").

    The meaning of every operation is Pillow's, without its rounding to bytes in between.

    Args:
        images: (B, H, W, 3), uint8 or float in 0 … 255.
        colour: (B, 11) float32, columns as in `Colour`.

    Returns:
        float32 (B, H, W, 3) in 0 … 255.
    """
    columns = ops.split(ops.cast(colour, "float32"), len(COLOUR_COLUMNS), axis=1)
    decisions = Colour(*(ops.reshape(column, (-1, 1, 1, 1)) for column in columns))
    # Channels first inside: whole planes are several times quicker than triples on a CPU.
    images = ops.cast(ops.transpose(images, (0, 3, 1, 2)), "float32")
    # Each image has its own order, but hue, the costly one, need be computed only once: the blends that some image
    # wants before hue, hue, and the blends that some image wants after it.
    for position in range(3):
        images = _blend(images, decisions, position, position < decisions.hue_at)
    images = _shift_hue(images, decisions.hue)
    for position in range(1, 4):
        images = _blend(images, decisions, position, position > decisions.hue_at)
    return ops.transpose(_one_of_three(images, decisions), (0, 2, 3, 1))


def _gray(images: Any) -> Any:
    """Luma of ITU-R 601, (B, 1, H, W), of images (B, 3, H, W)."""
    red, green, blue = ops.split(images, 3, axis=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _blend(images: Any, decisions: Colour, position: int, active: Any) -> Any:
    """The image's operation at `position`, if `active`: from or towards black, its mean gray, or its gray pixels."""

    def chosen(at: Any) -> Any:
        return ops.cast(ops.logical_and(ops.equal(at, position), active), "float32")

    brightness, contrast = chosen(decisions.brightness_at), chosen(decisions.contrast_at)
    saturation = chosen(decisions.saturation_at)
    gray = _gray(images)
    base = contrast * ops.mean(gray, axis=(1, 2, 3), keepdims=True) + saturation * gray
    factor = 1.0 + (
        brightness * (decisions.brightness - 1.0)
        + contrast * (decisions.contrast - 1.0)
        + saturation * (decisions.saturation - 1.0)
    )
    return ops.clip(factor * images + (1.0 - factor) * base, 0.0, 255.0)


def _shift_hue(images: Any, shift: Any) -> Any:
    """Turn the hue of HSV by `shift` circles; value and saturation stay."""
    red, green, blue = ops.split(images, 3, axis=1)
    value = ops.maximum(ops.maximum(red, green), blue)
    chroma = value - ops.minimum(ops.minimum(red, green), blue)
    safe = ops.where(chroma > 0.0, chroma, 1.0)
    from_green, from_blue = 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe
    sextant = ops.where(value == red, (green - blue) / safe, ops.where(value == green, from_green, from_blue))
    # Each channel is the value minus a share of the chroma, by its distance on the circle of six.
    turned = sextant + 6.0 * shift
    channels = []
    for offset in (5.0, 3.0, 1.0):
        distance = turned + offset
        distance = distance - 6.0 * ops.floor(distance / 6.0)
        channels.append(value - chroma * ops.clip(ops.minimum(distance, 4.0 - distance), 0.0, 1.0))
    return ops.where(shift == 0.0, images, ops.concatenate(channels, axis=1))


def _one_of_three(images: Any, decisions: Colour) -> Any:
    # Bytes from the threshold up are inverted; half a level lower is where a value would round up to it.
    solarized = ops.where(images >= decisions.solarize_threshold - 0.5, 255.0 - images, images)
    result = ops.where(decisions.choice == BLUR, _blur(images, decisions.blur_radius), images)
    result = ops.where(decisions.choice == SOLARIZE, solarized, result)
    return ops.where(decisions.choice == GRAYSCALE, _gray(images), result)


def _blur(images: Any, radius: Any) -> Any:
    """Gaussian blur of standard deviation `radius` (B, 1, 1, 1) pixels; the border pixels go on outside.

    Products with two blur matrices for each image: any radius, and quicker than shifted sums.
    """
    rows, columns = _blur_matrix(radius, images.shape[2]), _blur_matrix(radius, images.shape[3])
    return ops.matmul(ops.matmul(rows, images), ops.transpose(columns, (0, 1, 3, 2)))


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
