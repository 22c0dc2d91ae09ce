"""What fine-tuning does to views besides RandAugment: mixup or cutmix over the batch, and random erasing."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from lut_tf.config import FinetuneViews

AREA, ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)  # of an erased box
ERASING_DRAWS = 5  # whether, area, shape, top, left


def _beta(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draw from the beta distribution with both parameters `alpha`."""
    first, second = tf.unstack(tf.random.stateless_gamma([2], seed, alpha=max(alpha, 1e-3)))
    return first / tf.maximum(first + second, 1e-30)


def _box(size: int, area: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    """Return a mask (size, size, 1) of the image's own shape and of `area` (a share), cut off at the border."""
    half = tf.sqrt(area) * size / 2.0
    places = tf.range(size, dtype=tf.float32) + 0.5
    rows, columns = (tf.abs(places - tf.floor(centre[axis] * size)) < half for axis in (0, 1))
    return (rows[:, tf.newaxis] & columns)[..., tf.newaxis]


def mix(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, views: FinetuneViews) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix each image with its mirror in the batch, all by one share: mixup, or cutmix.

    Args:
        images: float32 (B, S, S, 3).
        targets: float32 (B, C).
        seed: int64 (2,), the step's key.
        views: how much of which.
    """
    if not (views.mixup or views.cutmix):
        return images, targets
    switch, top, left = tf.unstack(tf.random.stateless_uniform([3], seed))
    share = views.switch if views.mixup and views.cutmix else float(views.cutmix > 0)
    cutting = switch < share
    kept = tf.where(cutting, _beta(seed + 1, views.cutmix), _beta(seed + 2, views.mixup))
    box = _box(images.shape[1], 1.0 - kept, tf.stack([top, left]))
    pasted = tf.cast(box, tf.float32)
    of_other = tf.where(cutting, pasted, tf.ones_like(pasted) * (1.0 - kept))
    weight = tf.reduce_mean(of_other)  # what the box really covers
    mixed = images + of_other * (images[::-1] - images)
    return mixed, targets + weight * (targets[::-1] - targets)


def erase(image: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor, views: FinetuneViews) -> tf.Tensor:
    """Replace a box of a normalised image (S, S, 3) by normal noise in a share `views.erasing` of the cases.

    Args:
        image: float32 (S, S, 3).
        draws: (ERASING_DRAWS,), uniform: whether, area, shape, top, left.
        seed: int64 (2,), for the noise.
        views: how often.
    """
    size = image.shape[0]
    area = size * size * (AREA[0] + (AREA[1] - AREA[0]) * draws[1])
    low, high = np.log(ASPECT)
    aspect = tf.exp(low + (high - low) * draws[2])
    extent = tf.minimum(tf.round(tf.stack([tf.sqrt(area * aspect), tf.sqrt(area / aspect)])), size - 1.0)
    start = tf.floor(draws[3:5] * (size - extent + 1.0))
    places = tf.range(size, dtype=tf.float32)
    rows, columns = ((places >= start[axis]) & (places < start[axis] + extent[axis]) for axis in (0, 1))
    inside = (rows[:, tf.newaxis] & columns)[..., tf.newaxis] & (draws[0] < views.erasing)
    return tf.where(inside, tf.random.stateless_normal([size, size, 3], seed), image)
