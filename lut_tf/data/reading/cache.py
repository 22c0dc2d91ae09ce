"""Remembered listings: what took long to find out about a data set, kept between runs while nothing has changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lut_tf.writing import replacing

Arrays = dict[str, NDArray[Any]]
Stamps = dict[str, list[int]]
"""What tells that a folder or file has changed: its modification time in ns, and its number of entries or bytes."""

FORMAT = 2
SETTLED = 2.0
"""Seconds: what changed later than this before the listing may change again within one tick of the file system."""


class Memory(NamedTuple):
    """What to remember something by: its name, and what tells that it has changed."""

    key: str
    stamps: Stamps


def cache_folder() -> Path:
    """Return where listings are kept: `$XDG_CACHE_HOME/lut_tf`, by default `~/.cache/lut_tf`; may be deleted."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lut_tf"


def _place(key: str) -> Path:
    return cache_folder() / f"{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:32]}.npz"


def load(key: str) -> tuple[Stamps, Arrays] | None:
    """Return what `save` was given for `key`, or None: nothing is there, or nothing that can be read."""
    try:
        with np.load(_place(key), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").item())
    except Exception:  # missing, cut short, another program's: to list again is the remedy for them all
        return None
    return (about["stamps"], arrays) if about["key"] == key and about["format"] == FORMAT else None


def save(key: str, stamps: Stamps, arrays: Arrays) -> None:
    """Keep `arrays` for `key`, whole or not at all, unless something changed a moment ago or the disk is read-only."""
    if any(stamp[0] > (time.time() - SETTLED) * 1e9 for stamp in stamps.values()):
        return
    about = np.array(json.dumps({"key": key, "format": FORMAT, "stamps": stamps}))
    try:
        with replacing(_place(key)) as path:
            np.savez(path, about=about, **arrays)  # type: ignore[arg-type]
    except OSError:
        return  # the listing is made again next time


def file_stamps(files: Sequence[str]) -> Stamps:
    """Return what tells that one of some local files has changed."""
    return {file: [(found := os.stat(file)).st_mtime_ns, found.st_size] for file in files}


def remembered(memory: Memory | None, find: Callable[[], Arrays]) -> Arrays:
    """Return what was found out before under this memory's key and stamps, else what `find` finds out now."""
    if memory is None:
        return find()
    known = load(memory.key)
    if known is not None and known[0] == memory.stamps:
        return known[1]
    arrays = find()
    save(memory.key, memory.stamps, arrays)
    return arrays


class Texts:
    """Many texts in two arrays: 1.28 million paths take their own bytes and 8 more, where Python takes 100 more.

    Attributes:
        blob: uint8, all texts, one after the other.
        ends: int64 (N,), where each of them ends.
    """

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.blob, self.ends = blob, ends

    @classmethod
    def of(cls, texts: list[bytes]) -> Texts:
        """Put texts together."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(np.frombuffer(b"".join(texts), np.uint8), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.blob[start : self.ends[index]].tobytes())
