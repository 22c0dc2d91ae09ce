"""Images in serialised `tf.train.Example`s: TFRecord files, and data sets that tensorflow-datasets has prepared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lut_tf.data.reading import cache
from lut_tf.data.reading.contents import ImageFault, patiently
from lut_tf.data.reading.decode import DamageLog, FileSource, decode_with_tensorflow
from lut_tf.data.reading.features import feature_kinds, feature_values, label_of
from lut_tf.data.reading.pillow import decode_with_pillow
from lut_tf.data.reading.records import FOOTER, HEADER, RecordIndex, RecordListing, list_records, named, record_files

IMAGE_FEATURES = ("image/encoded", "image")
"""Where an image's bytes are looked for when no feature is named."""
HOLDS = {"bytes_list": "bytes", "int64_list": "whole numbers", "float_list": "numbers with a point", "": "nothing"}


class Records(Protocol):
    """Serialised examples that can be read in any order."""

    def __len__(self) -> int:
        """Number of examples N."""

    def dataset(self, index: tf.Tensor) -> tf.data.Dataset:
        """Return a data set of the one example `index` (int64 scalar), which is an error where it is damaged."""

    def read(self, index: int) -> bytes:
        """Return example `index`; raises `ImageFault` where it is damaged, `Unreachable` where storage is silent."""

    def unchecked(self) -> Iterator[bytes]:
        """Yield every example in order, quickly, damaged ones too."""

    def name(self, index: int) -> str:
        """Say which example it is, for people."""


class TFRecords:
    """Examples in TFRecord files, read by index; their checksums are verified.

    Args:
        index: where they are.
    """

    def __init__(self, index: RecordIndex) -> None:
        self.index = index
        with tf.device("CPU:0"):
            self._files = tf.constant(index.files)
            self._file, self._start, self._length = (tf.constant(part) for part in index[1:])

    def __len__(self) -> int:
        return len(self.index.file)

    def dataset(self, index: tf.Tensor) -> tf.data.Dataset:
        """See `Records.dataset`."""
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(self._files, self._file[index])[tf.newaxis],
            compression_type="",
            buffer_size=self._length[index] + HEADER + FOOTER,
            byte_offsets=self._start[index][tf.newaxis],
        )
        return tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string)).take(1)

    def read(self, index: int) -> bytes:
        """See `Records.read`."""
        try:
            return patiently(lambda: self.dataset(tf.constant(index, tf.int64)).get_single_element().numpy())
        except (tf.errors.OpError, OSError) as error:
            raise ImageFault("missing" if isinstance(error, tf.errors.NotFoundError) else "damaged record") from None

    def unchecked(self) -> Iterator[bytes]:
        """See `Records.unchecked`."""
        for number, path in enumerate(self.index.files):
            with tf.io.gfile.GFile(path, "rb") as file:
                for record in np.flatnonzero(self.index.file == number):
                    file.seek(int(self.index.start[record]) + HEADER)
                    yield file.read(int(self.index.length[record]))

    def name(self, index: int) -> str:
        """See `Records.name`."""
        return named(self.index, index)


class ExampleSource(FileSource):
    """Images by their encoded bytes in `tf.train.Example`s; damaged ones are replaced as in `ImageFolder`.

    Args:
        records: where the examples come from.
        image_feature: the feature that holds an image's bytes; None: `image/encoded` or `image`, whichever there is.
        label_feature: the feature of its class number; None: no labels.
        classes: class names, or None.
        damaged_share: the run stops, with the list, when more than this share of the examples gives no image.
        setting: the setting that errors name.
        labels: class numbers int32 (N,), where they are known; None: they cost one reading of everything.
        memory: remembers labels that were read; None: they are read each time.
        apply_exif: turn images as their EXIF orientation says.
        bits: of deep images whose format does not say it, as in `decode_with_pillow`.

    Raises:
        ValueError: the first example has no such feature, or the feature holds something else.
    """

    def __init__(
        self,
        records: Records,
        image_feature: str | None = None,
        label_feature: str | None = None,
        classes: list[str] | None = None,
        damaged_share: float = 0.05,
        setting: str = "data.path",
        labels: NDArray[np.int32] | None = None,
        memory: cache.Memory | None = None,
        apply_exif: bool = True,
        bits: int | None = None,
    ) -> None:
        self.records, self.classes, self._apply_exif, self._bits = records, classes, apply_exif, bits
        self.damage = DamageLog(len(records), damaged_share, setting)
        present = self._first_features()
        self._image_feature = _choose("data.image_feature", image_feature, present, "bytes_list")
        self.labels: NDArray[np.int32] | None = None
        if label_feature is not None:
            feature = _choose("data.label_feature", label_feature, present, "int64_list")
            self.labels = self._read_labels(feature, memory) if labels is None else labels

    def __len__(self) -> int:
        return len(self.records)

    def _native(self, index: tf.Tensor) -> tf.data.Dataset:
        return self.records.dataset(index).map(self._decoded)

    def _decoded(self, example: tf.Tensor) -> tf.Tensor:
        wanted = {self._image_feature: tf.io.FixedLenFeature([], tf.string)}
        content = tf.io.parse_single_example(example, wanted)[self._image_feature]
        return decode_with_tensorflow(content, self._apply_exif)

    def _read(self, index: int) -> NDArray[np.uint8]:
        try:
            content = feature_values(self.records.read(index), self._image_feature)[0]
        except (DecodeError, IndexError):  # no example, or one without the feature
            raise ImageFault("damaged record") from None
        if not content or not isinstance(content, bytes):
            raise ImageFault("empty" if not content else "not an image")
        return decode_with_pillow(content, self._apply_exif, self._bits)

    def _name(self, index: int) -> str:
        return self.records.name(index)

    def _first_features(self) -> dict[str, str]:
        for index in range(min(len(self), 100)):
            try:
                return feature_kinds(self.records.read(index))
            except (ImageFault, DecodeError):
                continue  # damaged: the next may tell
        raise ValueError(f"{self.damage.setting}: holds no tf.train.Example: give files of serialised tf.train.Example")

    def _read_labels(self, feature: str, memory: cache.Memory | None) -> NDArray[np.int32]:
        def find() -> cache.Arrays:
            found = (label_of(example, feature) for example in self.records.unchecked())
            return {"labels": np.fromiter(found, np.int32, len(self))}

        return cache.remembered(memory and cache.Memory(f"{memory.key} {feature}", memory.stamps), find)["labels"]


def _choose(setting: str, wanted: str | None, present: dict[str, str], kind: str) -> str:
    """Return the feature that is wanted, or found where none is named, after a look at what it holds."""
    names = IMAGE_FEATURES if wanted is None else (wanted,)
    name = next((name for name in names if name in present), None)
    fitting = ", ".join(name for name, found in present.items() if found == kind) or "none of them does"
    if name is None:
        raise ValueError(
            f"{setting}: {wanted!r} is not in the examples: give one of their features, {', '.join(present) or 'none'}"
        )
    if present[name] != kind:
        raise ValueError(
            f"{setting}: {name!r} holds {HOLDS[present[name]]}, but {HOLDS[kind]} are read from it: "
            f"give a feature that holds them ({fitting})"
        )
    return name


def open_tfrecord(
    pattern: str,
    image_feature: str | None,
    label_feature: str | None,
    damaged_share: float = 0.05,
    setting: str = "data.path",
    apply_exif: bool = True,
    bits: int | None = None,
) -> ExampleSource:
    """Open the TFRecord files that a glob finds.

    Raises:
        FileNotFoundError, ValueError: as `record_files`, `list_records` and `ExampleSource`.
    """
    listing = list_records(record_files(pattern, setting), label_feature)
    return open_records(listing, image_feature, damaged_share, setting, apply_exif, bits)


def open_records(
    listing: RecordListing,
    image_feature: str | None,
    damaged_share: float = 0.05,
    setting: str = "data.path",
    apply_exif: bool = True,
    bits: int | None = None,
) -> ExampleSource:
    """Open the TFRecord files of a listing.

    Raises:
        ValueError: as `ExampleSource`.
    """
    return ExampleSource(
        TFRecords(listing.index),
        image_feature,
        listing.label_feature,
        damaged_share=damaged_share,
        setting=setting,
        labels=listing.labels,
        memory=None if listing.stamps is None else cache.Memory(f"labels {listing.index.files}", listing.stamps),
        apply_exif=apply_exif,
        bits=bits,
    )
