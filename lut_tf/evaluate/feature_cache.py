"""Features of all images of a source, computed once: a file of float32 that measures map into memory, not load."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lut_tf.data.reading.sources import Source, name_of
from lut_tf.evaluate.features import feature_batches
from lut_tf.evaluate.progress import line
from lut_tf.interop.sources import OpenedEncoder
from lut_tf.writing import nearest_existing, replacing

FOLDER = "features"
"""The folder of a run directory, or beside an encoder's file, that features are kept in."""
logger = logging.getLogger(__name__)


class NonFiniteFeatures(ValueError):
    """An image whose features are no finite numbers: nothing can be measured by them."""


def cached_features(
    folder: Path, opened: OpenedEncoder, pooling: str, source: Source, stamp: Mapping[str, Any]
) -> np.ndarray:
    """Return the features (N, D) float32 of all N images of a source, mapped from the file that keeps them.

    They are computed if no file keeps them, and written batch by batch: neither the computer's memory nor the
    accelerator's ever holds more than a batch. What is cut off midway leaves no file. A file is found by the encoder's
    checksum (in which its input size and preprocessing are), the pooling and the stamp.

    Args:
        folder: of such files; made where it is not there.
        opened: the encoder.
        pooling: `mean` or `cls`.
        source: the images.
        stamp: what makes the images these: digest, part, and how they are read. `part` is in the file's name.

    Raises:
        NonFiniteFeatures: an image's features hold NaN or infinity.
        lut_tf.errors.Stopped: too many images are damaged.
        ValueError: the disk has no room for them.
    """
    path, shape = folder / _name(opened, pooling, stamp), (len(source), opened.encoder.width)
    if (kept := _kept(path, shape)) is not None:
        return kept
    _check_room(folder, shape)
    batches = feature_batches(opened.encoder, pooling, source, np.arange(shape[0]))
    done, words = 0, f"features of the {stamp['part']} images"
    with replacing(path) as written, written.open("wb") as file, line(words, shape[0]) as shown:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            if not (finite := np.isfinite(batch).all(axis=1)).all():
                raise NonFiniteFeatures(_not_finite(source, done + int(np.argmin(finite)), stamp["part"], opened))
            file.write(batch.astype("<f4").tobytes())  # memory maps on a full disk end the process
            done += len(batch)
            shown.at(done)
    kept = _kept(path, shape)
    assert kept is not None
    return kept


def _name(opened: OpenedEncoder, pooling: str, stamp: Mapping[str, Any]) -> str:
    encoder = opened.encoder
    transform = [list(encoder.image_size), encoder.preprocessing.asdict(), pooling]
    key = json.dumps([opened.checksum, transform, stamp], sort_keys=True, default=str)
    letters = hashlib.sha256(key.encode()).hexdigest()[:16]
    return "{}_{}_{}x{}_{}.npy".format(stamp["part"], pooling, *encoder.image_size, letters)


def _kept(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return what a file keeps; None where there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        kept = np.load(path, mmap_mode="r", allow_pickle=False)
        if kept.shape != shape or kept.dtype != np.float32:
            raise ValueError(f"it has shape {kept.shape} and dtype {kept.dtype}")
    except (ValueError, EOFError) as error:
        logger.warning("%s is damaged (%s): the features are computed anew", path, error)
        return None
    return kept


def _check_room(folder: Path, shape: tuple[int, int]) -> None:
    needed, free = 4 * shape[0] * shape[1], shutil.disk_usage(nearest_existing(folder)).free
    if needed > free:
        raise ValueError(
            f"the features of {shape[0]} images take {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left: "
            "make room, or copy the encoder to another disk"
        )


def _not_finite(source: Source, index: int, part: str, opened: OpenedEncoder) -> str:
    return (
        f"{name_of(source, index)} of the {part} images has features that are not finite, by {opened.origin}: leave it "
        "out, or give another encoder"
    )
