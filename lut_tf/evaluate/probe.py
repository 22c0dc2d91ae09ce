"""The first measure of an encoder's worth: k-NN and logistic regression on images that training never saw."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lut_tf.config import ProbeConfig
from lut_tf.config.networks import sides
from lut_tf.data.reading.sources import Source
from lut_tf.evaluate.features import encoder_features, raw_pixels, sample
from lut_tf.evaluate.knn import knn_accuracy
from lut_tf.evaluate.logistic import logistic_accuracy
from lut_tf.models.encoder import ViTEncoder
from lut_tf.writing import write_text

Features = Callable[[Source, np.ndarray], np.ndarray]


RAW_PIXELS = 32 * 32 * 3
"""Largest number of an image's values that are probed as they are: a logistic regression of 1,000 classes on those of
224 × 224 pixels has 150 million coefficients."""


def measure(features: Features, bank: Source, queries: Source, wanted: ProbeConfig) -> dict[str, float]:
    """Return the accuracies `knn` and `linear` of some features.

    Args:
        features: maps a labelled source and (N,) indices to (N, D) features.
        bank: labelled images to learn from.
        queries: labelled images to classify.
        wanted: how many neighbours vote, and how many images of the bank and of the queries are used.
    """
    assert bank.labels is not None and queries.labels is not None
    chosen, asked = sample(bank.labels, wanted.images), sample(queries.labels, wanted.queries)
    data = (features(bank, chosen), bank.labels[chosen], features(queries, asked), queries.labels[asked])
    return {"knn": knn_accuracy(*data, neighbours=wanted.neighbours), "linear": logistic_accuracy(*data)}


def encoder_probe(encoder: ViTEncoder, bank: Source, queries: Source, wanted: ProbeConfig) -> dict[str, float]:
    """Measure an encoder's mean patch tokens; see `measure`."""
    return measure(encoder_features(encoder), bank, queries, wanted)


def pixel_probe(
    image_size: int | tuple[int, int], bank: Source, queries: Source, wanted: ProbeConfig
) -> dict[str, float] | None:
    """Measure the pixels themselves, at the encoder's input size; None where they are too many (`RAW_PIXELS`)."""
    if 3 * math.prod(sides(image_size)) > RAW_PIXELS:
        return None
    return measure(raw_pixels(image_size), bank, queries, wanted)


def table(rows: dict[str, dict[str, float]], title: str) -> str:
    """Lay accuracies by row and probe out as a small table for people."""
    lines = [f"{title:<34}{'k-NN':>8}{'linear':>8}"]
    return "\n".join([*lines, *(f"{name:<34}{row['knn']:>8.3f}{row['linear']:>8.3f}" for name, row in rows.items())])


def save(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """Write accuracies by row and probe as JSON."""
    write_text(path, json.dumps(rows, indent=2) + "\n")
