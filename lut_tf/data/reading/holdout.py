"""Which training images are held out to measure on: so many of every class as its share is, and always the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def held_number(images: int, share: float) -> int:
    """Return how many of so many images are held out: the nearest whole number, which needs no labels to be known.

    Raises:
        ValueError: none is, or all are.
    """
    number = int(images * share + 0.5)
    if not 0 < number < images:
        what = "none of" if not number else "all"
        remedy = "give a larger share, or leave it out" if not number else "give a smaller share"
        raise ValueError(f"data.holdout={share:g} holds out {what} the {images} training images: {remedy}")
    return number


def held_out(labels: NDArray[np.int32], share: float) -> NDArray[np.bool_]:
    """Choose the images to hold out: of every class its share of them, by the method of the largest remainders.

    A class keeps at least one image to train on, so one of a single image is not held out; nor is an image whose class
    is not known. Which images they are follows from the labels alone, for ever (numpy's frozen `RandomState(0)`).

    Args:
        labels: class numbers (N,), -1 where an image's is not known.
        share: of the images, above 0 and below 1.

    Returns:
        whether each image (N,) is held out; so many are as `held_number` says.

    Raises:
        ValueError: as `held_number`; there are not two classes to tell apart, or they are too small for the share.
    """
    wanted, random = held_number(len(labels), share), np.random.RandomState(0)
    members = _by_class(labels)
    if len(members) < 2:
        raise ValueError(
            f"data.holdout={share:g} is for images of several classes, but those of the training images are of "
            f"{len(members) or 'no'} class: leave data.holdout out"
        )
    counts = np.array([len(numbers) for numbers in members])
    most = counts - 1
    if most.sum() < wanted:
        largest = int(most.sum() / len(labels) * 1000) / 1000
        raise ValueError(
            f"data.holdout={share:g} asks for {wanted} of {len(labels)} images, but each of {len(members)} classes "
            f"keeps one to train on: {f'give {largest} or less' if largest else 'leave data.holdout out'}"
        )
    taken: NDArray[Any] = np.minimum(np.floor(share * counts).astype(int), most)
    order = random.permutation(len(members))  # of equal remainders, chance decides, not the alphabet
    order = order[np.argsort(-(share * counts - taken)[order], kind="stable")]
    while missing := wanted - int(taken.sum()):
        taken[order[taken[order] < most[order]][:missing]] += 1
    held = np.zeros(len(labels), bool)
    for numbers, count in zip(members, taken, strict=True):
        held[random.permutation(numbers)[:count]] = True
    return held


def _by_class(labels: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Return the numbers of the images of each class that has any, in order."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
