"""Frozen features of a source's images, without augmentation."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import tensorflow as tf

from lut_tf.data.batches.evaluation import evaluation_dataset
from lut_tf.data.reading.sources import Source
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.preprocess import normalise

BATCH = 100


def sample(count: int, most: int) -> np.ndarray:
    """Return at most `most` indices out of `count`, evenly spaced, so that sorted classes are all there."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype("int64")


@lru_cache(maxsize=2)  # a probe every few epochs must not trace the encoder anew
def encoder_features(encoder: ViTEncoder, pooling: str = "mean") -> Callable[[Source, np.ndarray], np.ndarray]:
    """Return a function from a source and (N,) indices to the encoder's features (N, D) float32.

    Args:
        encoder: in inference mode.
        pooling: `mean` of the patch tokens, or `cls`.
    """
    images = tf.TensorSpec((None, *encoder.image_size, 3), tf.uint8)
    forward = tf.function(lambda x: encoder.features(normalise(x), pooling), input_signature=[images])

    def extract(source: Source, indices: np.ndarray) -> np.ndarray:
        batches = evaluation_dataset(source, indices, encoder.image_size[0], BATCH)
        return np.concatenate([forward(images).numpy() for images, _ in batches])

    return extract


def raw_pixels(image_size: int) -> Callable[[Source, np.ndarray], np.ndarray]:
    """Return a function from a source and (N,) indices to the images' own values, (N, size·size·3) float32 in 0..1."""

    def extract(source: Source, indices: np.ndarray) -> np.ndarray:
        batches = evaluation_dataset(source, indices, image_size, BATCH)
        return np.concatenate([images.numpy().reshape(len(images), -1) / np.float32(255) for images, _ in batches])

    return extract
