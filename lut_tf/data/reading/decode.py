"""Image files to pixels: TensorFlow decodes what it decodes well, Pillow the rest, and damaged files are replaced."""

from __future__ import annotations

import copy
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.data.reading import formats
from lut_tf.data.reading.contents import ImageFault, Unreachable
from lut_tf.errors import Stopped

LOGGER = logging.getLogger(__name__)
LOGGED_PATHS = 20
HEAD = 2**18
"""Bytes within which a JPEG says how it is turned; other formats may say it at their end."""
TURNED = (
    r"(?s)\C*(?:\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00|\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08]"
    r"|tiff:Orientation(?:=\"|>)[2-8]|Raw profile type exif)\C*"
)
"""Matches content with an EXIF orientation other than upright, in either order of bytes, or one told otherwise."""


# -------------------------------------------------------------------------------------------------------- TensorFlow


def _little_endian(header: tf.Tensor, start: int, length: int) -> tf.Tensor:
    return tf.reduce_sum(header[start : start + length] * [256**i for i in range(length)])


def _webp_pixels(header: tf.Tensor) -> tf.Tensor:
    """Pixels of a WebP file, from whichever of its three headers it has (sizes of 14 and 24 bits)."""

    def extended() -> tf.Tensor:
        return (_little_endian(header, 24, 3) + 1) * (_little_endian(header, 27, 3) + 1)

    def lossless() -> tf.Tensor:
        packed = _little_endian(header, 21, 4)
        return (packed % 2**14 + 1) * (packed // 2**14 % 2**14 + 1)

    def lossy() -> tf.Tensor:
        return (_little_endian(header, 26, 2) % 2**14) * (_little_endian(header, 28, 2) % 2**14)

    variant = header[15]  # "VP8X", "VP8L" or "VP8 "
    return tf.case([(tf.equal(variant, ord("X")), extended), (tf.equal(variant, ord("L")), lossless)], default=lossy)


def _other_pixels(content: tf.Tensor) -> tf.Tensor:
    """Pixels that a PNG or WebP file claims, and more than any bound for what Pillow reads: other formats, 16 bits."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content + b"\0" * 32, 0, 32), tf.uint8), tf.int64)
    big_endian = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    is_png = tf.equal(tf.strings.substr(content, 0, 4), b"\x89PNG") & (header[24] <= 8)
    is_webp = tf.equal(tf.strings.substr(content, 0, 4) + tf.strings.substr(content, 8, 4), b"RIFFWEBP")
    png = (is_png, lambda: tf.reduce_sum(header[16:20] * big_endian) * tf.reduce_sum(header[20:24] * big_endian))
    webp = (is_webp, lambda: _webp_pixels(header))
    return tf.case([png, webp], default=lambda: tf.constant(formats.MAX_PIXELS + 1, tf.int64))


def _bounded(pixels: tf.Tensor) -> AbstractContextManager[Any]:
    """A context whose ops run only if the image is not too large."""
    return tf.control_dependencies([tf.debugging.assert_less_equal(pixels, tf.constant(formats.MAX_PIXELS, tf.int64))])


def decode_with_tensorflow(content: tf.Tensor, apply_exif: bool = True) -> tf.Tensor:
    """Decode JPEG, PNG or WebP as uint8 (h, w, 3) in a graph; what is left to Pillow is an error op.

    That is everything else, what is too large, and with `apply_exif` what is to be turned. TensorFlow gets palette BMP
    files wrong, loads every frame of a GIF, and cuts 16 bits to 8. The accurate inverse DCT costs no measurable time
    and equals Pillow's bit for bit.
    """
    is_jpeg = tf.equal(tf.strings.substr(content, 0, 3), b"\xff\xd8\xff")
    if apply_exif:
        telling = tf.cond(is_jpeg, lambda: tf.strings.substr(content, 0, HEAD), lambda: content)
        upright = tf.debugging.assert_equal(tf.strings.regex_full_match(telling, TURNED), False)
        with tf.control_dependencies([upright]):
            content = tf.identity(content)

    def jpeg() -> tf.Tensor:
        with _bounded(tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64))):
            return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")

    def other() -> tf.Tensor:
        with _bounded(_other_pixels(content)):
            return tf.io.decode_image(content, channels=3, expand_animations=False)

    return tf.ensure_shape(tf.cond(is_jpeg, jpeg, other), [None, None, 3])


# ----------------------------------------------------------------------------------------------------- damaged files


class DamageLog:
    """Counts the files that gave no image, by kind, and stops the run when they are too many.

    Args:
        total: files of the data set.
        share: the run stops when more than this share of the files is damaged.
        setting: the setting that the message names.
    """

    def __init__(self, total: int, share: float, setting: str) -> None:
        self.total, self.share, self.setting = total, share, setting
        self.faults: dict[int, tuple[str, str]] = {}
        self.end: Exception | None = None
        """What stopped the run, though TensorFlow wraps it in pages; None: nothing has."""
        self._lock = threading.Lock()

    @property
    def counts(self) -> Counter[str]:
        """Damaged files so far, by kind."""
        return Counter(kind for kind, _ in self.faults.values())

    def stop(self, end: Exception) -> Exception:
        """Note and return what is to be raised; the first one stays."""
        self.end = self.end or end
        return self.end

    def add(self, index: int, kind: str, path: str) -> None:
        """Note file `index` once.

        Raises:
            ValueError: more than the allowed share of the files is damaged.
        """
        with self._lock:
            if index not in self.faults:
                self.faults[index] = (kind, path)
                if len(self.faults) <= LOGGED_PATHS:
                    LOGGER.warning("%s: %s is %s; another image takes its place", self.setting, path, kind)
                if len(self.faults) == LOGGED_PATHS:
                    LOGGER.warning("%s: further damaged files are counted, not listed", self.setting)
            if len(self.faults) > self.share * self.total:
                raise self.stop(ValueError(self.summary()))

    def summary(self) -> str:
        """One line: how many, by kind, and the first paths."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        paths = ", ".join(sorted(path for _, path in self.faults.values())[:LOGGED_PATHS])
        return (
            f"{self.setting}: {len(self.faults)} of {self.total} files give no image ({kinds}): {paths}: "
            f"repair or remove them, or raise data.damaged_share={self.share:g}"
        )


def first_readable(
    candidates: Iterable[int], log: DamageLog, read: Callable[[int], NDArray[np.uint8]], name: Callable[[int], str]
) -> NDArray[np.uint8]:
    """Return the first image among `candidates` that can be read, noting those before it in `log` by their names.

    Raises:
        ValueError: too many give no image, or none of them gives one.
        Stopped: storage did not answer.
    """
    for index in candidates:
        if index in log.faults:
            continue
        try:
            return read(index)
        except ImageFault as fault:
            kind = fault.kind
        except Unreachable as failure:
            raise log.stop(
                Stopped(
                    f"{log.setting}: {name(index)} cannot be read, its storage failed in {failure}: start again once "
                    "it answers, to go on from the last checkpoint"
                )
            ) from None
        log.add(index, kind, name(index))
    raise log.stop(ValueError(log.summary() + "; no file is left to take the place of one"))


def same_class(index: int, labels: NDArray[np.int32] | None, among: NDArray[np.int64]) -> Iterator[int]:
    """Yield the images that may take the place of image `index`, itself first: those of its class, round from there.

    `labels` (N,) may be in any order; without labels, or where the image's own is unknown (-1), any image may that is
    one of `among`, which rises.
    """
    members = among if labels is None or labels[index] < 0 else among[labels[among] == labels[index]]
    at = int(np.searchsorted(members, index))
    yield from members[at:].tolist()
    yield from members[:at].tolist()


def with_fallback(native: tf.data.Dataset, index: tf.Tensor, fallback: Callable[[Any], NDArray[np.uint8]]) -> tf.Tensor:
    """Return the only element of `native`, an image, or if that fails what the Python function `fallback(index)` gives.

    Graphs cannot catch errors, data sets can ignore them: the first of two one-element sets that yields is taken, and
    Python (with its global lock) runs for the rare file only. Making a data set and its maps costs 0.1 ms each, so
    `native` should have a single map.
    """
    rescued = tf.data.Dataset.from_tensors(index).map(lambda i: call_python(fallback, i))
    return native.ignore_errors().concatenate(rescued).take(1).get_single_element()


class FileSource:
    """A source of images that may be damaged: the next readable one of its class takes the place of one that is.

    Attributes:
        labels: class numbers (N,), or None.
        classes: class names, or None.
        damage: what was found damaged so far.
    """

    labels: NDArray[np.int32] | None
    classes: list[str] | None
    damage: DamageLog
    _among: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return the number of images N."""
        raise NotImplementedError

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`; raises `tf.errors.InvalidArgumentError` where too many files are damaged."""
        return with_fallback(self._native(index), index, self._rescue)

    def among(self, indices: NDArray[np.int64]) -> Self:
        """Return this source, of whose images `indices` take each other's place only; both count damage together."""
        part = copy.copy(self)
        part._among = np.sort(indices)
        return part

    def name_of(self, index: int) -> str:
        """Say which image it is, for people."""
        return self._name(index)

    def _rescue(self, index: np.int64) -> NDArray[np.uint8]:
        among = np.arange(len(self)) if self._among is None else self._among
        return first_readable(same_class(int(index), self.labels, among), self.damage, self._read, self._name)

    def _native(self, index: tf.Tensor) -> tf.data.Dataset:
        """Return a data set of image `index` as TensorFlow reads it, or of an error."""
        raise NotImplementedError

    def _read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index` as Python reads it; raises `ImageFault`, or `Unreachable`."""
        raise NotImplementedError

    def _name(self, index: int) -> str:
        """Say which image it is, for people."""
        raise NotImplementedError


def call_python(function: Callable[[Any], NDArray[np.uint8]], index: tf.Tensor) -> tf.Tensor:
    """Return the image uint8 (h, w, 3) that a Python function gives for `index`, in a graph."""
    return tf.ensure_shape(tf.numpy_function(function, [index], tf.uint8), [None, None, 3])
