"""What is in a serialised `tf.train.Example`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]


def feature_kinds(example: bytes) -> dict[str, str]:
    """Return the names of an example's features, sorted, and what each holds: `bytes_list`, `int64_list` or so.

    Raises:
        DecodeError: it is no example.
    """
    found = tf.train.Example.FromString(example).features.feature
    return {name: found[name].WhichOneof("kind") or "" for name in sorted(found)}


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
