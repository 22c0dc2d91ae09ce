"""Public data sets by name, as tensorflow-datasets has prepared them; read by index, undecoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from lut_tf.data.reading.decode import ImageFault
from lut_tf.data.reading.examples import ExampleSource, Records, TFRecords
from lut_tf.data.reading.records import chosen, file_stamps, index_records, is_remote


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
            return self._bytes(index)
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
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unknown"
        raise ValueError(f"data.name={name!r} is no data set of tensorflow-datasets ({reason}): give another") from None
    if not builder.info.splits:
        where = "" if data_dir is None else f" --output {data_dir}"
        raise FileNotFoundError(
            f"data.name={name!r} has not been prepared in {builder.data_dir}: run `lut-tf prepare {name}{where}` first"
        )
    return builder


def split_of(builder: Any, split: str, setting: str = "data.split") -> Any:
    """Return a split's description, slices such as `train[:90%]` too.

    Raises:
        ValueError: there is no such split.
    """
    try:
        return builder.info.splits[split]
    except (KeyError, ValueError):
        known = ", ".join(builder.info.splits)
        raise ValueError(f"{setting}={split!r} is no split of {builder.info.name}: give one of {known}") from None


def open_tfds(builder: Any, split: str, damaged_share: float = 0.05, setting: str = "data.split") -> ExampleSource:
    """Open a split of a prepared data set; labels are there if it has them.

    Args:
        builder: from `builder_of`.
        split: name or slice of a split.
        damaged_share: as in `ExampleSource`.
        setting: the setting that errors name.

    Raises:
        ValueError: there is no such split, or the data set has no images.
    """
    import tensorflow_datasets as tfds

    wanted = split_of(builder, split, setting)
    features = dict(builder.info.features)
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not images:
        raise ValueError(f"data.name={builder.info.name!r} holds no images ({', '.join(features)}): give another")
    parts = [(str(part.filename), part.skip, part.take) for part in wanted.file_instructions]
    if sum(take for _, _, take in parts) == 0:
        raise ValueError(f"{setting}={split!r} of {builder.info.name} is empty: give another")
    files = sorted({file for file, _, _ in parts})
    records: Records
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        records = ArrayRecords(parts)
    else:
        records = TFRecords(chosen(index_records(files), parts))
    local = not any(map(is_remote, files))
    return ExampleSource(
        records,
        images[0],
        labels[0] if labels else None,
        list(features[labels[0]].names) if labels else None,
        damaged_share,
        setting,
        key=f"tfds {parts}" if local else None,
        stamps=file_stamps(files) if local else None,
    )
