"""From a batch of bytes to a network's input, and back: what an encoder was made to see, batched and on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from keras import ops

from lut_tf.config import build_group, validate
from lut_tf.config.types import Fraction, Positive, PositiveFraction

Colour = tuple[Fraction, Fraction, Fraction]
Deviation = tuple[Positive, Positive, Positive]
WHOLE = 64
"""Up to this size encoders are shown whole images: small pictures have their subject up to the border."""


@dataclass(frozen=True)
class Preprocessing:
    """How images become an encoder's input: part of the encoder, for with another one its features are wrong.

    Args:
        mean: of red, green and blue, of values in 0 … 1.
        std: deviation of red, green and blue.
        interpolation: `bicubic` or `bilinear`, antialiased, as Pillow's, when an image is resized to be measured.
        crop_share: the input's share of the resized image, of which the centre is cut out; null: the field's protocol,
            224/256 for inputs above 64 and up to 224 pixels and 1 for others.
    """

    mean: Colour = (0.485, 0.456, 0.406)
    std: Deviation = (0.229, 0.224, 0.225)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop_share: PositiveFraction | None = None

    @classmethod
    def of(cls, given: Preprocessing | Mapping[str, Any] | None) -> Preprocessing:
        """Return `given`, or what `dataclasses.asdict` made of one, checked; ImageNet's for None.

        Raises:
            ValueError: a value is out of range.
            TypeError: a name that is not known.
        """
        chosen = build_group(cls, given) if isinstance(given, Mapping) else given or cls()
        validate(chosen, "preprocessing")
        return chosen

    def resized_to(self, sides: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image is resized to cover before its centre of `sides` is cut out."""
        protocol = 224 / 256 if min(sides) > WHOLE and max(sides) <= 224 else 1.0
        share = self.crop_share or protocol
        return math.floor(sides[0] / share), math.floor(sides[1] / share)

    def asdict(self) -> dict[str, Any]:
        """Return the settings by name, as `of` takes them."""
        return asdict(self)


IMAGENET = Preprocessing()
HALF = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def normalise(images: Any, preprocessing: Preprocessing = IMAGENET) -> Any:
    """Return images (..., 3), uint8 or float in 0 … 255, as float32 with mean 0 and deviation 1."""
    scaled = ops.cast(images, "float32") / 255.0
    return (scaled - ops.array(preprocessing.mean, "float32")) / ops.array(preprocessing.std, "float32")


def denormalise(images: Any, preprocessing: Preprocessing = IMAGENET) -> Any:
    """Invert `normalise`: float32 in 0 … 255, not clipped."""
    scaled = ops.cast(images, "float32") * ops.array(preprocessing.std, "float32")
    return (scaled + ops.array(preprocessing.mean, "float32")) * 255.0
