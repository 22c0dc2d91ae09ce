"""Image files to pixels: TensorFlow decodes what it decodes well, Pillow the rest, and damaged files are replaced."""

from __future__ import annotations

import io
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

LOGGER = logging.getLogger(__name__)
MAX_PIXELS = 89_478_485
"""Larger images count as damaged (0.25 GiB of RGB, Pillow's own bound): a small file can unpack to gigabytes."""
LOGGED_PATHS = 20


class ImageFault(Exception):
    """A file that gives no image; `kind` says why: missing, unreadable, empty, not an image, too large or damaged."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


# ------------------------------------------------------------------------------------------------------------ Pillow


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels as RGB bytes; alpha is dropped, and 16-bit gray keeps its upper byte (Pillow itself would saturate)."""
    if image.mode.startswith("I;16"):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def read_file(path: bytes) -> bytes:
    """Return a file's content.

    Raises:
        ImageFault: there is no such file any more, it cannot be read, or it is empty.
    """
    try:
        content = tf.io.gfile.GFile(path, "rb").read()
    except tf.errors.NotFoundError:
        raise ImageFault("missing") from None
    except tf.errors.OpError:
        raise ImageFault("unreadable") from None
    if not content:
        raise ImageFault("empty")
    return content


def decode_with_pillow(content: bytes, apply_exif: bool = False) -> NDArray[np.uint8]:
    """Decode one file's content as uint8 (h, w, 3), the first frame of an animation.

    Raises:
        ImageFault: it is no image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageFault("too large")
            return _to_rgb(ImageOps.exif_transpose(image) if apply_exif else image)
    except Image.DecompressionBombError:
        raise ImageFault("too large") from None
    except UnidentifiedImageError:
        raise ImageFault("not an image") from None
    except ImageFault:
        raise
    except Exception:  # Pillow's plugins raise nearly anything on damaged data (struct.error, SyntaxError, ...)
        raise ImageFault("damaged") from None


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
    """Pixels that a PNG or WebP file claims, and more than any bound for every other format (those go to Pillow)."""
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(content + b"\0" * 32, 0, 32), tf.uint8), tf.int64)
    big_endian = tf.constant([2**24, 2**16, 2**8, 1], tf.int64)
    is_png = tf.equal(tf.strings.substr(content, 0, 4), b"\x89PNG")
    is_webp = tf.equal(tf.strings.substr(content, 0, 4) + tf.strings.substr(content, 8, 4), b"RIFFWEBP")
    png = (is_png, lambda: tf.reduce_sum(header[16:20] * big_endian) * tf.reduce_sum(header[20:24] * big_endian))
    webp = (is_webp, lambda: _webp_pixels(header))
    return tf.case([png, webp], default=lambda: tf.constant(MAX_PIXELS + 1, tf.int64))


def _bounded(pixels: tf.Tensor) -> AbstractContextManager[Any]:
    """A context whose ops run only if the image is not too large."""
    return tf.control_dependencies([tf.debugging.assert_less_equal(pixels, tf.constant(MAX_PIXELS, tf.int64))])


def decode_with_tensorflow(content: tf.Tensor) -> tf.Tensor:
    """Decode JPEG, PNG or WebP as uint8 (h, w, 3) in a graph; anything else, or too large, is an error op.

    TensorFlow gets palette BMP files wrong and loads every frame of a GIF, so both are left to Pillow. The accurate
    inverse DCT costs no measurable time and equals Pillow's bit for bit.
    """
    is_jpeg = tf.equal(tf.strings.substr(content, 0, 3), b"\xff\xd8\xff")

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
        self.exhausted = False  # some image had no readable file left to take its place
        self._lock = threading.Lock()

    @property
    def counts(self) -> Counter[str]:
        """Damaged files so far, by kind."""
        return Counter(kind for kind, _ in self.faults.values())

    @property
    def fatal(self) -> bool:
        """Whether this is what stopped the run, though TensorFlow wraps it in pages."""
        return self.exceeded or self.exhausted

    @property
    def exceeded(self) -> bool:
        """Whether more files than allowed are damaged: what stopped the run, though TensorFlow wraps it in pages."""
        return len(self.faults) > self.share * self.total

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
            if self.exceeded:
                raise ValueError(self.summary())

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
    """Return the first image among `candidates` that can be read, noting those before it in `log` by their names."""
    for index in candidates:
        if index in log.faults:
            continue
        try:
            return read(index)
        except ImageFault as fault:
            kind = fault.kind
        log.add(index, kind, name(index))
    log.exhausted = True
    raise ValueError(log.summary() + "; no file is left to take the place of one")


def same_class(index: int, labels: NDArray[np.int32] | None, count: int) -> Iterator[int]:
    """Yield the images that may take the place of image `index`, itself first: those of its class, round from there.

    `labels` (N,) may be in any order; without labels, or where the image's own is unknown (-1), any image may.
    """
    members = np.arange(count) if labels is None or labels[index] < 0 else np.flatnonzero(labels == labels[index])
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


def call_python(function: Callable[[Any], NDArray[np.uint8]], index: tf.Tensor) -> tf.Tensor:
    """Return the image uint8 (h, w, 3) that a Python function gives for `index`, in a graph."""
    return tf.ensure_shape(tf.numpy_function(function, [index], tf.uint8), [None, None, 3])
