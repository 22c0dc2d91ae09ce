"""From a batch of bytes to a network's input, and back: ImageNet's normalisation, batched and on the device."""

from __future__ import annotations

from typing import Any

from keras import ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images: Any) -> Any:
    """Return images (..., 3), uint8 or float in 0 … 255, as float32 with ImageNet's mean 0 and deviation 1."""
    scaled = ops.cast(images, "float32") / 255.0
    return (scaled - ops.array(IMAGENET_MEAN, "float32")) / ops.array(IMAGENET_STD, "float32")


def denormalise(images: Any) -> Any:
    """Invert `normalise`: float32 in 0 … 255, not clipped."""
    scaled = ops.cast(images, "float32") * ops.array(IMAGENET_STD, "float32") + ops.array(IMAGENET_MEAN, "float32")
    return scaled * 255.0
