"""What a classifier says of images, and how often it is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.data.batches.evaluation import evaluation_dataset
from lut_tf.data.reading.sources import Source
from lut_tf.models.classifier import ViTClassifier
from lut_tf.models.preprocess import normalise

BATCH, TOP = 100, 5
Guesses = NDArray[np.int32]
"""The classes that each image most likely has, (N, K), the likeliest first."""


@lru_cache(maxsize=2)  # a measure every epoch must not trace the classifier anew
def guesses_of(classifier: ViTClassifier, most: int = TOP) -> Callable[[Source, NDArray[np.int64]], Guesses]:
    """Return a function from a source and (N,) indices to the `most` likeliest classes of each image.

    Images go through in batches, and of a batch's logits only the classes' numbers are kept: 4 · `most` bytes an image.

    Args:
        classifier: in inference mode.
        most: classes an image K; at most those there are.
    """
    how, count = classifier.preprocessing, min(most, classifier.classes)
    images = tf.TensorSpec((None, *classifier.image_size, 3), tf.uint8)

    def forward(batch: tf.Tensor) -> tf.Tensor:
        return tf.math.top_k(classifier(normalise(batch, how), training=False), count).indices

    compiled = tf.function(forward, input_signature=[images])

    def guess(source: Source, indices: NDArray[np.int64]) -> Guesses:
        found = np.empty((len(indices), count), np.int32)
        start = 0
        for batch, _ in evaluation_dataset(source, indices, classifier.image_size, BATCH, how):
            found[start : start + len(batch)] = compiled(batch).numpy()
            start += len(batch)
        return found

    return guess


class Tally(NamedTuple):
    """How often guesses are right.

    Attributes:
        images: how many there are.
        right: by `top1`, and `top5` where there are more classes than five, how many have their class among the first
            so many guesses.
    """

    images: int
    right: dict[str, int]

    @property
    def shares(self) -> dict[str, float]:
        """The accuracies, 0 to 1."""
        return {name: count / self.images for name, count in self.right.items()}


def tally(guesses: Guesses, labels: NDArray[np.int32], classes: int) -> Tally:
    """Count what is right.

    Args:
        guesses: (N, K).
        labels: (N,) the images' classes.
        classes: how many there are.
    """
    hits = guesses == labels[:, np.newaxis]
    right = {"top1": int(hits[:, 0].sum())}
    if classes > TOP <= guesses.shape[1]:
        right["top5"] = int(hits[:, :TOP].any(axis=1).sum())
    return Tally(len(labels), right)


class ClassRow(NamedTuple):
    """How a class fares.

    Attributes:
        name: of the class.
        images: how many there are of it.
        right: how many are taken for it.
        taken_for: the class that the others are most often taken for; empty where all are right.
        times: how often.
    """

    name: str
    images: int
    right: int
    taken_for: str
    times: int

    @property
    def accuracy(self) -> float:
        """Share of the class' images that are right; not a number where there are none."""
        return self.right / self.images if self.images else float("nan")


def class_rows(guessed: NDArray[np.int32], labels: NDArray[np.int32], names: Sequence[str]) -> list[ClassRow]:
    """Return a row for each class; no matrix of classes by classes is made.

    Args:
        guessed: (N,) the likeliest class of each image.
        labels: (N,) its class.
        names: of all classes.
    """
    images = np.bincount(labels, minlength=len(names))
    right = np.bincount(labels[guessed == labels], minlength=len(names))
    rows = [ClassRow(name, int(images[i]), int(right[i]), "", 0) for i, name in enumerate(names)]
    for truth, other, times in reversed(confusions(guessed, labels)):  # the most frequent of a class comes last
        rows[truth] = rows[truth]._replace(taken_for=names[other], times=times)
    return rows


def confusions(guessed: NDArray[np.int32], labels: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """Return (class, class that it was taken for, how often), the most frequent first."""
    wrong = guessed != labels
    pairs, times = np.unique(np.stack([labels[wrong], guessed[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return [(int(pairs[0, i]), int(pairs[1, i]), int(times[i])) for i in order]
