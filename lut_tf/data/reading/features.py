"""What is in a serialised `tf.train.Example`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]


def feature_names(example: bytes) -> list[str]:
    """Return the names of an example's features, sorted.

    Raises:
        DecodeError: it is no example.
    """
    return sorted(tf.train.Example.FromString(example).features.feature)


def feature_values(example: bytes, name: str) -> Any:
    """Return the values of a feature, none where the example does not have it.

    Raises:
        DecodeError: it is no example.
    """
    feature = tf.train.Example.FromString(example).features.feature[name]
    return getattr(feature, feature.WhichOneof("kind") or "bytes_list").value


def label_of(example: bytes, feature: str) -> int:
    """Return an example's class number, -1 where it is damaged."""
    try:
        return int(feature_values(example, feature)[0])
    except (DecodeError, IndexError, ValueError):
        return -1
