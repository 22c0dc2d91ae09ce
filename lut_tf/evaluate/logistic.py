"""A logistic-regression probe on frozen features: quick, deterministic, no rate to tune."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

INVERSE_STRENGTHS = tuple(10.0**power for power in range(-4, 4))
"""Of the regularisation, scikit-learn's C, on standardised features: what is chosen from."""


def logistic_accuracy(bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """Train a linear classifier on the standardised features of `bank` and return its accuracy on `features`.

    Args:
        bank: (N, D) features to learn from.
        bank_labels: (N,) their classes.
        features: (Q, D) features to classify.
        labels: (Q,) their classes.
    """
    return float(np.mean(logistic_fit(bank, bank_labels).predict(features) == labels))


def logistic_fit(bank: np.ndarray, labels: np.ndarray, inverse_strength: float = 1.0) -> Any:
    """Return scikit-learn's logistic regression, fitted to standardised features.

    Args:
        bank: (N, D) features.
        labels: (N,) their classes, of two or more kinds.
        inverse_strength: of the regularisation.
    """
    solver = LogisticRegression(C=inverse_strength, max_iter=2000)
    return make_pipeline(StandardScaler(), solver).fit(bank, labels)


def choose_strength(
    bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> dict[float, float]:
    """Return the accuracy on `features` for each of `INVERSE_STRENGTHS`; arguments as in `logistic_accuracy`."""
    fits = {c: logistic_fit(bank, bank_labels, c) for c in INVERSE_STRENGTHS}
    return {c: float(np.mean(fit.predict(features) == labels)) for c, fit in fits.items()}
