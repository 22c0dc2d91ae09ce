"""Fine-tuning's views: random resized crop and flip, RandAugment, mixup or cutmix, random erasing.

All of it is keyed by seed, epoch and image, mixing by seed and step: a batch is a pure function of its position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lut_tf.config import ViewsConfig
from lut_tf.data.batches.order import order_dataset
from lut_tf.data.batches.pipeline import pipeline_options
from lut_tf.data.views.rand_augment import rand_augment
from lut_tf.data.reading.sources import Source
from lut_tf.data.views.crops import VIEW_DRAWS, draw, training_views
from lut_tf.models.preprocess import normalise

AREA, ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)  # of an erased box


@dataclass(frozen=True)
class FinetuneViews:
    """How training images of fine-tuning are changed.

    Args:
        scale: smallest and largest area of the random resized crop.
        operations: RandAugment operations drawn for an image; 0: none.
        magnitude: their strength, 0 to 10.
        magnitude_std: standard deviation of the strength.
        mixup: alpha of mixup's beta distribution; 0: no mixup.
        cutmix: alpha of cutmix's beta distribution; 0: no cutmix.
        switch: how often cutmix is taken where both are on.
        smoothing: label smoothing.
        erasing: how often a box is replaced by noise.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    operations: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    mixup: float = 0.8
    cutmix: float = 1.0
    switch: float = 0.5
    smoothing: float = 0.1
    erasing: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn; raises `ValueError`."""
        conditions = {
            "scale": 0 < self.scale[0] <= self.scale[1] <= 1,
            "operations": self.operations >= 0,
            "magnitude": 0 <= self.magnitude <= 10,
            "magnitude_std": self.magnitude_std >= 0,
            "mixup": self.mixup >= 0,
            "cutmix": self.cutmix >= 0,
            "switch": 0 <= self.switch <= 1,
            "smoothing": 0 <= self.smoothing < 1,
            "erasing": 0 <= self.erasing <= 1,
        }
        for name, holds in conditions.items():
            if not holds:
                raise ValueError(f"{name}: {getattr(self, name)!r} is out of range: change it")


# -------------------------------------------------------------------------------------- mixup, cutmix, random erasing


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
        draws: (5,), uniform: whether, area, shape, top, left.
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


def finetuning_dataset(
    source: Source,
    *,
    classes: int,
    batch_size: int,
    image_size: int,
    views: FinetuneViews,
    seed: int,
    steps: int,
    start_step: int = 0,
    parallel_calls: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """Return the batches of steps `start_step` up to, not including, `steps`: a pure function of the arguments.

    Args:
        source: labelled images.
        classes: number of classes C.
        batch_size: images B of a step over all hosts; this host yields B / hosts of them, and mixes among these.
        image_size: side S of a view.
        views: what is done to the images.
        seed: 0 … 2^31 - 1.
        steps: where the run ends, counted from its beginning.
        start_step: where to begin.
        parallel_calls: images made at the same time; None lets tf.data choose.
        host: number of this host.
        hosts: number of hosts.

    Returns:
        pairs of normalised images float32 (B, S, S, 3) and targets float32 (B, C), which sum to 1.

    Raises:
        ValueError: the source has no labels, or a setting is out of range.
    """
    if source.labels is None:
        raise ValueError("data: the images have no labels, which fine-tuning needs: give a labelled source")
    share, crop = batch_size // hosts, ViewsConfig(crop="random_resized", scale=views.scale)
    labels = tf.constant(source.labels)
    count, extra = views.operations, 3 * views.operations + 5

    def example(epoch: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draws = draw(seed, epoch, index, extra)
        (view,) = training_views(source.image(index), draws[: 2 * VIEW_DRAWS], image_size, crop, 1)
        own, key = draws[-extra:], tf.stack([tf.constant(seed << 32, tf.int64) + epoch, -1 - index])
        image = view.image
        if count:
            normals = tf.random.stateless_normal([count], key)
            chosen = tf.reshape(own[: 3 * count], [count, 3])
            image = rand_augment(image, chosen, normals, views.magnitude, views.magnitude_std)
        return erase(normalise(image), own[3 * count :], key, views), tf.gather(labels, index)

    def finish(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, numbers = batch
        off = views.smoothing / classes
        targets = tf.one_hot(numbers, classes, 1.0 - views.smoothing + off, off)
        return mix(images, targets, tf.stack([tf.constant(seed, tf.int64), -1 - step * hosts - host]), views)

    order = order_dataset(
        start_step, steps, images=len(source), batch_size=batch_size, seed=seed, host=host, hosts=hosts
    )
    examples = order.map(lambda epoch, indices: (tf.fill([share], epoch), indices)).unbatch()
    examples = examples.map(example, num_parallel_calls=parallel_calls or tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(share, drop_remainder=True)
    numbered = tf.data.Dataset.zip(tf.data.Dataset.range(start_step, steps), batches)
    return numbered.map(finish).with_options(pipeline_options()).prefetch(2)
