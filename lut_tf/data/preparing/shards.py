"""A folder of images as TFRecord files with a manifest: resumable after a kill, in parallel, with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from lut_tf.data.preparing.space import check_space
from lut_tf.data.reading.digest import digest_of
from lut_tf.data.reading.folder import FolderListing, list_folder
from lut_tf.startup import import_tensorflow, quieten_tensorflow
from lut_tf.writing import remove_unfinished, replacing, write_text

IMAGES = 1000
MANIFEST = "manifest.json"


class Shard(NamedTuple):
    """One file to write: its path, and the images that go into it."""

    path: str
    files: list[str]
    labels: list[int] | None
    classes: list[str] | None


def write_shards(source: str, output: str, shards: int, workers: int) -> str:
    """Write the images of a folder, undecoded, into TFRecord files of `tf.train.Example`s.

    The features are `image/encoded`, `image/filename`, and with class folders `image/class/label` (from 0) and
    `image/class/text`. File s of S takes every S-th image from number s on, so that every file holds all classes. A
    file that is whole (it stands in a `.done` note with its size) is kept when the command is started again.

    Args:
        source: the folder, local or mounted.
        output: where `shard-00000-of-00042.tfrecord`, … and `manifest.json` are written.
        shards: how many files; 0: about 1,000 images each.
        workers: processes; 1: this one.

    Returns:
        a line that says what is ready and how to use it.

    Raises:
        FileNotFoundError, ValueError: as `list_folder`; too little space; the folder holds other images' records.
    """
    listing, folder = list_folder(source, "SOURCE"), Path(output).expanduser()
    count = len(listing.files)
    shards = min(shards or -(-count // IMAGES), count)
    plan = _plan(listing, folder, shards)
    size = {"images": count, "shards": shards}
    _begin(folder, size | {"listing": digest_of(listing)})
    remove_unfinished(folder)
    notes = {shard.path: _done(shard) for shard in plan}
    todo = [shard for shard in plan if notes[shard.path] is None]
    check_space(folder, _bytes(todo))
    _run(todo, workers, len(plan), notes)
    manifest = {
        "source": str(Path(source).expanduser().absolute()),
        **size,
        "classes": listing.classes,
        "features": ["image/encoded", "image/filename"]
        + ([] if listing.classes is None else ["image/class/label", "image/class/text"]),
        "files": [{"file": Path(shard.path).name, **(notes[shard.path] or {})} for shard in plan],
    }
    write_text(folder / MANIFEST, _json(manifest))
    label = "" if listing.classes is None else " --data.label_feature image/class/label"
    return (
        f"{count} images are ready in {shards} files, listed with their SHA-256 in {folder / MANIFEST}: "
        f"lut-tf train --data.source tfrecord --data.path {shlex.quote(f'{folder}/*.tfrecord')}{label}"
    )


def _plan(listing: FolderListing, folder: Path, shards: int) -> list[Shard]:
    plan = []
    for number in range(shards):
        chosen = range(number, len(listing.files), shards)
        labels = None if listing.labels is None else listing.labels[number::shards].tolist()
        path = folder / f"shard-{number:05}-of-{shards:05}.tfrecord"
        plan.append(Shard(str(path), [listing.files[i] for i in chosen], labels, listing.classes))
    return plan


def _begin(folder: Path, identity: dict[str, object]) -> None:
    """Refuse a folder of something else, so that two data sets never mix; note what this one is."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "source.json"
    if note.exists():
        if json.loads(note.read_text(encoding="utf-8")) != identity:
            raise ValueError(
                f"--output={str(folder)!r} holds records of other images or in another number of files: "
                "give another --output, or delete it"
            )
    elif any(folder.glob("*.tfrecord")):
        raise ValueError(f"--output={str(folder)!r} holds other TFRecord files: give another --output")
    else:
        write_text(note, _json(identity))


def _done(shard: Shard) -> dict[str, object] | None:
    """Return the note of a file that is whole, or None."""
    note = Path(shard.path + ".done")
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        return known if os.path.getsize(shard.path) == known["bytes"] else None
    except (OSError, ValueError, KeyError):
        return None


def _bytes(plan: list[Shard]) -> int:
    return sum(os.path.getsize(file) + 200 for shard in plan for file in shard.files if os.path.exists(file))


def _run(todo: list[Shard], workers: int, total: int, notes: dict[str, dict[str, object] | None]) -> None:
    """Write the files side by side, with a line of progress; a kill leaves whole files, and unfinished ones apart."""
    written = _written_here(todo) if workers == 1 else _written_by_processes(todo, workers)
    for shard, note in written:
        notes[shard.path] = note
        ready = sum(note is not None for note in notes.values())
        print(f"\r{ready} of {total} files written", end="", file=sys.stderr, flush=True)
    if todo:
        print(file=sys.stderr)


def _written_here(todo: list[Shard]) -> Iterator[tuple[Shard, dict[str, object]]]:
    for shard in todo:
        yield shard, write_shard(shard)


def _written_by_processes(todo: list[Shard], workers: int) -> Iterator[tuple[Shard, dict[str, object]]]:
    if not todo:
        return
    # New processes, not copies: a copy of one that has threads may hang.
    with ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(write_shard, shard): shard for shard in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_shard(shard: Shard) -> dict[str, object]:
    """Write one file, whole or not at all, and return what the manifest says of it.

    A file that vanished or cannot be read is left out and named under `unreadable`.
    """
    quieten_tensorflow()
    import_tensorflow()
    import tensorflow as tf

    path, unreadable, written = Path(shard.path), [], 0
    with replacing(path) as part:
        with tf.io.TFRecordWriter(str(part)) as writer:
            for number, file in enumerate(shard.files):
                try:
                    content = Path(file).read_bytes()
                except OSError:
                    unreadable.append(file)
                    continue
                writer.write(_example(tf, content, file, number, shard))
                written += 1
        note: dict[str, object] = {"images": written, "bytes": part.stat().st_size, "sha256": file_digest(part)}
    note |= {"unreadable": unreadable} if unreadable else {}
    write_text(Path(shard.path + ".done"), _json(note))
    return note


def _example(tf: object, content: bytes, file: str, number: int, shard: Shard) -> bytes:
    train = tf.train  # type: ignore[attr-defined]

    def text(value: bytes) -> object:
        return train.Feature(bytes_list=train.BytesList(value=[value]))

    features = {"image/encoded": text(content), "image/filename": text(os.fsencode(os.path.basename(file)))}
    if shard.labels is not None and shard.classes is not None:
        label = shard.labels[number]
        features["image/class/label"] = train.Feature(int64_list=train.Int64List(value=[label]))
        features["image/class/text"] = text(os.fsencode(shard.classes[label]))
    return train.Example(features=train.Features(feature=features)).SerializeToString()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"
