"""A logistic-regression probe on frozen features: quick, deterministic, no rate to tune."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def logistic_accuracy(bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """Train a linear classifier on the standardised features of `bank` and return its accuracy on `features`.

    Args:
        bank: (N, D) features to learn from.
        bank_labels: (N,) their classes.
        features: (Q, D) features to classify.
        labels: (Q,) their classes.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(classifier.fit(bank, bank_labels).score(features, labels))
