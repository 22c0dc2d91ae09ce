"""Bytes from storage: bounded, and asked for again where storage does not answer.

What gives no image for good (gone, empty, damaged) is an `ImageFault`, and another image takes its place. What may pass
(a store that is busy or out of reach) is none of that: it is tried again, and then stops the run, because else the
images of a run would depend on the weather.
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from lut_tf.data.reading import formats
from lut_tf.data.reading.remote import is_remote

Found = TypeVar("Found")
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each further attempt to read what may be readable again."""
LASTING = (
    tf.errors.NotFoundError, tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.UnimplementedError,
)  # fmt: skip
"""What TensorFlow's file systems say of a file itself; all else (unavailable, too late, aborted, …) may pass."""
LASTING_NUMBERS = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO,
}  # fmt: skip
"""The same of this machine's; all else (a stale handle, an error of the disk, too many open files, …) may pass."""


class ImageFault(Exception):
    """A file that gives no image; `kind` says why: missing, unreadable, empty, not an image, too large or damaged."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Unreachable(Exception):
    """Storage did not answer, time and again: it says nothing of the file, so no other may take its place."""


def patiently(read: Callable[[], Found]) -> Found:
    """Return what `read` returns; where it fails as may pass, it is called again, after `WAITS`.

    Raises:
        Unreachable: the last attempt failed so too.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except (tf.errors.OpError, OSError) as error:
            if _lasts(error):
                raise
            if wait is None:
                why = error.message if isinstance(error, tf.errors.OpError) else error.strerror or error
                raise Unreachable(f"{len(WAITS) + 1} attempts ({' '.join(str(why).split())[:200]})") from None
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


def _lasts(error: tf.errors.OpError | OSError) -> bool:
    return error.errno in LASTING_NUMBERS if isinstance(error, OSError) else isinstance(error, LASTING)


def read_file(path: bytes | str) -> bytes:
    """Return the content of an image file, asking storage once.

    Raises:
        ImageFault: there is no such file any more, it cannot be read, is larger than `MAX_BYTES`, or empty.
        OSError, tf.errors.OpError: storage did not answer (see `patiently`).
    """
    try:
        content = _bounded(os.fsdecode(path))
    except (tf.errors.OpError, OSError) as error:
        if not _lasts(error):
            raise
        gone = isinstance(error, FileNotFoundError | tf.errors.NotFoundError)
        raise ImageFault("missing" if gone else "unreadable") from None
    if not content:
        raise ImageFault("empty")
    return content


def _bounded(path: str) -> bytes:
    if is_remote(path):
        with tf.io.gfile.GFile(path, "rb") as remote:  # its size would be one more request
            content = remote.read(formats.MAX_BYTES + 1)
        _check_size(len(content))
        return content
    with io.FileIO(path) as file:  # `gfile` would take ten times as long
        _check_size(os.fstat(file.fileno()).st_size)
        return file.readall()


def _check_size(size: int) -> None:
    if size > formats.MAX_BYTES:
        raise ImageFault("too large")
