"""The few-shot figure against its definition written out. Guards `lut_tf.evaluate.few_shot`."""

from __future__ import annotations

import numpy as np
import pytest

from lut_tf.evaluate.few_shot import DRAWS, few_shot_accuracy


def clouds(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Four overlapping classes, numbered with a gap."""
    random = np.random.default_rng(seed)
    labels = np.tile([0, 1, 4, 7], count // 4)
    return random.normal(size=(count, 5)) + np.eye(8, 5)[labels] * 2, labels


@pytest.mark.parametrize("shots", [1, 5])
def test_it_is_the_nearest_mean_of_the_drawn_images(shots: int) -> None:
    (bank, bank_labels), (features, labels) = clouds(0, 80), clouds(1, 60)
    random, right = np.random.default_rng(0), 0
    for _ in range(DRAWS):
        means = {}
        for number in (0, 1, 4, 7):
            drawn = random.choice(np.flatnonzero(bank_labels == number), shots, replace=False)
            assert len(set(drawn)) == shots
            means[number] = sum(bank[i] / np.linalg.norm(bank[i]) for i in drawn)
        for vector, label in zip(features, labels, strict=True):
            likeness = {n: vector @ mean / np.linalg.norm(mean) for n, mean in means.items()}
            right += max(likeness, key=lambda n: likeness[n]) == label
    assert few_shot_accuracy(bank, bank_labels, features, labels, shots) == pytest.approx(right / DRAWS / 60, abs=1e-12)


def test_more_labels_help_and_too_few_give_no_figure() -> None:
    data = (*clouds(2, 80), *clouds(3, 200))
    one, five = (few_shot_accuracy(*data, shots=shots) for shots in (1, 5))
    assert one is not None and five is not None
    assert 0.25 < one < five < 1
    assert few_shot_accuracy(*data, shots=21) is None
