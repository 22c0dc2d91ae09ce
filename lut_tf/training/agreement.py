"""A check at the start: all replicas and hosts hold the same weights, stand at the same step, run the same settings."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
import tensorflow as tf


def check_agreement(strategy: tf.distribute.Strategy, model: keras.Model, settings: str, step: int) -> None:
    """Compare settings, step and a fingerprint of every variable over all replicas of all hosts.

    Args:
        strategy: of the run.
        model: built under it.
        settings: this process' settings, as text; those that may differ left out.
        step: where this process stands.

    Raises:
        ValueError: they differ; the message names what and in which replicas.
    """
    digest = int.from_bytes(hashlib.sha256(settings.encode()).digest()[:6], "big")  # 48 bits: exact in float64

    def fingerprint() -> tf.Tensor:
        sums = [_weighted_sum(variable.value) for variable in model.variables]
        return tf.stack([tf.constant(digest, tf.float64), tf.constant(step, tf.float64), *sums])[None]

    rows = strategy.gather(strategy.run(tf.function(fingerprint)), axis=0).numpy()
    names = ["settings", "step", *(f"weights of {variable.path}" for variable in model.variables)]
    for name, column in zip(names, rows.T, strict=True):
        odd = np.flatnonzero(~_same(column, column[0]))
        if odd.size:
            raise ValueError(
                f"replicas disagree about the {name}: {odd.tolist()} differ from replica 0: start every process with "
                f"the same command, and with a run_dir that all hosts share"
            )


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _weighted_sum(variable: tf.Variable) -> tf.Tensor:
    """Return a float64 sum in which every place has a weight of its own, so that swapped values show."""
    flat = tf.reshape(tf.cast(variable, tf.float64), [-1])
    return tf.reduce_sum(flat * tf.cos(tf.cast(tf.range(tf.size(flat)), tf.float64)))
