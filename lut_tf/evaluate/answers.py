"""What a classifier answers when it is shown images, and how sure it is; classes may be left out of the question."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.data.batches.evaluation import evaluation_dataset
from lut_tf.data.reading.damaged import raise_damage
from lut_tf.data.reading.sources import Chosen, Source, name_of
from lut_tf.errors import Stopped
from lut_tf.evaluate.classification import TOP
from lut_tf.evaluate.progress import line
from lut_tf.models.classifier import ViTClassifier
from lut_tf.models.preprocess import normalise

BATCH = 100
Numbers = NDArray[np.int64]


class NonFiniteLogits(Stopped):
    """An image whose logits are no finite numbers: nothing can be said of it."""


class Answers(NamedTuple):
    """A classifier's answers to N images.

    Attributes:
        best: (N, K) the K ≤ 5 likeliest classes of those asked about, the likeliest first.
        probability: (N, K) float32, theirs by the softmax over the classes asked about.
        readable: (N,) whether the image could be read; where not, another was shown in its place.
    """

    best: Numbers
    probability: NDArray[np.float32]
    readable: NDArray[np.bool_]


@lru_cache(maxsize=2)  # several sets are asked about in turn
def logits_of(classifier: ViTClassifier) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a compiled function from images uint8 (B, H, W, 3) to the classifier's logits (B, classes) float32."""
    how = classifier.preprocessing
    images = tf.TensorSpec((None, *classifier.image_size, 3), tf.uint8)
    return tf.function(lambda x: classifier(normalise(x, how), training=False), input_signature=[images])


def likeliest(logits: NDArray[np.float32], among: Numbers | None = None) -> tuple[Numbers, NDArray[np.float32]]:
    """Return the likeliest classes (N, K) and their probabilities (N, K), K ≤ 5; of equal ones the first comes first.

    Args:
        logits: (N, C), finite.
        among: the classes that alone are asked about, rising; None: all.
    """
    asked = logits if among is None else logits[:, among]
    order = np.argsort(-asked, axis=1, kind="stable")[:, :TOP]
    grown = np.exp(asked - asked.max(axis=1, keepdims=True))
    shares = np.take_along_axis(grown, order, axis=1) / grown.sum(axis=1, keepdims=True)
    return (order if among is None else among[order]), shares


def answers(
    classifier: ViTClassifier, source: Source, indices: Numbers, among: Numbers | None = None, what: str = "images"
) -> Answers:
    """Show a classifier images, batch by batch: of each its answer stays, not its logits.

    Args:
        classifier: in inference mode.
        source: the images.
        indices: (N,) which of them.
        among: the classes that alone are asked about, rising; None: all.
        what: they are, for the line of progress.

    Raises:
        NonFiniteLogits: an image's logits hold NaN or infinity.
        lut_tf.errors.Stopped: too many of the images are damaged.
    """
    count = min(TOP, classifier.classes if among is None else len(among))
    best = np.empty((len(indices), count), np.int64)
    probability = np.empty((len(indices), count), np.float32)
    forward, done = logits_of(classifier), 0
    batches = evaluation_dataset(source, indices, classifier.image_size, BATCH, classifier.preprocessing)
    with line(what, len(indices)) as shown:
        try:
            for images, _ in batches:
                logits, rows = forward(images).numpy(), slice(done, done + len(images))
                if not (finite := np.isfinite(logits).all(axis=1)).all():
                    raise NonFiniteLogits(_not_finite(source, int(indices[done + int(np.argmin(finite))])))
                best[rows], probability[rows] = likeliest(logits, among)
                done += len(images)
                shown.at(done)
        except tf.errors.OpError:
            raise_damage([source])
            raise
    return Answers(best, probability, ~np.isin(indices, _damaged(source)))


def _not_finite(source: Source, index: int) -> str:
    return f"the logits of {name_of(source, index)} are not finite: leave the image out, or give another classifier"


def _damaged(source: Source) -> list[int]:
    """Return the numbers of the source's images that were found to give none."""
    damage = getattr(source, "damage", None)
    faults = [] if damage is None else list(damage.faults)
    return np.flatnonzero(np.isin(source.indices, faults)).tolist() if isinstance(source, Chosen) else faults
