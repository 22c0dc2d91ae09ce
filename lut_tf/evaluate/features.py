"""Frozen features of a source's images, without augmentation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import tensorflow as tf

from lut_tf.data.batches.evaluation import evaluation_dataset
from lut_tf.data.reading.damaged import raise_damage
from lut_tf.data.reading.sources import Source
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.preprocess import normalise

BATCH = 100


def sample(labels: np.ndarray, most: int) -> np.ndarray:
    """Return the indices of at most `most` labelled images, evenly spaced, so that sorted classes are all there.

    Args:
        labels: (N,) class numbers, -1 where an image's is not known.
        most: how many.
    """
    known = np.flatnonzero(labels >= 0)
    return known if len(known) <= most else known[np.linspace(0, len(known) - 1, most).astype("int64")]


@lru_cache(maxsize=2)  # a probe every few epochs must not trace the encoder anew
def _forward(encoder: ViTEncoder, pooling: str) -> Callable[[tf.Tensor], tf.Tensor]:
    how = encoder.preprocessing
    images = tf.TensorSpec((None, *encoder.image_size, 3), tf.uint8)
    return tf.function(lambda x: encoder.features(normalise(x, how), pooling), input_signature=[images])


def feature_batches(encoder: ViTEncoder, pooling: str, source: Source, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the encoder's features (B, D) float32 of a source's images, batch by batch, in the order of the indices.

    Raises:
        lut_tf.errors.Stopped: too many of the images are damaged.
    """
    forward = _forward(encoder, pooling)
    try:
        for images, _ in evaluation_dataset(source, indices, encoder.image_size, BATCH, encoder.preprocessing):
            yield forward(images).numpy()
    except tf.errors.OpError:
        raise_damage([source])
        raise


def encoder_features(encoder: ViTEncoder, pooling: str = "mean") -> Callable[[Source, np.ndarray], np.ndarray]:
    """Return a function from a source and (N,) indices to the encoder's features (N, D) float32.

    Args:
        encoder: in inference mode.
        pooling: `mean` of the patch tokens, or `cls`.
    """

    def extract(source: Source, indices: np.ndarray) -> np.ndarray:
        return _filled(feature_batches(encoder, pooling, source, indices), len(indices))

    return extract


def _filled(parts: Iterator[np.ndarray], rows: int) -> np.ndarray:
    """Return batches of features as one array (rows, D), each put where it belongs as it comes."""
    first = next(parts)
    filled = np.empty((rows, first.shape[1]), np.float32)
    start = 0
    for part in itertools.chain([first], parts):
        filled[start : start + len(part)] = part
        start += len(part)
    return filled


def raw_pixels(image_size: int | tuple[int, int]) -> Callable[[Source, np.ndarray], np.ndarray]:
    """Return a function from a source and (N,) indices to the images' own values, float32 (N, H·W·3) in 0..1."""

    def extract(source: Source, indices: np.ndarray) -> np.ndarray:
        batches = evaluation_dataset(source, indices, image_size, BATCH)
        pixels = (images.numpy().reshape(len(images), -1) / np.float32(255) for images, _ in batches)
        return _filled(pixels, len(indices))

    return extract
