"""Classification from a few labelled images a class, by least squares in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lut_tf.evaluate.features import sample

STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Of the regularisation, for each labelled image, on standardised features: what is chosen from."""
VALIDATION = 10_000
"""At most so many training images decide the choice."""
ROWS = 8192


class FewShot(NamedTuple):
    """What so many labelled images a class are worth.

    Attributes:
        accuracies: on the evaluation images, one of each draw.
        strength: of the regularisation that was chosen, one of `STRENGTHS`.
        validation: the mean accuracy of the draws by which it was chosen.
    """

    accuracies: list[float]
    strength: float
    validation: float


class Ridge:
    """Least squares from standardised features to the classes' indicators, for any strength of regularisation.

    Minimises, over weights W and an offset b that is not regularised, Σ‖x W + b − y‖² + strength · n · ‖W‖², y being 1
    at the image's class and 0 elsewhere. One eigendecomposition serves every strength.

    Args:
        features: (n, D).
        labels: (n,) class numbers from 0.
        classes: number of classes C.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
        features, indicators = np.asarray(features, np.float64), np.eye(classes)[labels]
        self._mean, self._target = features.mean(axis=0), indicators.mean(axis=0)
        centred, indicators = features - self._mean, indicators - self._target
        self._images = len(features)
        # The smaller of both Gram matrices has all eigenvalues that are not zero.
        if len(features) <= features.shape[1]:
            self._values, vectors = np.linalg.eigh(centred @ centred.T)
            self._basis, self._products = centred.T @ vectors, vectors.T @ indicators
        else:
            self._values, self._basis = np.linalg.eigh(centred.T @ centred)
            self._products = self._basis.T @ (centred.T @ indicators)

    def solution(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (D, C) and the offset (C,)."""
        weights = self._basis @ (self._products / (np.maximum(self._values, 0)[:, None] + strength * self._images))
        return weights, self._target - self._mean @ weights


def few_shot_least_squares(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    shots: int,
    draws: int = 10,
    seed: int = 0,
) -> FewShot:
    """Return what a linear classifier of few labelled images a class is worth, over several draws of these.

    Features are standardised by the mean and deviation of the whole bank, which needs no labels. The regularisation is
    the strength of `STRENGTHS` that is best for the mean of all draws on images of the bank that are not among the
    drawn, at most `VALIDATION` of them, evenly spaced; the evaluation images decide nothing.

    Args:
        bank: (N, D) features of the training images; may be mapped from a file.
        bank_labels: (N,) their classes, -1 where not known; each has `shots` images or more, and some are left over.
        features: (Q, D) features of the evaluation images; may be mapped from a file.
        labels: (Q,) their classes, -1 where not known: these are not counted.
        shots: labelled images a class.
        draws: how many times they are drawn, without replacement.
        seed: decides the draws; they do not depend on the features.
    """
    known, (mean, deviation) = np.unique(bank_labels[bank_labels >= 0]), moments(bank)
    members = [np.flatnonzero(bank_labels == number) for number in known]
    fits, scores = [], np.zeros(len(STRENGTHS))
    for draw in range(draws):
        random = np.random.default_rng([seed, shots, draw])
        drawn = np.sort(np.concatenate([random.choice(of_class, shots, replace=False) for of_class in members]))
        chosen = (bank[drawn] - mean) / deviation
        fits.append(Ridge(chosen, np.searchsorted(known, bank_labels[drawn]), len(known)))
        others = bank_labels.copy()
        others[drawn] = -1
        asked = sample(others, VALIDATION)
        held = (bank[asked] - mean) / deviation
        for i, strength in enumerate(STRENGTHS):
            weights, offset = fits[-1].solution(strength)
            scores[i] += np.mean(known[(held @ weights + offset).argmax(axis=1)] == bank_labels[asked]) / draws
    best = int(scores.argmax())
    accuracies = []
    for fit in fits:
        weights, offset = fit.solution(STRENGTHS[best])
        scaled = weights / deviation[:, None]
        accuracies.append(_accuracy(features, labels, known, scaled, offset - mean @ scaled))
    return FewShot(accuracies, STRENGTHS[best], float(scores[best]))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation (D,) of features (N, D), float64, reading them once, in pieces; no deviation is 0."""
    shift = np.mean(
        features[:ROWS], axis=0, dtype=np.float64
    )  # differences from about the mean: squares of large numbers would lose digits
    total, squares = np.zeros_like(shift), np.zeros_like(shift)
    for start in range(0, len(features), ROWS):
        piece = features[start : start + ROWS] - shift
        total += piece.sum(axis=0)
        squares += np.square(piece).sum(axis=0)
    mean = total / len(features)
    deviation = np.sqrt(np.maximum(squares / len(features) - mean**2, 0))
    return shift + mean, np.where(deviation > 1e-6, deviation, 1.0)


def _accuracy(
    features: np.ndarray, labels: np.ndarray, known: np.ndarray, weights: np.ndarray, offset: np.ndarray
) -> float:
    right = 0
    for start in range(0, len(labels), ROWS):
        scores = features[start : start + ROWS] @ weights + offset
        right += int(np.sum(known[scores.argmax(axis=1)] == labels[start : start + ROWS]))
    return right / int(np.sum(labels >= 0))
