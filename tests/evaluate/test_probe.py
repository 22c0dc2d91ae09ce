"""k-NN, the logistic probe and frozen features, against brute force. Guards `lut_tf.evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import tiny_encoder

from lut_tf.config import ProbeConfig
from lut_tf.data.reading.sources import ArraySource, Source
from lut_tf.evaluate import knn
from lut_tf.evaluate.features import encoder_features, raw_pixels, sample
from lut_tf.evaluate.knn import knn_accuracy
from lut_tf.evaluate.logistic import logistic_accuracy
from lut_tf.evaluate.probe import measure, pixel_probe, table
from lut_tf.models.preprocess import normalise


@pytest.mark.parametrize("neighbours", [1, 5, 20, 200])
def test_knn_is_the_weighted_vote_written_out(neighbours: int) -> None:
    random = np.random.default_rng(neighbours)
    bank, queries = random.normal(size=(60, 6)), random.normal(size=(40, 6))
    bank_labels, labels = random.integers(0, 4, 60), random.integers(0, 4, 40)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    right = 0
    for query, label in zip(unit[1], labels, strict=True):
        similarity = unit[0] @ query
        nearest = np.argsort(-similarity)[:neighbours]
        votes = np.bincount(bank_labels[nearest], np.exp(similarity[nearest] / 0.07), minlength=4)
        right += votes.argmax() == label
    assert knn_accuracy(bank, bank_labels, queries, labels, neighbours) == right / 40


def test_the_logistic_probe_separates_what_a_line_separates_and_nothing_more() -> None:
    random = np.random.default_rng(0)
    points, labels = random.normal(size=(400, 2)), np.tile([0, 1], 200)
    apart = points * [1.0, 1e-3] + np.stack([np.zeros(400), labels * 0.02], axis=1)  # a small channel decides
    assert logistic_accuracy(apart[:200], labels[:200], apart[200:], labels[200:]) == 1.0
    assert logistic_accuracy(points[:200], labels[:200], points[200:], labels[200:]) < 0.65


def test_features_are_the_encoders_for_each_image_in_order() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)
    source, encoder, indices = ArraySource(images), tiny_encoder(image_size=8), np.array([129, 3, 3, 77])
    expected = encoder.features(normalise(images[indices]), "mean")
    np.testing.assert_allclose(encoder_features(encoder)(source, indices), expected, atol=1e-5)
    np.testing.assert_allclose(raw_pixels(8)(source, indices), images[indices].reshape(4, -1) / 255, atol=1e-6)
    assert encoder_features(encoder)(source, np.arange(130)).shape == (130, 16)


def test_a_sample_spans_the_whole_source() -> None:
    assert sample(np.zeros(10, int), 20).tolist() == list(range(10))
    assert sample(np.zeros(100, int), 3).tolist() == [0, 49, 99]
    assert sample(np.array([-1, 2, -1, 0, 1]), 9).tolist() == [1, 3, 4]  # unknown labels are no class


def test_a_probe_asks_no_more_images_than_it_may() -> None:
    """Bounds on the bank and on the queries, images without a label left out; too many pixels are not probed."""
    labels = np.tile(np.arange(4, dtype=np.int32), 30)
    labels[::10] = -1
    source, seen = ArraySource(np.zeros((120, 8, 8, 3), np.uint8), labels), []

    def features(of: Source, indices: np.ndarray) -> np.ndarray:
        seen.append(indices)
        return np.random.default_rng(0).normal(size=(len(indices), 3))

    figures = measure(features, source, source, ProbeConfig(images=50, queries=20, neighbours=5))
    assert [len(indices) for indices in seen] == [50, 20]
    assert all((labels[indices] >= 0).all() for indices in seen)
    assert set(figures) == {"knn", "linear"}
    assert pixel_probe(33, source, source, ProbeConfig()) is None


def test_the_table_names_rows_and_figures() -> None:
    old, new = {"knn": 0.5, "linear": 0.25}, {"knn": 0.75, "linear": 1.0, "1_shot": 0.125, "5_shot": 0.375}
    lines = table({"raw pixels": old, "trained encoder": new}, "accuracy on 4 images").splitlines()
    assert lines[0].split() == ["accuracy", "on", "4", "images", "1", "label", "5", "labels", "k-NN", "linear"]
    assert lines[1].split() == ["raw", "pixels", "–", "–", "0.500", "0.250"]  # of a run that an earlier version began
    assert lines[2].split() == ["trained", "encoder", "0.125", "0.375", "0.750", "1.000"]
    assert len({len(line) for line in lines}) == 1
    assert "label" not in table({"raw pixels": old}, "accuracy")


def test_knn_in_tiles_is_knn_and_leaves_out_what_has_no_label(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    bank, queries = (random.normal(size=(count, 5)).astype(np.float32) for count in (61, 23))
    bank_labels, labels = random.integers(-1, 4, 61), random.integers(-1, 4, 23)
    known = bank_labels >= 0
    similarity = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (bank / np.linalg.norm(bank, axis=1)[:, None]).T
    expected = dict.fromkeys((1, 3, 20), 0)
    for row, label in zip(similarity[:, known], labels, strict=True):
        for k in expected:
            nearest = np.argsort(-row)[:k]
            votes = np.bincount(bank_labels[known][nearest], np.exp(row[nearest] / 0.5), minlength=4)
            expected[k] += votes.argmax() == label
    monkeypatch.setattr(knn, "BANK_ROWS", 7)
    monkeypatch.setattr(knn, "QUERY_ROWS", 5)
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    assert knn.knn_correct(mapped, bank_labels, queries, labels, (1, 3, 20), temperature=0.5) == expected
