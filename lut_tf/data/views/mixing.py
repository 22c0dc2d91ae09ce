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


def _box(size: tuple[int, int], area: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    """Return a mask (H, W, 1) of the image's own shape and of `area` (a share), cut off at the border."""

    def within(side: int, middle: tf.Tensor) -> tf.Tensor:
        places = tf.range(side, dtype=tf.float32) + 0.5
        return tf.abs(places - tf.floor(middle * side)) < tf.sqrt(area) * side / 2.0

    rows, columns = within(size[0], centre[0]), within(size[1], centre[1])
    return (rows[:, tf.newaxis] & columns)[..., tf.newaxis]


def mix(images: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, views: FinetuneViews) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix each image with its mirror in the batch, all by one share: mixup, or cutmix.

    Args:
        images: float32 (B, H, W, 3).
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
    box = _box((images.shape[1], images.shape[2]), 1.0 - kept, tf.stack([top, left]))
    pasted = tf.cast(box, tf.float32)
    of_other = tf.where(cutting, pasted, tf.ones_like(pasted) * (1.0 - kept))
    weight = tf.reduce_mean(of_other)  # what the box really covers
    mixed = images + of_other * (images[::-1] - images)
    return mixed, targets + weight * (targets[::-1] - targets)


@tf.autograph.experimental.do_not_convert  # as in `crops`
def erase(image: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor, views: FinetuneViews) -> tf.Tensor:
    """Replace a box of a normalised image (H, W, 3) by normal noise in a share `views.erasing` of the cases.

    Args:
        image: float32 (H, W, 3).
        draws: (ERASING_DRAWS,), uniform: whether, area, shape, top, left.
        seed: int64 (2,), for the noise.
        views: how often.
    """
    height, width = image.shape[0], image.shape[1]
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * draws[1])
    low, high = np.log(ASPECT)
    aspect = tf.exp(low + (high - low) * draws[2])
    extent = tf.minimum(
        tf.round(tf.stack([tf.sqrt(area * aspect), tf.sqrt(area / aspect)])), [height - 1.0, width - 1.0]
    )
    start = tf.floor(draws[3:5] * (tf.constant([height, width], tf.float32) - extent + 1.0))
    rows, columns = (
        (places >= start[axis]) & (places < start[axis] + extent[axis])
        for axis, places in enumerate((tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32)))
    )
    inside = (rows[:, tf.newaxis] & columns)[..., tf.newaxis] & (draws[0] < views.erasing)
    return tf.where(inside, tf.random.stateless_normal([height, width, 3], seed), image)
