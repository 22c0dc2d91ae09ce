"""k-nearest-neighbour classification on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from lut_tf.evaluate.progress import line

TEMPERATURE = 0.07
BANK_ROWS, QUERY_ROWS = 16384, 2048
"""Rows of the bank and of the queries that are multiplied at a time: 128 MiB of similarities."""


def knn_accuracy(
    bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, labels: np.ndarray, neighbours: int = 20
) -> float:
    """Return the share of images whose neighbours vote for the right class; see `knn_correct`.

    Args:
        bank: (N, D) features that vote.
        bank_labels: (N,) their classes.
        features: (Q, D) features to classify.
        labels: (Q,) their classes.
        neighbours: k, at most N of which vote.
    """
    most = min(neighbours, len(bank))
    return knn_correct(bank, bank_labels, features, labels, [most])[most] / len(labels)


def knn_correct(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    neighbours: Sequence[int] = (10, 20),
    temperature: float = TEMPERATURE,
) -> dict[int, int]:
    """Return how many images are classified rightly by the votes of their k nearest neighbours, for each k.

    Cosine similarity; each neighbour votes with weight exp(similarity / temperature), as DINO and MoCo report it; of
    equal votes the lowest class wins. The search is exact: every similarity is computed, a tile of them at a time. So
    it takes N·Q·D multiplications and memory for a tile and for (Q, D) features and (Q, k) neighbours alone: the bank
    may be mapped from a file, which is read once, in its order.

    Args:
        bank: (N, D) features that vote; rows whose class is not known are left out.
        bank_labels: (N,) their classes, -1 where not known.
        features: (Q, D) features to classify.
        labels: (Q,) their classes, -1 where not known: these are not counted.
        neighbours: the numbers k, none above the labelled rows of the bank.
        temperature: of the votes.
    """
    similarity, nearest = _nearest(bank, bank_labels, features, max(neighbours))
    classes = int(max(bank_labels.max(), 0)) + 1
    correct = dict.fromkeys(neighbours, 0)
    for start in range(0, len(labels), QUERY_ROWS):
        rows = slice(start, start + QUERY_ROWS)
        votes = np.exp(similarity[rows].astype("float64") / temperature)
        voted = bank_labels[nearest[rows]]
        for k in correct:
            scores = np.zeros((len(votes), classes))
            np.add.at(scores, (np.arange(len(votes))[:, None], voted[:, :k]), votes[:, :k])
            correct[k] += int(np.sum(scores.argmax(axis=1) == labels[rows]))
    return correct


def _nearest(
    bank: np.ndarray, bank_labels: np.ndarray, features: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the similarities (Q, k) float32 of each query's nearest rows of the bank, the nearest first, and these."""
    queries = _unit(features)
    best = np.full((len(queries), most), -np.inf, np.float32)
    found = np.zeros((len(queries), most), np.int32)
    with _exact(), line("k-NN: neighbours looked for among", len(bank)) as shown:
        for start in range(0, len(bank), BANK_ROWS):
            known = start + np.flatnonzero(bank_labels[start : start + BANK_ROWS] >= 0).astype(np.int32)
            if len(known):
                tile = tf.constant(_unit(bank[known]))
                for first in range(0, len(queries), QUERY_ROWS):
                    rows = slice(first, first + QUERY_ROWS)
                    merged = _merged(queries[rows], tile, known, best[rows], found[rows])
                    best[rows], found[rows] = (part.numpy() for part in merged)
            shown.at(start + BANK_ROWS)
    return best, found


_FLOATS, _NUMBERS = tf.TensorSpec((None, None), tf.float32), tf.TensorSpec((None, None), tf.int32)


@tf.function(input_signature=[_FLOATS, _FLOATS, tf.TensorSpec((None,), tf.int32), _FLOATS, _NUMBERS])
def _merged(
    queries: tf.Tensor, tile: tf.Tensor, rows: tf.Tensor, best: tf.Tensor, found: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the nearest of those found so far and of a tile of the bank."""
    most = tf.shape(best)[1]
    values, places = tf.math.top_k(tf.matmul(queries, tile, transpose_b=True), tf.minimum(most, tf.shape(tile)[0]))
    values, rows = tf.concat([best, values], 1), tf.concat([found, tf.gather(rows, places)], 1)
    values, places = tf.math.top_k(values, most)
    return values, tf.gather(rows, places, batch_dims=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, D) as float32 of length 1; zeros stay."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@contextmanager
def _exact() -> Iterator[None]:
    """Have GPUs multiply float32, where TensorFlow lets them drop bits of it."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
