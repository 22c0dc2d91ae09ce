"""What all pipelines share: images made side by side in exact order, and a few batches ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lut_tf.data.batches.order import order_dataset


def in_steps(
    example: Callable[[tf.Tensor, tf.Tensor], Any],
    images: int,
    batch_size: int,
    seed: int,
    start_step: int,
    steps: int,
    *,
    parallel_calls: int | None,
    host: int,
    hosts: int,
) -> tf.data.Dataset:
    """Return this host's part of the batches of steps `start_step` up to, not including, `steps`.

    Args:
        example: makes an example from its epoch and image, int64 scalars, in a graph.
        images: size N of the data set.
        batch_size: images B of a step over all hosts.
        seed: decides the order.
        start_step: where to begin.
        steps: where the run ends, counted from its beginning.
        parallel_calls: examples made at the same time; None lets tf.data choose.
        host: number of this host.
        hosts: number of hosts.

    Raises:
        ValueError: as `order_dataset`.
    """
    order = order_dataset(start_step, steps, images=images, batch_size=batch_size, seed=seed, host=host, hosts=hosts)
    share = batch_size // hosts
    numbered = order.map(lambda epoch, indices: (tf.fill([share], epoch), indices)).unbatch()
    examples = numbered.map(example, num_parallel_calls=parallel_calls or tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(share, drop_remainder=True)


def finished(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return batches in exact order, two of them ahead, which TensorFlow does not share out to hosts once more."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1  # images are made side by side: more threads for one only wait
    # Hosts read their own slices already: TensorFlow must not share the batches out once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(2)
