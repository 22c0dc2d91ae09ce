"""TFRecord files read by index: where each record begins is found out once, so that any order starts anywhere at once.

A record is 8 bytes of length, 4 of the length's checksum, the data, 4 of the data's checksum. Finding where records
begin touches 12 bytes a record and needs no TensorFlow, and is remembered. Files of TensorFlow's file systems are read
whole, once, and their labels are taken in the same pass.
"""

from __future__ import annotations

import glob
import logging
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lut_tf.data.reading import cache
from lut_tf.data.reading.cache import Arrays, Stamps
from lut_tf.data.reading.remote import is_remote, remote_errors
from lut_tf.paths import spelled_out

LOGGER = logging.getLogger(__name__)
HEADER, FOOTER = 12, 4
POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed
GZIP = b"\x1f\x8b"


class RecordIndex(NamedTuple):
    """Where the records of some files are.

    Attributes:
        files: the files, sorted.
        file: int32 (N,), the number of each record's file.
        start: int64 (N,), the byte at which it begins, its header included.
        length: int64 (N,), bytes of its data.
    """

    files: list[str]
    file: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int64]


@dataclass(frozen=True)
class RecordListing:
    """What is found out about some TFRecord files before they are opened.

    Attributes:
        index: where their N records are.
        label_feature: the feature of the class number, or None.
        labels: class numbers int32 (N,), -1 where a record is damaged; None: there are none, or they are still to be
            read, as those of local files.
        stamps: what tells that the files have changed; None for those that are not on this machine.
    """

    index: RecordIndex
    label_feature: str | None
    labels: NDArray[np.int32] | None
    stamps: Stamps | None

    @property
    def images(self) -> int:
        """Number of records N."""
        return len(self.index.file)

    @property
    def labelled(self) -> bool:
        """Whether the records have class numbers."""
        return self.label_feature is not None

    @property
    def classes(self) -> None:
        """Class names, which TFRecord files do not have."""
        return None


def record_files(pattern: str, setting: str = "data.path") -> list[str]:
    """Return the files that a glob finds, sorted; patterns of TensorFlow's file systems (`gs://…`) import TensorFlow.

    A file or folder that exists is taken by its name, whatever is in it: `photos [2020]/*.tfrecord`.

    Raises:
        FileNotFoundError: there are none.
        ValueError: TensorFlow cannot read there.
    """
    if is_remote(pattern):
        with remote_errors(pattern, setting) as tf:
            files = sorted(tf.io.gfile.glob(pattern))
    else:
        files = sorted(os.path.abspath(file) for file in _found(spelled_out(pattern)) if os.path.isfile(file))
    if not files:
        remedy = "give a pattern of TFRecord files, such as 'folder/train-*.tfrecord'"
        raise FileNotFoundError(f"{setting}: {pattern!r} finds no file: {remedy}")
    return files


def _found(pattern: str) -> list[str]:
    """Return what a pattern finds on this machine; of a file, or folder, that has that very name, the name is none."""
    if os.path.isfile(pattern):
        return [pattern]
    folder, name = os.path.split(pattern)
    return glob.glob(os.path.join(glob.escape(folder) if os.path.isdir(folder) else folder, name))


def crc32c(values: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the CRC-32C (N,) of each row of bytes (N, n); RFC 3720, appendix B.4."""
    table: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1).astype(np.uint32)
    crc: NDArray[np.uint32] = np.full(len(values), 0xFFFFFFFF, np.uint32)
    for column in values.T:
        crc = (table[(crc ^ column) & 0xFF] ^ (crc >> 8)).astype(np.uint32)
    return np.bitwise_not(crc)


def _masked(crc: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Mask a checksum as TFRecord files do."""
    return (((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)).astype(np.uint32)


def _scan(path: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts and lengths of a file's records, up to the first that is cut short or whose header is damaged.

    Raises:
        ValueError: the file is compressed, or does not even begin with a record.
    """
    starts: list[int] = []
    size = os.path.getsize(path)
    if size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = 0
        while at + HEADER <= size:
            following = at + HEADER + struct.unpack_from("<Q", content, at)[0] + FOOTER
            if following > size:
                break
            starts.append(at)
            at = following
        headers = b"".join(content[start : start + HEADER] for start in starts)
        compressed = content[:2] == GZIP
    rows = np.frombuffer(headers, np.uint8).reshape(-1, HEADER)
    good = _masked(crc32c(rows[:, :8])) == rows[:, 8:].copy().view("<u4")[:, 0]
    count = int(np.argmin(good)) if not good.all() else len(good)
    if not count:
        what = "is compressed" if compressed else "is no TFRecord file"
        raise ValueError(f"data.path: {path!r} {what}: give uncompressed TFRecord files")
    end = starts[count] if count < len(starts) else at
    if end != size:
        LOGGER.warning("data.path: %s is damaged at byte %d: its first %d records are used", path, end, count)
    return np.array(starts[:count], np.int64), rows[:count, :8].copy().view("<i8")[:, 0]


def list_records(files: Sequence[str], label_feature: str | None = None) -> RecordListing:
    """Find the records of local or remote TFRecord files; of local ones it is remembered while they do not change.

    Args:
        files: paths, all local or all remote.
        label_feature: the feature of the class number, which is taken in passing where a whole file is read anyway.

    Raises:
        ValueError: a file is compressed or no TFRecord file.
    """
    if any(map(is_remote, files)):
        found = [_scan_remote(file, label_feature) for file in files]
        index = _joined(files, [(starts, lengths) for starts, lengths, _ in found])
        labels = None if label_feature is None else np.concatenate([labels for _, _, labels in found])
        return RecordListing(index, label_feature, labels, None)
    stamps = cache.file_stamps(files)

    def find() -> Arrays:
        index = _joined(files, [_scan(file) for file in files])
        return {"number": index.file, "start": index.start, "length": index.length}

    arrays = cache.remembered(cache.Memory(f"tfrecord {list(files)}", stamps), find)
    index = RecordIndex(list(files), arrays["number"], arrays["start"], arrays["length"])
    return RecordListing(index, label_feature, None, stamps)


def _joined(files: Sequence[str], found: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> RecordIndex:
    numbers = np.repeat(np.arange(len(files), dtype=np.int32), [len(starts) for starts, _ in found])
    starts, lengths = (np.concatenate(part) for part in zip(*found, strict=True))
    return RecordIndex(list(files), numbers, starts, lengths)


def _scan_remote(
    path: str, label_feature: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Read a whole file of one of TensorFlow's file systems: small reads there cost more than large ones.

    Returns:
        starts, lengths, and labels, of which there are none without a feature.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or does not even begin with a record.
    """
    found: list[int] = []
    labels: list[int] = []
    with remote_errors(path, "data.path") as tf:
        from lut_tf.data.reading.features import label_of  # imports TensorFlow

        try:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                found.append(len(record))
                if label_feature is not None:
                    labels.append(label_of(record, label_feature))
        except tf.errors.DataLossError:
            if not found:
                raise ValueError(f"data.path: {path!r} is no TFRecord file: give uncompressed TFRecord files") from None
            LOGGER.warning("data.path: %s is damaged: its first %d records are used", path, len(found))
    lengths = np.array(found, np.int64)
    sizes = lengths + (HEADER + FOOTER)
    return np.cumsum(sizes) - sizes, lengths, np.array(labels, np.int32)


def chosen(listing: RecordListing, parts: Sequence[tuple[str, int, int]]) -> RecordListing:
    """Keep, of the files named, `take` records from number `skip` on: (file, skip, take) for each part."""
    index, labels, stamps = listing.index, listing.labels, listing.stamps
    first = {file: int(np.searchsorted(index.file, number)) for number, file in enumerate(index.files)}
    numbers = np.concatenate([first[file] + np.arange(skip, skip + take) for file, skip, take in parts])
    kept = RecordIndex(index.files, index.file[numbers], index.start[numbers], index.length[numbers])
    own = None if stamps is None else {file: stamps[file] for file in sorted({file for file, _, _ in parts})}
    return RecordListing(kept, listing.label_feature, None if labels is None else labels[numbers], own)


def named(index: RecordIndex, record: int) -> str:
    """Say which record it is, for people: file and byte."""
    return f"{Path(index.files[index.file[record]])} at byte {index.start[record]}"
