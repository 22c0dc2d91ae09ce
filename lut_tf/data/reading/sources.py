"""Where images come from: arrays in memory, scikit-learn's digits, folders of files, and what others open."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lut_tf.config import DataConfig
from lut_tf.data.reading.contents import patiently, read_file
from lut_tf.data.reading.decode import DamageLog, FileSource, decode_with_tensorflow
from lut_tf.data.reading.examples import open_records
from lut_tf.data.reading.folder import FolderListing, list_folder
from lut_tf.data.reading.holdout import held_out
from lut_tf.data.reading.listing import Listing, list_data
from lut_tf.data.reading.pillow import decode_with_pillow
from lut_tf.data.reading.public import SplitListing, open_split
from lut_tf.data.reading.records import RecordListing
from lut_tf.data.reading.remote import is_remote


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


def labelled(source: Source) -> NDArray[np.int64]:
    """Return the numbers of a source's images whose class is known."""
    return np.zeros(0, np.int64) if source.labels is None else np.flatnonzero(source.labels >= 0)


class ArraySource:
    """Images that are in memory.

    Args:
        images: uint8 (N, H, W, 3), or gray, (N, H, W, 1) or (N, H, W), which become three equal channels.
        labels: class numbers (N,), or None.
        classes: class names, or None.

    Raises:
        ValueError: wrong shape or type.
    """

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int32] | None = None, classes: list[str] | None = None
    ) -> None:
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.ndim == 4 and images.shape[-1] not in (1, 3):
            raise ValueError(
                f"images: {images.dtype} {images.shape} must be uint8 of shape (N, H, W, 3), or (N, H, W) where gray"
            )
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"labels: {len(labels)} for {len(images)} images: give one label an image")
        self.labels = None if labels is None else np.asarray(labels, np.int32)
        self.classes = classes
        self._count = len(images)
        with tf.device("CPU:0"):
            self._images = tf.constant(images if images.ndim == 4 else images[..., np.newaxis])

    def __len__(self) -> int:
        return self._count

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`."""
        image = tf.gather(self._images, index)
        return image if image.shape[-1] == 3 else tf.repeat(image, 3, axis=-1)


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
    gray = np.round(pixels[index].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return ArraySource(np.repeat(gray, 3, axis=3), target[index].astype(np.int32), [str(i) for i in range(10)])


class ImageFolder(FileSource):
    """Image files of any of `FORMATS` under a folder: one sub-folder a class, or flat without labels.

    Any colour mode becomes RGB (alpha dropped, 16 bits scaled to 8, the first frame of animations). A file that gives
    no image is replaced by the next readable file of its class, in the order of the listing and round to its beginning
    (in an unlabelled folder: of all files), so that shapes, labels and all other examples stay as they are; see
    `damage`.

    Args:
        path: the folder, or what `list_folder` has found in one.
        apply_exif: turn images as their EXIF orientation says.
        damaged_share: the run stops, with the list, when more than this share of the files cannot be read.
        setting: the setting that errors name.
        bits: of deep images whose format does not say it, as in `decode_with_pillow`.

    Raises:
        FileNotFoundError, ValueError: as `lut_tf.data.reading.folder.list_folder`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | FolderListing,
        apply_exif: bool = True,
        damaged_share: float = 0.05,
        setting: str = "data.path",
        bits: int | None = None,
    ) -> None:
        listing = path if isinstance(path, FolderListing) else list_folder(path, setting)
        self.labels, self.classes, self.files = listing.labels, listing.classes, listing.files
        self.damage = DamageLog(len(self.files), damaged_share, setting)
        self._apply_exif, self._bits = apply_exif, bits
        self._remote = len(self.files) > 0 and is_remote(self.files[0])
        # One long text and where its pieces end: a million separate ones take a hundred bytes more each.
        with tf.device("CPU:0"):
            self._paths = tf.constant(self.files.blob.tobytes())
            self._ends = tf.constant(np.concatenate([[0], self.files.ends]))
            self._too_large = tf.constant(listing.too_large)

    def __len__(self) -> int:
        return len(self.files)

    def _native(self, index: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors(index).map(self._decoded)

    def _decoded(self, index: tf.Tensor) -> tf.Tensor:
        start, end = self._ends[index], self._ends[index + 1]
        path = tf.strings.substr(self._paths, start, end - start)
        if self._remote:  # its size is not known before: Python reads so much and no more
            content = tf.ensure_shape(tf.numpy_function(read_file, [path], tf.string), [])
        else:
            unread = tf.debugging.assert_equal(tf.reduce_any(self._too_large == index), False)
            with tf.control_dependencies([unread]):
                content = tf.io.read_file(path)
        return decode_with_tensorflow(content, self._apply_exif)

    def _read(self, index: int) -> NDArray[np.uint8]:
        return decode_with_pillow(patiently(lambda: read_file(self.files[index])), self._apply_exif, self._bits)

    def _name(self, index: int) -> str:
        return self.files[index]


class Chosen:
    """Some of another source's images, as a source of their own.

    Damaged images among them are replaced by others of them, so that no image gets into a part that it is not of.

    Args:
        source: the other.
        indices: which of its images (M,), in the order that they have here.
    """

    indices: NDArray[np.int64]

    def __init__(self, source: Source, indices: NDArray[np.int64]) -> None:
        if isinstance(source, Chosen):  # a part of a part is one of the whole
            indices, source = source.indices[indices], source._source
        self._source: Source = source.among(indices) if isinstance(source, FileSource) else source
        self.indices = indices
        self.labels = None if source.labels is None else source.labels[indices]
        self.classes = source.classes
        self.damage: DamageLog | None = getattr(source, "damage", None)
        self._count = len(indices)
        with tf.device("CPU:0"):
            self._indices = tf.constant(indices, tf.int64)

    def __len__(self) -> int:
        return self._count

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`."""
        return self._source.image(tf.gather(self._indices, index))

    def name_of(self, index: int) -> str:
        """Say which image it is, for people."""
        return name_of(self._source, int(self._indices[index]))


def name_of(source: Source, index: int) -> str:
    """Say which of a source's images it is, for people: its file, its record, or its number."""
    name: Callable[[int], str] | None = getattr(source, "name_of", None)
    return f"image {index}" if name is None else name(index)


class Parts(NamedTuple):
    """The images to train on, to choose by while training, and to report on at the end.

    Attributes:
        train: what is learned from.
        validation: labelled images to look at while training, and to choose settings by: the held-out training images
            where `data.holdout` says so, else the evaluation images; None: there are none.
        heldout: those that were looked at for no choice: the evaluation images where others are for validation; None:
            there are no others.
    """

    train: Source
    validation: Source | None
    heldout: Source | None

    @property
    def final(self) -> Source | None:
        """What a result is reported on."""
        return self.heldout or self.validation

    def name(self, part: Source | None) -> str:
        """Say which of its parts it is, for people."""
        from_training = isinstance(self.validation, Chosen)
        if part is self.validation and self.heldout is not None:
            return "validation"
        held = from_training if self.heldout is None else not from_training
        return "held-out" if held else "evaluation"


def open_sources(data: DataConfig, listing: Listing | None = None) -> Parts:
    """Open what `data` names.

    Args:
        data: the settings.
        listing: what `list_data` has found for them, which is not listed again; None: it is listed now.

    Raises:
        FileNotFoundError, ValueError: as `list_data`, the source and `held_out`.
    """
    listing = list_data(data) if listing is None else listing
    if listing.train is None:
        return Parts(digits("train"), digits("validation"), digits("heldout"))
    training, evaluation = ("split", "evaluation_split") if data.source == "tfds" else ("path", "evaluation_path")
    train, other = _opened(listing.train, data, f"data.{training}"), None
    if listing.evaluation is not None:
        other = _opened(listing.evaluation, data, f"data.{evaluation}")
    if not data.holdout:
        return Parts(train, other, None)
    assert train.labels is not None  # `list_data` has refused what has none
    held = held_out(train.labels, data.holdout)
    return Parts(Chosen(train, np.flatnonzero(~held)), Chosen(train, np.flatnonzero(held)), other)


def _opened(listing: FolderListing | RecordListing | SplitListing, data: DataConfig, setting: str) -> Source:
    if isinstance(listing, FolderListing):
        return ImageFolder(listing, data.apply_exif, data.damaged_share, setting, data.bits)
    if isinstance(listing, RecordListing):
        return open_records(listing, data.image_feature, data.damaged_share, setting, data.apply_exif, data.bits)
    return open_split(listing, data.damaged_share, setting, data.apply_exif, data.bits)
