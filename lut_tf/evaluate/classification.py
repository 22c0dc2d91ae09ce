"""How often guesses of images' classes are right, and which classes are mistaken for which (NumPy alone)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TOP = 5
Guesses = NDArray[np.integer[Any]]
"""The classes that each image most likely has, (N, K), the likeliest first."""


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


def class_rows(guessed: NDArray[np.integer[Any]], labels: NDArray[np.int32], names: Sequence[str]) -> list[ClassRow]:
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


def confusions(guessed: NDArray[np.integer[Any]], labels: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """Return (class, class that it was taken for, how often), the most frequent first."""
    wrong = guessed != labels
    pairs, times = np.unique(np.stack([labels[wrong], guessed[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return [(int(pairs[0, i]), int(pairs[1, i]), int(times[i])) for i in order]
