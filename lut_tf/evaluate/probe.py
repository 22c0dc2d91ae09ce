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
from lut_tf.evaluate.few_shot import few_shot_accuracy
from lut_tf.evaluate.knn import knn_accuracy
from lut_tf.evaluate.logistic import logistic_accuracy
from lut_tf.models.encoder import ViTEncoder
from lut_tf.writing import write_text

Features = Callable[[Source, np.ndarray], np.ndarray]


RAW_PIXELS = 32 * 32 * 3
"""Largest number of an image's values that are probed as they are: a logistic regression of 1,000 classes on those of
224 × 224 pixels has 150 million coefficients."""


SHOTS = (1, 5)
"""Labelled images a class of the few-shot figures."""


def measure(
    features: Features, bank: Source, queries: Source, wanted: ProbeConfig, few_shot: bool = False
) -> dict[str, float]:
    """Return accuracies of some features: `knn` and `linear`, and with few labels.

    Args:
        features: maps a labelled source and (N,) indices to (N, D) features.
        bank: labelled images to learn from.
        queries: labelled images to classify.
        wanted: how many neighbours vote, and how many images of the bank and of the queries are used.
        few_shot: measure `1_shot` and `5_shot` too, where every class has so many labelled images.
    """
    assert bank.labels is not None and queries.labels is not None
    chosen, asked = sample(bank.labels, wanted.images), sample(queries.labels, wanted.queries)
    data = (features(bank, chosen), bank.labels[chosen], features(queries, asked), queries.labels[asked])
    rows = {"knn": knn_accuracy(*data, neighbours=wanted.neighbours), "linear": logistic_accuracy(*data)}
    few = {f"{shots}_shot": few_shot_accuracy(*data, shots=shots) for shots in SHOTS if few_shot}
    return {**rows, **{name: value for name, value in few.items() if value is not None}}


def encoder_probe(
    encoder: ViTEncoder, bank: Source, queries: Source, wanted: ProbeConfig, few_shot: bool = False
) -> dict[str, float]:
    """Measure an encoder's mean patch tokens; see `measure`."""
    return measure(encoder_features(encoder), bank, queries, wanted, few_shot)


def pixel_probe(
    image_size: int | tuple[int, int], bank: Source, queries: Source, wanted: ProbeConfig
) -> dict[str, float] | None:
    """Measure the pixels themselves, at the encoder's input size; None where they are too many (`RAW_PIXELS`)."""
    if 3 * math.prod(sides(image_size)) > RAW_PIXELS:
        return None
    return measure(raw_pixels(image_size), bank, queries, wanted, few_shot=True)


COLUMNS = {"1_shot": "1 label", "5_shot": "5 labels", "knn": "k-NN", "linear": "linear"}
"""The table's columns: from few labelled images a class to all of them."""
WIDTH = 10


def table(rows: dict[str, dict[str, float]], title: str) -> str:
    """Lay accuracies by row and probe out as a small table for people."""
    columns = {name: words for name, words in COLUMNS.items() if any(name in row for row in rows.values())}
    lines = [f"{title:<34}" + "".join(f"{words:>{WIDTH}}" for words in columns.values())]
    for row_name, row in rows.items():
        figures = (f"{row[name]:.3f}" if name in row else "–" for name in columns)
        lines.append(f"{row_name:<34}" + "".join(f"{figure:>{WIDTH}}" for figure in figures))
    return "\n".join(lines)


def save(path: Path, rows: dict[str, dict[str, float]]) -> None:
    """Write accuracies by row and probe as JSON."""
    write_text(path, json.dumps(rows, indent=2) + "\n")
