"""Batches of pre-training: order, reading, views, colour decisions and masking noise put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.config import Count, ViewsConfig, check_value, validate
from lut_tf.data.batches.order import steps_per_epoch
from lut_tf.data.batches.pipeline import finished, in_steps
from lut_tf.data.reading.sources import ArraySource, Source
from lut_tf.data.views.crops import training_views
from lut_tf.data.views.draws import draw, split
from lut_tf.models.colour import colour_decisions


def pretraining_dataset(
    source: Source,
    *,
    batch_size: int,
    image_size: int | tuple[int, int],
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
        image_size: side of a square view in pixels, or (height, width).
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
        dicts: `view1` uint8 (B, H, W, 3), `geometry1` float32 (B, 5) (see `View`), `noise` float32 (B, M) uniform in
        [0, 1), `index` int64 (B,); with two views also `view2`, `geometry2`, and `colour` (B, 11), see `Colour`.

    Raises:
        ValueError: a setting is out of range.
    """
    validate(views, "views")
    views.check_size(image_size, "views")
    if view_count not in (1, 2):
        raise ValueError(f"view_count: {view_count} must be 1 or 2")

    def example(epoch: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
        draws = draw(seed, epoch, index, noise_length)
        result = {"index": index, "draws": draws}
        cut = training_views(source.image(index), split(draws).views, image_size, views, view_count)
        for number, view in enumerate(cut, 1):
            result |= {f"view{number}": view.image, f"geometry{number}": view.geometry}
        return result

    def finish(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        draws = split(batch.pop("draws"))
        batch["noise"] = draws.rest
        if view_count == 2:
            batch["colour"] = colour_decisions(draws.colour, views, tf.experimental.numpy)
        return batch

    batches = in_steps(
        example, len(source), batch_size, seed, start_step, steps, parallel_calls=parallel_calls, host=host, hosts=hosts
    )
    return finished(batches.map(finish))


def batches_for(
    model: Any,
    images: Source | NDArray[np.uint8],
    batch_size: int,
    *,
    epochs: int = 1,
    views: ViewsConfig | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Return what `model.fit` learns from, for a script of one's own: `pretraining_dataset` with the model's sizes.

    The batches of all epochs, each with its own views: `model.fit(batches, epochs=E, steps_per_epoch=N // B)` shows
    them epoch by epoch, `model.fit(batches)` in one go.

    Args:
        model: a method, such as `LUT`.
        images: a source, or an array (N, H, W, 3) uint8.
        batch_size: images B of a step.
        epochs: how often the images are gone through.
        views: crops and colours; None: the paper's.
        seed: 0 … 2^31 - 1; decides order, crops, colours and noise.

    Returns:
        as `pretraining_dataset`.

    Raises:
        ValueError: a setting is out of range.
    """
    source: Source = ArraySource(images) if isinstance(images, np.ndarray) else images
    check_value("epochs", epochs, Count)
    return pretraining_dataset(
        source,
        batch_size=batch_size,
        image_size=model.encoder.image_size,
        views=views or ViewsConfig(),
        seed=seed,
        steps=epochs * steps_per_epoch(len(source), batch_size),
        noise_length=model.noise_length,
        view_count=model.view_count,
    )
