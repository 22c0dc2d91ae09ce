"""Batches to measure encoders on: fixed views of chosen images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.data.batches.pipeline import finished
from lut_tf.data.reading.sources import Source
from lut_tf.data.views.crops import evaluation_view
from lut_tf.models.preprocess import IMAGENET, Preprocessing


def evaluation_dataset(
    source: Source,
    indices: Sequence[int] | NDArray[np.int64],
    image_size: int | tuple[int, int],
    batch_size: int,
    preprocessing: Preprocessing = IMAGENET,
) -> tf.data.Dataset:
    """Return the fixed views of chosen images, in the given order, each once.

    Args:
        source: the images.
        indices: which of them.
        image_size: side of a square view in pixels, or (height, width).
        batch_size: images B of a batch; the last one may be smaller.
        preprocessing: the encoder's; it says how the images are resized and what is cut out.

    Returns:
        pairs of uint8 (B, H, W, 3), see `evaluation_view`, and int32 labels (B,), -1 where the source has none.
    """
    order = np.asarray(indices, np.int64)
    labels = np.full(len(order), -1, np.int32) if source.labels is None else source.labels[order]
    examples = tf.data.Dataset.from_tensor_slices((order, labels)).map(
        lambda index, label: (evaluation_view(source.image(index), image_size, preprocessing), label),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return finished(examples.batch(batch_size))
