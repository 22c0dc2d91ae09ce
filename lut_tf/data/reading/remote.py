"""Paths of TensorFlow's file systems (`gs://…`), and what their failures say to people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lut_tf.startup import import_tensorflow


def is_remote(path: str) -> bool:
    """Tell a path of one of TensorFlow's file systems (`gs://…`) from one of this machine."""
    return "://" in path


@contextmanager
def remote_errors(path: str, setting: str) -> Iterator[Any]:
    """Give TensorFlow, started quietly; what its file systems fail with becomes one line.

    Raises:
        FileNotFoundError, ValueError: there is nothing at `path`, or it cannot be read.
    """
    import_tensorflow()
    import tensorflow as tf

    try:
        yield tf
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"{setting}: {path!r} does not exist: give what TensorFlow can find") from None
    except tf.errors.OpError as error:
        why = " ".join(error.message.split())[:200]
        raise ValueError(f"{setting}: {path!r} cannot be read ({why}): give what TensorFlow can read") from None
