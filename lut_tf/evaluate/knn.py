"""k-nearest-neighbour classification on frozen features."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

TEMPERATURE = 0.07


def knn_accuracy(
    bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, labels: np.ndarray, neighbours: int = 20
) -> float:
    """Return the share of images whose neighbours vote for the right class.

    Cosine similarity; each neighbour votes with weight exp(similarity/0.07) (as DINO and MoCo report it).

    Args:
        bank: (N, D) features that vote.
        bank_labels: (N,) their classes.
        features: (Q, D) features to classify.
        labels: (Q,) their classes.
        neighbours: k, at most N of which vote.
    """
    votes = KNeighborsClassifier(
        n_neighbors=min(neighbours, len(bank)),
        metric="cosine",
        weights=lambda distances: np.exp((1.0 - distances) / TEMPERATURE),
    )
    return float(votes.fit(bank, bank_labels).score(features, labels))
