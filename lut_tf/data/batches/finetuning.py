"""Batches of fine-tuning: random resized crop and flip, RandAugment, random erasing, mixup or cutmix.

All of it is keyed by seed, epoch and image, drop path too, mixing by seed and step: a batch is a pure function of its
position.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.config import FinetuneViews, ViewsConfig, validate
from lut_tf.data.batches.pipeline import finished, in_steps
from lut_tf.data.reading.sources import Source, labelled
from lut_tf.data.views.crops import training_views
from lut_tf.data.views.draws import draw, split
from lut_tf.data.views.mixing import ERASING_DRAWS, erase, mix
from lut_tf.data.views.rand_augment import rand_augment
from lut_tf.models.preprocess import IMAGENET, Preprocessing, normalise

fold_in = tf.random.experimental.stateless_fold_in
MAGNITUDES, NOISE, MIXING = 1, 2, 3
"""What a key is for: folded into it, so that no two uses draw the same numbers."""


def finetuning_dataset(
    source: Source,
    *,
    classes: int,
    batch_size: int,
    image_size: int | tuple[int, int],
    views: FinetuneViews,
    seed: int,
    steps: int,
    start_step: int = 0,
    parallel_calls: int | None = None,
    host: int = 0,
    hosts: int = 1,
    preprocessing: Preprocessing = IMAGENET,
    drop_path_numbers: int = 0,
) -> tf.data.Dataset:
    """Return the batches of steps `start_step` up to, not including, `steps`: a pure function of the arguments.

    Args:
        source: labelled images; those whose class is not known (-1) are left out.
        classes: number of classes C.
        batch_size: images B of a step over all hosts; this host yields B / hosts of them, and mixes among these.
        image_size: side of a square view in pixels, or (height, width).
        views: what is done to the images.
        seed: 0 … 2^31 - 1.
        steps: where the run ends, counted from its beginning.
        start_step: where to begin.
        parallel_calls: images made at the same time; None lets tf.data choose.
        host: number of this host.
        hosts: number of hosts.
        preprocessing: the encoder's, by which the images are normalised.
        drop_path_numbers: uniform numbers N that decide an image's drop path, two a block (`ViTClassifier.call`); 0:
            none, for whoever draws them on the device.

    Returns:
        pairs of normalised images float32 (B, H, W, 3) and targets float32 (B, C), which sum to 1. With
        `drop_path_numbers` the first of them is a dict: `images`, and `drop_path_draws` float32 (B, N) in [0, 1).

    Raises:
        ValueError: the source has no labels, one is no number of a class, or a setting is out of range.
    """
    validate(views, "views")
    known = known_images(source)
    assert source.labels is not None
    if source.labels.max() >= classes:
        raise ValueError(f"classes={classes} is too few for the label {source.labels.max()}: give one more than that")
    crop, labels = ViewsConfig(crop="random_resized", scale=views.scale, flip=views.flip), tf.constant(source.labels)
    count, chosen_images = views.operations, tf.constant(known, tf.int64)
    own = 3 * count + ERASING_DRAWS

    def example(epoch: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        index = tf.gather(chosen_images, number)
        draws = split(draw(seed, epoch, index, own + drop_path_numbers))
        (view,) = training_views(source.image(index), draws.views, image_size, crop, 1)
        key, image = tf.stack([tf.constant(seed << 32, tf.int64) + epoch, -1 - index]), view.image
        magnitudes, noise = (fold_in(key, purpose) for purpose in (MAGNITUDES, NOISE))
        if count:
            normals = tf.random.stateless_normal([count], magnitudes)
            chosen = tf.reshape(draws.rest[: 3 * count], [count, 3])
            image = rand_augment(image, chosen, normals, views.magnitude, views.magnitude_std)
        normal = normalise(image, preprocessing)
        return erase(normal, draws.rest[3 * count : own], noise, views), tf.gather(labels, index), draws.rest[own:]

    @tf.autograph.experimental.do_not_convert  # as in `views.crops`
    def finish(step: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[Any, tf.Tensor]:
        images, numbers, drop_path = batch
        off = views.smoothing / classes
        targets = tf.one_hot(numbers, classes, 1.0 - views.smoothing + off, off)
        key = fold_in(tf.stack([tf.constant(seed, tf.int64), -1 - step * hosts - host]), MIXING)
        images, targets = mix(images, targets, key, views)
        return ({"images": images, "drop_path_draws": drop_path} if drop_path_numbers else images), targets

    batches = in_steps(
        example, len(known), batch_size, seed, start_step, steps, parallel_calls=parallel_calls, host=host, hosts=hosts
    )
    return finished(tf.data.Dataset.zip(tf.data.Dataset.range(start_step, steps), batches).map(finish))


def known_images(source: Source) -> NDArray[np.int64]:
    """Return the numbers of a source's images whose class is known: of others no class can be learned.

    Raises:
        ValueError: there are none.
    """
    known = labelled(source)
    if not len(known):
        raise ValueError("data: the images have no labels, which a classifier needs: give a labelled source")
    return known
