"""Batches of a linear probe: random resized crop and flip, and the classes as they are."""

from __future__ import annotations

import tensorflow as tf

from lut_tf.config import ViewsConfig, validate
from lut_tf.config.probing import ProbeViews
from lut_tf.data.batches.finetuning import known_images
from lut_tf.data.batches.pipeline import finished, in_steps
from lut_tf.data.reading.sources import Source
from lut_tf.data.views.crops import training_views
from lut_tf.data.views.draws import draw, split


def probing_dataset(
    source: Source,
    *,
    batch_size: int,
    image_size: int | tuple[int, int],
    views: ProbeViews,
    seed: int,
    steps: int,
    start_step: int = 0,
    parallel_calls: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """Return the batches of steps `start_step` up to, not including, `steps`: a pure function of the arguments.

    Args:
        source: labelled images; those whose class is not known (-1) are left out.
        batch_size: images B of a step over all hosts; this host yields B / hosts of them.
        image_size: side of a square view in pixels, or (height, width).
        views: how the images are cut.
        seed: 0 … 2^31 - 1.
        steps: where the run ends, counted from its beginning.
        start_step: where to begin.
        parallel_calls: images made at the same time; None lets tf.data choose.
        host: number of this host.
        hosts: number of hosts.

    Returns:
        pairs of images uint8 (B, H, W, 3), to be normalised on the device, and classes int32 (B,).

    Raises:
        ValueError: the source has no labels, or a setting is out of range.
    """
    validate(views, "views")
    known = known_images(source)
    crop = ViewsConfig(crop="random_resized", scale=views.scale, flip=views.flip)
    images, labels = tf.constant(known, tf.int64), tf.constant(source.labels)

    def example(epoch: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index = tf.gather(images, number)
        draws = split(draw(seed, epoch, index, 0))
        (view,) = training_views(source.image(index), draws.views, image_size, crop, 1)
        return view.image, tf.gather(labels, index)

    return finished(
        in_steps(
            example,
            len(known),
            batch_size,
            seed,
            start_step,
            steps,
            parallel_calls=parallel_calls,
            host=host,
            hosts=hosts,
        )
    )
