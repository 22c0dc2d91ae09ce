"""What the linear layers of a probe say of images that are not changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.data.batches.evaluation import evaluation_dataset
from lut_tf.data.reading.sources import Source, labelled
from lut_tf.evaluate.answers import BATCH
from lut_tf.evaluate.classification import TOP, Guesses
from lut_tf.evaluate.progress import line
from lut_tf.methods.linear_probe import LinearProbe


def known_labels(source: Source) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the numbers of the images whose class is known (N,), and these classes (N,)."""
    known = labelled(source)
    return known, np.zeros(0, np.int32) if source.labels is None else source.labels[known]


def head_guesses(model: LinearProbe, source: Source, heads: Sequence[str], what: str = "") -> dict[str, Guesses]:
    """Return each linear layer's likeliest classes (N, K) of the N images whose class is known, K at most `TOP`.

    Args:
        model: in inference mode; the encoder sees each image once.
        source: the images.
        heads: names of the linear layers that are asked, and no others.
        what: is asked, in words, for a line on the terminal; empty: none.
    """
    known, _ = known_labels(source)
    forward, found = _forward(model, tuple(heads)), np.empty((len(heads), len(known), _most(model)), np.int64)
    encoder, start = model.frozen.encoder, 0
    with line(what, len(known) if what else 0) as shown:
        for images, _ in evaluation_dataset(source, known, encoder.image_size, BATCH, encoder.preprocessing):
            found[:, start : start + len(images)] = forward(images).numpy()
            start += len(images)
            if what:
                shown.at(start)
    return dict(zip(heads, found, strict=True))


def _most(model: LinearProbe) -> int:
    return min(TOP, model.classes)


@lru_cache(maxsize=2)  # a measure every epoch must not trace the encoder anew
def _forward(model: LinearProbe, heads: tuple[str, ...]) -> Callable[[tf.Tensor], tf.Tensor]:
    images = tf.TensorSpec((None, *model.frozen.encoder.image_size, 3), tf.uint8)

    def forward(batch: tf.Tensor) -> tf.Tensor:
        logits = model.logits(model.frozen.features(batch), heads)
        return tf.stack([tf.math.top_k(logits[head], _most(model)).indices for head in heads])

    return tf.function(forward, input_signature=[images])
