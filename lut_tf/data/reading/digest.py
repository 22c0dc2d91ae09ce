"""Which images a listing names, in 64 letters: the same wherever they lie, others where one comes or is renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lut_tf.data.reading.folder import FolderListing
from lut_tf.data.reading.records import RecordListing

if TYPE_CHECKING:
    from lut_tf.data.reading.cache import Texts
    from lut_tf.data.reading.listing import Listed


def digest_of(listed: Listed | None) -> str:
    """Return the SHA-256 of a listing (None: of nothing), by names below its common folder, in order, and classes.

    No image is read. A million names take about a second, and no memory to speak of.
    """
    found = hashlib.sha256()
    for piece in () if listed is None else _pieces(listed):
        found.update(piece)
    return found.hexdigest()


def written_of(listed: Listed | None) -> str:
    """Return the SHA-256 of the sizes and times of a listing's files: others where one was written anew in its place.

    No file is opened; a million take a few seconds. Of files that are not on this machine nothing is known.
    """
    found = hashlib.sha256()
    for path in _paths(listed):
        try:
            status = os.stat(path)
        except OSError:  # an address, or a file that is gone: whoever reads it says so
            continue
        found.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
    return found.hexdigest()


def _paths(listed: Listed | None) -> Iterable[str]:
    if listed is None:
        return ()
    if isinstance(listed, FolderListing):
        return (listed.files[number] for number in range(listed.images))
    return listed.index.files if isinstance(listed, RecordListing) else (file for file, _, _ in listed.parts)


def digest_of_part(digest: str, part: str) -> str:
    """Return the SHA-256 of some of the images of a digest, told by words that decide which."""
    return hashlib.sha256(f"{part} of {digest}".encode()).hexdigest()


def all_but(holdout: float) -> str:
    """Return the words for `digest_of_part` that tell what is trained on where a share is held out."""
    return f"all but {holdout!r}"


def _pieces(listed: Listed) -> Iterator[Any]:
    """Yield what tells one listing from another."""
    if isinstance(listed, FolderListing):
        yield _facts(listed.images, listed.classes)
        yield from _names(listed.files)
        return
    if isinstance(listed, RecordListing):
        index = listed.index
        yield _facts(listed.images, _relative(index.files))
        yield from (array.tobytes() for array in (index.file, index.start, index.length))
        return
    parts = [(os.path.basename(file), skip, take) for file, skip, take in listed.parts]
    yield _facts(listed.name, parts, listed.image, listed.label, listed.classes)


def _facts(*facts: Any) -> bytes:
    return json.dumps(facts).encode()


def _names(files: Texts) -> Iterator[Any]:
    """Yield the files' names below their common folder, each with an end."""
    first, last = (os.fsencode(files[i]) for i in (0, -1))  # sorted: what these two share, all share
    blob: Any = files.blob
    skip, start, names = _common([first, last]), 0, memoryview(blob)
    for end in files.ends.tolist():
        yield names[start + skip : end]
        yield b"\0"
        start = end


def _relative(files: list[str]) -> list[str]:
    skip = _common([os.fsencode(file) for file in files])
    return [os.fsdecode(os.fsencode(file)[skip:]) for file in files]


def _common(paths: Iterable[bytes]) -> int:
    """Return the length of what the paths share, up to a slash."""
    shared: Any = os.path.commonprefix(list(paths))
    return shared.rfind(b"/") + 1
