"""Classification from a few labelled images a class: where pre-training shows."""

from __future__ import annotations

import numpy as np

DRAWS = 50
"""Samples of labelled images that an accuracy is the mean of: one image a class is a matter of luck."""


def few_shot_accuracy(
    bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, labels: np.ndarray, shots: int, seed: int = 0
) -> float | None:
    """Return the share of images that lie nearest to their own class' mean of `shots` labelled images.

    The nearest-mean classifier on unit vectors, by cosine, averaged over `DRAWS` draws; nothing is trained or tuned.

    Args:
        bank: (N, D) features that the labelled images are drawn from, without replacement.
        bank_labels: (N,) their classes.
        features: (Q, D) features to classify.
        labels: (Q,) their classes.
        shots: labelled images a class.
        seed: decides the draws.

    Returns:
        the mean accuracy; None where a class of the bank has fewer images than `shots`.
    """
    classes = np.unique(bank_labels)
    members = [np.flatnonzero(bank_labels == number) for number in classes]
    if min(map(len, members)) < shots:
        return None
    random, known, asked = np.random.default_rng(seed), _unit(bank), _unit(features)
    accuracies = []
    for _ in range(DRAWS):
        drawn = np.stack([random.choice(of_class, shots, replace=False) for of_class in members])
        nearest = (asked @ _unit(known[drawn].mean(axis=1)).T).argmax(axis=1)
        accuracies.append(np.mean(classes[nearest] == labels))
    return float(np.mean(accuracies))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
