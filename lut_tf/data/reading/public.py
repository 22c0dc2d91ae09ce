"""Public data sets by name, as tensorflow-datasets has prepared them; read by index, undecoded."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lut_tf.data.reading import cache
from lut_tf.data.reading.contents import ImageFault, Unreachable, patiently
from lut_tf.data.reading.examples import ExampleSource, Records, TFRecords
from lut_tf.data.reading.records import RecordListing, chosen, list_records
from lut_tf.data.reading.remote import is_remote


class ArrayRecords:
    """Examples in array_record files; Python reads them, TensorFlow decodes them.

    Args:
        parts: file, number of its first record to take, how many to take.
    """

    def __init__(self, parts: list[tuple[str, int, int]]) -> None:
        self._files = [file for file, _, _ in parts]
        self._skips = [skip for _, skip, _ in parts]
        self._ends = np.cumsum([take for _, _, take in parts])
        self._readers: dict[int, Any] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def dataset(self, index: tf.Tensor) -> tf.data.Dataset:
        """See `Records.dataset`."""
        return tf.data.Dataset.from_tensors(index).map(
            lambda i: tf.ensure_shape(tf.numpy_function(self._bytes, [i], tf.string), [])
        )

    def _place(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - int(self._ends[part - 1] if part else 0) + self._skips[part]

    def _bytes(self, index: int) -> bytes:
        from array_record.python.array_record_module import ArrayRecordReader  # type: ignore[import-untyped]

        part, record = self._place(int(index))
        if part not in self._readers:
            self._readers[part] = ArrayRecordReader(self._files[part])
        return self._readers[part].read([record])[0]

    def read(self, index: int) -> bytes:
        """See `Records.read`."""
        try:
            return patiently(lambda: self._bytes(index))
        except Unreachable:
            raise
        except Exception:  # array_record raises RuntimeError, ValueError or IndexError, as the damage will have it
            raise ImageFault("damaged record") from None

    def unchecked(self) -> Iterator[bytes]:
        """See `Records.unchecked`."""
        for index in range(len(self)):
            try:
                yield self._bytes(index)
            except Exception:  # as in `read`
                yield b""

    def name(self, index: int) -> str:
        """See `Records.name`."""
        part, record = self._place(index)
        return f"{self._files[part]} record {record}"


def builder_of(name: str, data_dir: str | None) -> Any:
    """Return tensorflow-datasets' builder of a prepared data set.

    Raises:
        ValueError: there is no data set of this name.
        FileNotFoundError: it has not been prepared.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir))
    except tfds.core.registered.DatasetNotFoundError:
        raise ValueError(
            f"data.name={name!r} is no data set of tensorflow-datasets{similar(name)}: give another"
        ) from None
    except ValueError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unknown"
        raise ValueError(f"data.name={name!r} is no data set of tensorflow-datasets ({reason}): give another") from None
    if not builder.info.splits:
        where = "" if data_dir is None else f" --output {shlex.quote(data_dir)}"
        raise FileNotFoundError(
            f"data.name={name!r} has not been prepared in {builder.data_dir}: "
            f"run `lut-tf prepare {shlex.quote(name)}{where}` first"
        )
    return builder


def similar(name: str) -> str:
    """Return `, did you mean X?` for the public data set whose name is most like `name`, or nothing."""
    import tensorflow_datasets as tfds

    close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
    return f", did you mean {close[0]}?" if close else ""


class SplitListing(NamedTuple):
    """A split of a prepared data set, before it is opened.

    Attributes:
        name: the data set's name.
        parts: its files: path, number of the first record to take, how many to take.
        image: the feature that holds an image's bytes.
        label: the feature of its class number, or None.
        classes: class names, or None.
        records: where the records of TFRecord files are; None for array_record files, which know that themselves.
    """

    name: str
    parts: list[tuple[str, int, int]]
    image: str
    label: str | None
    classes: list[str] | None
    records: RecordListing | None

    @property
    def images(self) -> int:
        """Number of examples."""
        return sum(take for _, _, take in self.parts)

    @property
    def labelled(self) -> bool:
        """Whether the data set has class numbers."""
        return self.label is not None


def list_splits(builder: Any, splits: Sequence[tuple[str, str]], label: str | None = None) -> list[SplitListing]:
    """Find the records of some splits of a prepared data set; a file of several splits is looked at once.

    Args:
        builder: from `builder_of`.
        splits: name or slice of each split, and the setting that errors name.
        label: the feature of the class number; None: the first that is one.

    Raises:
        ValueError: there is no such split, it is empty, or the data set has no images.
    """
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    parts = [_parts(builder, split, setting) for split, setting in splits]
    if not images:
        raise ValueError(f"data.name={builder.info.name!r} holds no images ({', '.join(features)}): give another")
    label = label or (labels[0] if labels else None)
    records: RecordListing | None = None
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        records = list_records(sorted({file for split in parts for file, _, _ in split}), label)
    classes = None if label is None else list(features[label].names)
    return [
        SplitListing(builder.info.name, split, images[0], label, classes, records and chosen(records, split))
        for split in parts
    ]


def _parts(builder: Any, split: str, setting: str) -> list[tuple[str, int, int]]:
    try:
        wanted = builder.info.splits[split]
    except (KeyError, ValueError):
        known = ", ".join(builder.info.splits)
        raise ValueError(f"{setting}={split!r} is no split of {builder.info.name}: give one of {known}") from None
    parts = [(str(part.filename), part.skip, part.take) for part in wanted.file_instructions]
    if sum(take for _, _, take in parts) == 0:
        raise ValueError(f"{setting}={split!r} of {builder.info.name} is empty: give another")
    return parts


def open_split(
    listing: SplitListing,
    damaged_share: float = 0.05,
    setting: str = "data.split",
    apply_exif: bool = True,
    bits: int | None = None,
) -> ExampleSource:
    """Open a split of a prepared data set; labels are there if it has them.

    Args:
        listing: from `list_splits`.
        damaged_share: as in `ExampleSource`.
        setting: the setting that errors name.
        apply_exif: as in `ExampleSource`.
        bits: as in `ExampleSource`.

    Raises:
        ValueError: as `ExampleSource`.
    """
    found, files = listing.records, sorted({file for file, _, _ in listing.parts})
    records: Records = ArrayRecords(listing.parts) if found is None else TFRecords(found.index)
    memory = None
    if not any(map(is_remote, files)):
        stamps = cache.file_stamps(files) if found is None or found.stamps is None else found.stamps
        memory = cache.Memory(f"tfds {listing.parts}", stamps)
    return ExampleSource(
        records,
        listing.image,
        listing.label,
        listing.classes,
        damaged_share,
        setting,
        labels=None if found is None else found.labels,
        memory=memory,
        apply_exif=apply_exif,
        bits=bits,
    )
