"""The first measure of an encoder's worth: k-NN and logistic regression on images that training never saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lut_tf.data.reading.sources import Source
from lut_tf.evaluate.features import encoder_features, raw_pixels, sample
from lut_tf.evaluate.knn import knn_accuracy
from lut_tf.evaluate.logistic import logistic_accuracy
from lut_tf.models.encoder import ViTEncoder
from lut_tf.writing import write_text

Features = Callable[[Source, np.ndarray], np.ndarray]


def measure(features: Features, bank: Source, queries: Source, neighbours: int, images: int) -> dict[str, float]:
    """Return the accuracies `knn` and `linear` of some features.

    Args:
        features: maps a labelled source and (N,) indices to (N, D) features.
        bank: labelled images to learn from.
        queries: labelled images to classify.
        neighbours: of k-NN.
        images: at most this many of the bank are used, evenly spaced.
    """
    assert bank.labels is not None and queries.labels is not None
    chosen, asked = sample(len(bank), images), np.arange(len(queries))
    data = (features(bank, chosen), bank.labels[chosen], features(queries, asked), queries.labels)
    return {"knn": knn_accuracy(*data, neighbours=neighbours), "linear": logistic_accuracy(*data)}


def encoder_probe(encoder: ViTEncoder, bank: Source, queries: Source, neighbours: int, images: int) -> dict[str, float]:
    """Measure an encoder's mean patch tokens; see `measure`."""
    extract = encoder_features(encoder)
    return measure(extract, bank, queries, neighbours, images)


def pixel_probe(image_size: int, bank: Source, queries: Source, neighbours: int, images: int) -> dict[str, float]:
    """Measure the pixels themselves, at the encoder's input size; see `measure`."""
    return measure(raw_pixels(image_size), bank, queries, neighbours, images)


def table(rows: dict[str, dict[str, float]], title: str) -> str:
    """Lay accuracies by row and probe out as a small table for people."""
    lines = [f"{title:<34}{'k-NN':>8}{'linear':>8}"]
    return "\n".join([*lines, *(f"{name:<34}{row['knn']:>8.3f}{row['linear']:>8.3f}" for name, row in rows.items())])


def save(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """Write accuracies by row and probe as JSON."""
    write_text(path, json.dumps(rows, indent=2) + "\n")
