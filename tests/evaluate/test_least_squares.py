"""Few-shot by least squares against scikit-learn and against its definition written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from lut_tf.evaluate import least_squares
from lut_tf.evaluate.least_squares import STRENGTHS, Ridge, few_shot_least_squares, moments


def clouds(seed: int, count: int, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Four overlapping classes, numbered with a gap, float32."""
    random = np.random.default_rng(seed)
    labels = np.tile([0, 1, 4, 7], count // 4).astype(np.int32)
    return (random.normal(size=(count, width)) + np.eye(8, width)[labels] * 2).astype(np.float32), labels


@pytest.mark.parametrize("images", [9, 40])  # fewer than features, and more
@pytest.mark.parametrize("strength", [1e-4, 0.1, 100.0])
def test_ridge_is_scikit_learns_and_the_normal_equations(images: int, strength: float) -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(images, 12)) * random.random(12) + 3, np.arange(images) % 3
    weights, offset = Ridge(features, labels, 3).solution(strength)
    reference = Reference(alpha=strength * images).fit(features, np.eye(3)[labels])
    np.testing.assert_allclose(weights, reference.coef_.T, atol=1e-9)
    np.testing.assert_allclose(offset, reference.intercept_, atol=1e-9)
    centred, target = features - features.mean(0), np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    solved = np.linalg.solve(centred.T @ centred + strength * images * np.eye(12), centred.T @ target)
    np.testing.assert_allclose(weights, solved, atol=1e-7)


@pytest.mark.parametrize("shots", [1, 3])
def test_few_shot_is_its_definition_written_out(shots: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(least_squares, "ROWS", 7)  # pieces of which the last is smaller
    (bank, bank_labels), (features, labels) = clouds(0, 60), clouds(1, 48)
    bank_labels[5], labels[3] = -1, -1  # whose class is not known
    scaled = [(x - bank.mean(0, dtype=float)) / bank.std(0, dtype=float) for x in (bank, features)]
    scores, accuracies = np.zeros((4, len(STRENGTHS))), np.zeros((4, len(STRENGTHS)))
    for draw in range(4):
        random = np.random.default_rng([9, shots, draw])
        drawn = [i for n in (0, 1, 4, 7) for i in random.choice(np.flatnonzero(bank_labels == n), shots, replace=False)]
        others = [i for i in range(60) if i not in drawn and bank_labels[i] >= 0]
        for i, strength in enumerate(STRENGTHS):
            model = Reference(alpha=strength * len(drawn))
            model.fit(scaled[0][drawn], np.eye(8)[bank_labels[drawn]])
            scores[draw, i] = np.mean(model.predict(scaled[0][others]).argmax(1) == bank_labels[others])
            accuracies[draw, i] = np.sum(model.predict(scaled[1]).argmax(1) == labels) / 47
    best = scores.mean(0).argmax()
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    found = few_shot_least_squares(mapped, bank_labels, features, labels, shots, draws=4, seed=9)
    assert found.strength == STRENGTHS[best]
    assert found.validation == pytest.approx(scores[:, best].mean())
    assert found.accuracies == pytest.approx(accuracies[:, best].tolist())


def test_moments_are_exact_where_the_mean_is_large_and_no_deviation_is_nought() -> None:
    random = np.random.default_rng(0)
    features = (random.normal(size=(20_000, 3)) + [0, 1000, -50]).astype(np.float32)
    features[:, 2] = 7
    mean, deviation = moments(features)
    np.testing.assert_allclose(mean, features.mean(0, dtype=float), rtol=1e-9)
    np.testing.assert_allclose(deviation, [*features[:, :2].std(0, dtype=float), 1.0], rtol=1e-6)
