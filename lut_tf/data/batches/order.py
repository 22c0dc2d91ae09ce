"""Which image comes next: a pure function of the step, so that a run can start anywhere at once."""

from __future__ import annotations

import tensorflow as tf

from lut_tf.config import Count, Seed, check_batch_size, check_value

ROUNDS = 16
"""Rounds of the permutation's cipher. TensorFlow's 4 leave neighbours correlated (the share of four consecutive images
with p0 - p1 - p2 + p3 = 0 is 16 % too high for N = 200); 16 pass what numpy's shuffle passes, at 0.1 µs an image.
"""


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return N // B: the remainder of each epoch's permutation is dropped.

    Raises:
        ValueError: the batch is not positive or larger than the data set.
    """
    check_value("optimizer.batch_size", batch_size, Count)
    check_batch_size(batch_size, images)
    return images // batch_size


def step_indices(
    step: tf.Tensor, *, images: int, batch_size: int, seed: int, host: int = 0, hosts: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the epoch of a step and the images that this host reads for it.

    With `epoch, k = divmod(step, N // B)`, image j of the global batch is
    `random_index_shuffle(k·B + j, seed(epoch), N)`: a keyed permutation of 0 … N - 1 for every epoch. Host h of H reads
    the h-th of H equal slices of j.

    Args:
        step: int64 scalar.
        images: size N of the data set.
        batch_size: global batch B.
        seed: the run's seed.
        host: this host's number h.
        hosts: number of hosts H.

    Returns:
        epoch, int64 scalar, and indices, int64 (B / H,).

    Raises:
        ValueError: the batch does not fit the data set or the hosts.
    """
    per_epoch = steps_per_epoch(images, batch_size)
    if hosts < 1 or batch_size % hosts or not 0 <= host < hosts:
        raise ValueError(
            f"optimizer.batch_size: {batch_size} does not split over host {host} of {hosts}: make it a multiple"
        )
    share = batch_size // hosts
    step = tf.cast(step, tf.int64)
    epoch, k = step // per_epoch, step % per_epoch
    positions = k * batch_size + host * share + tf.range(share, dtype=tf.int64)
    key = tf.random.stateless_uniform(
        [3], tf.stack([tf.constant(seed, tf.int64), epoch]), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    last = tf.constant(images - 1, tf.int64)
    shuffled = tf.raw_ops.RandomIndexShuffle(index=positions, seed=key, max_index=last, rounds=ROUNDS)
    return epoch, tf.ensure_shape(shuffled, [share])


def order_dataset(
    start_step: int, stop_step: int, *, images: int, batch_size: int, seed: int, host: int = 0, hosts: int = 1
) -> tf.data.Dataset:
    """Return the data set of `step_indices` from `start_step` up to, not including, `stop_step`; starts in O(1).

    Raises:
        ValueError: as `step_indices`, or the seed is out of range.
    """
    check_value("seed", seed, Seed)

    @tf.autograph.experimental.do_not_convert  # as in `views.crops`
    def at(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return step_indices(step, images=images, batch_size=batch_size, seed=seed, host=host, hosts=hosts)

    return tf.data.Dataset.range(start_step, stop_step).map(at)
