"""Batches: order, reading, views and noise put together as a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.config import ViewsConfig
from lut_tf.data.batches.order import order_dataset
from lut_tf.data.reading.sources import Source
from lut_tf.data.views.crops import DRAWS, check_views, colour_decisions, draw, evaluation_view, training_views


def pretraining_dataset(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    views: ViewsConfig,
    seed: int,
    steps: int,
    noise_length: int,
    start_step: int = 0,
    view_count: int = 2,
    parallel_calls: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> tf.data.Dataset:
    """Return the batches of steps `start_step` up to, not including, `steps`: a pure function of the arguments.

    Args:
        source: the images, N of them.
        batch_size: images B of a step over all hosts; this host yields B / hosts of them.
        image_size: side S of a view.
        views: crops and colours.
        seed: 0 … 2^31 - 1; decides order, crops, colours and noise.
        steps: where the run ends, counted from its beginning.
        noise_length: numbers M of masking noise for an image.
        start_step: where to begin.
        view_count: 1 or 2.
        parallel_calls: images made at the same time; None lets tf.data choose. Does not change the batches.
        host: number of this host.
        hosts: number of hosts.

    Returns:
        dicts: `view1` uint8 (B, S, S, 3), `geometry1` float32 (B, 5) (see `View`), `noise` float32 (B, M) uniform in
        [0, 1), `index` int64 (B,); with two views also `view2`, `geometry2`, and `colour` (B, 11), see `Colour`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_views(views, image_size)
    if view_count not in (1, 2):
        raise ValueError(f"view_count: {view_count} must be 1 or 2")
    share = batch_size // hosts

    def example(epoch: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        draws = draw(seed, epoch, index, noise_length)
        result = {"index": index, "draws": draws}
        for number, view in enumerate(training_views(source.image(index), draws, image_size, views, view_count), 1):
            result |= {f"view{number}": view.image, f"geometry{number}": view.geometry}
        return result

    def finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        draws = batch.pop("draws")
        batch["noise"] = draws[:, DRAWS:]
        if view_count == 2:
            batch["colour"] = colour_decisions(draws, views)
        return batch

    order = order_dataset(
        start_step, steps, images=len(source), batch_size=batch_size, seed=seed, host=host, hosts=hosts
    )
    examples = order.map(lambda epoch, indices: (tf.fill([share], epoch), indices)).unbatch()
    examples = examples.map(example, num_parallel_calls=parallel_calls or tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(share, drop_remainder=True).map(finish)
    return batches.with_options(pipeline_options()).prefetch(2)


def evaluation_dataset(
    source: Source, indices: Sequence[int] | NDArray[np.int64], image_size: int, batch_size: int
) -> tf.data.Dataset:
    """Return the fixed views of chosen images, in the given order, each once.

    Args:
        source: the images.
        indices: which of them.
        image_size: side S of a view.
        batch_size: images B of a batch; the last one may be smaller.

    Returns:
        pairs of uint8 (B, S, S, 3), see `evaluation_view`, and int32 labels (B,), -1 where the source has none.
    """
    order = np.asarray(indices, np.int64)
    labels = np.full(len(order), -1, np.int32) if source.labels is None else source.labels[order]
    examples = tf.data.Dataset.from_tensor_slices((order, labels)).map(
        lambda index, label: (evaluation_view(source.image(index), image_size), label),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return examples.batch(batch_size).with_options(pipeline_options()).prefetch(2)


def pipeline_options() -> tf.data.Options:
    """Return what all pipelines share: exact order, and no second dealing out to hosts."""
    options = tf.data.Options()
    options.deterministic = True
    options.threading.max_intra_op_parallelism = 1  # images are made side by side: more threads for one only wait
    # Hosts read their own slices already: TensorFlow must not deal the batches out once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
