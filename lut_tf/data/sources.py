"""Where images come from: arrays in memory, scikit-learn's digits, folders of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.config import DataConfig
from lut_tf.data.decode import DamageLog, decode_with_pillow, first_readable, with_fallback
from lut_tf.data.folder import DIGITS_COUNTS, check_data, list_folder


class Source(Protocol):
    """A finite set of images that can be read in any order."""

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """Class numbers (N,), or None where there are none."""

    @property
    def classes(self) -> list[str] | None:
        """Class names in the order of their numbers, or None."""

    def __len__(self) -> int:
        """Number of images N."""

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """Return image `index` (int64 scalar) as uint8 (h, w, 3); works in a graph, the same on every call."""


class ArraySource:
    """Images that are in memory.

    Args:
        images: uint8 (N, H, W, 3).
        labels: class numbers (N,), or None.
        classes: class names, or None.

    Raises:
        ValueError: wrong shape or type.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int32] | None = None, classes: list[str] | None = None
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images: {images.dtype} {images.shape} must be uint8 of shape (N, H, W, 3)")
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"labels: {len(labels)} for {len(images)} images: give one label an image")
        self.labels = None if labels is None else np.asarray(labels, np.int32)
        self.classes = classes
        self._count = len(images)
        with tf.device("CPU:0"):
            self._images = tf.constant(images)

    def __len__(self) -> int:
        return self._count

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`."""
        return tf.gather(self._images, index)


def digits(part: Literal["train", "validation", "heldout"]) -> ArraySource:
    """Return a part of scikit-learn's 1,797 handwritten digits (8x8 pixels, three equal channels).

    Every class gives 30 images to `validation` (300), 30 to `heldout` (300) and the rest to `train` (1,197); which ones
    is fixed for ever (numpy's frozen `RandomState(0)`). All parts share their writers: figures on unseen writers would
    be lower.
    """
    from sklearn.datasets import load_digits  # a second to import, needed by nobody else

    pixels, target = load_digits(return_X_y=True)
    random = np.random.RandomState(0)
    chosen: dict[str, list[int]] = {"train": [], "validation": [], "heldout": []}
    for label in range(10):
        members = random.permutation(np.flatnonzero(target == label)).tolist()
        chosen["validation"] += members[:30]
        chosen["heldout"] += members[30:60]
        chosen["train"] += members[60:]
    index = np.sort(chosen[part])
    assert len(index) == DIGITS_COUNTS[part]
    gray = np.round(pixels[index].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return ArraySource(np.repeat(gray, 3, axis=3), target[index].astype(np.int32), [str(i) for i in range(10)])


class ImageFolder:
    """Image files (JPEG, PNG, WebP, BMP, GIF) under a folder: one sub-folder a class, or flat without labels.

    Any colour mode becomes RGB (alpha dropped, 16 bits cut to 8, the first frame of animations). A file that cannot be
    read is replaced by the next readable file of its class, in the order of the listing and round to its beginning (in
    an unlabelled folder: of all files), so that shapes, labels and all other examples stay as they are; see `damage`.

    Args:
        path: the folder.
        apply_exif: turn images as their EXIF orientation says (all are then read by Pillow, which is slower).
        damaged_share: the run stops, with the list, when more than this share of the files cannot be read.
        setting: the setting that errors name.

    Raises:
        FileNotFoundError, ValueError: as `lut_tf.data.folder.list_folder`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        apply_exif: bool = False,
        damaged_share: float = 0.05,
        setting: str = "data.path",
    ) -> None:
        listing = list_folder(path, setting)
        self.labels = None if listing.labels is None else np.asarray(listing.labels, np.int32)
        self.classes = listing.classes
        self.files = listing.files
        self.damage = DamageLog(len(self.files), damaged_share, setting)
        self._apply_exif = apply_exif
        self._encoded = [os.fsencode(file) for file in self.files]
        with tf.device("CPU:0"):
            self._paths = tf.constant(self._encoded)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`; raises `tf.errors.InvalidArgumentError` where too many files are damaged."""
        if self._apply_exif:
            return tf.ensure_shape(tf.numpy_function(self._rescue, [index], tf.uint8), [None, None, 3])
        return with_fallback(tf.gather(self._paths, index), index, self._rescue)

    def _rescue(self, index: np.int64) -> NDArray[np.uint8]:
        read = partial(decode_with_pillow, apply_exif=self._apply_exif)
        return first_readable(self._candidates(int(index)), self._encoded, self.damage, read)

    def _candidates(self, index: int) -> Iterator[int]:
        """The file itself, then those that may take its place."""
        first, end = 0, len(self)
        if self.labels is not None:
            first, end = np.searchsorted(self.labels, [self.labels[index], self.labels[index] + 1]).tolist()
        return chain(range(index, end), range(first, index))


class Parts(NamedTuple):
    """The images to train on, to probe on while training, and to report on at the end."""

    train: Source
    validation: Source | None
    heldout: Source | None


def open_sources(data: DataConfig) -> Parts:
    """Open what `data` names.

    Raises:
        FileNotFoundError, ValueError: as `check_data` and `list_folder`, or the evaluation folder has other classes.
    """
    check_data(data)
    if data.source == "digits":
        return Parts(digits("train"), digits("validation"), digits("heldout"))
    assert data.path is not None
    train = ImageFolder(data.path, damaged_share=data.damaged_share)
    if data.evaluation_path is None:
        return Parts(train, None, None)
    validation = ImageFolder(data.evaluation_path, damaged_share=data.damaged_share, setting="data.evaluation_path")
    _check_classes(train, validation, data)
    return Parts(train, validation, None)


def _check_classes(train: ImageFolder, validation: ImageFolder, data: DataConfig) -> None:
    start = f"data.evaluation_path: {data.evaluation_path!r}"
    for source, path in ((train, data.path), (validation, data.evaluation_path)):
        if source.classes is None:
            raise ValueError(f"{start} is for labelled images, but {path!r} is flat: sort it into class folders")
    if train.classes != validation.classes:
        odd = sorted(set(train.classes or []) ^ set(validation.classes or []))
        names = ", ".join(odd[:5])
        raise ValueError(f"{start} and data.path {data.path!r} differ in {len(odd)} classes ({names}): make them equal")
