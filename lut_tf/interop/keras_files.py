"""Keras' own files of our networks, and those that were written while some layers had other names."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras

import lut_tf.methods.lut
import lut_tf.methods.mae  # noqa: F401  (Keras finds the classes by their registered names)

WEIGHTS = "model.weights.h5"
"""What Keras calls the HDF5 file in a `.keras` archive."""

FILE_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, zipfile.BadZipFile, zlib.error)
"""What zip, JSON, HDF5 and Keras raise over a damaged file."""

RENAMED = {"expand": "mlp/fc1", "contract": "mlp/fc2"}
"""Layers of a `Block`: what the first files call them, and where Keras looks for them now."""


def load_keras(path: str | os.PathLike[str]) -> Any:
    """Return the network in a `.keras` file of ours: an encoder, or a whole `LUT` or `MAE` model, not compiled.

    Files from before the layers of a block were renamed are read by way of a temporary copy and stay as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read; the message is the reason alone, for callers know the setting that gave the path.
    """

    def read(folder: Path) -> Any:
        return keras.saving.load_model(_renamed_archive(Path(path), folder), compile=False)

    return _reading(Path(path), read)


def load_keras_weights(network: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load a `.weights.h5` file into `network`, with today's names or the first ones; see `load_keras`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds another network; the message is the reason alone.
    """
    _reading(Path(path), lambda folder: network.load_weights(_renamed_weights(Path(path), folder)))


def _reading(path: Path, read: Callable[[Path], Any]) -> Any:
    """Call `read` with a temporary folder."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give the path of a file of weights")
    try:
        with tempfile.TemporaryDirectory() as folder:
            return read(Path(folder))
    except FILE_ERRORS as error:
        raise ValueError(" ".join(str(error).split())) from error


def _renamed_archive(path: Path, folder: Path) -> Path:
    """Return a `.keras` file with today's names: `path` itself, or a copy in `folder`."""
    with zipfile.ZipFile(path) as archive:
        with archive.open(WEIGHTS) as stream, h5py.File(stream, "r") as file:
            if not _blocks_to_rename(file):
                return path
        weights = Path(archive.extract(WEIGHTS, folder))
        _rename(weights)
        copy = folder / "renamed.keras"
        with zipfile.ZipFile(copy, "w") as renamed:
            for name in archive.namelist():
                renamed.writestr(name, archive.read(name)) if name != WEIGHTS else renamed.write(weights, name)
    return copy


def _renamed_weights(path: Path, folder: Path) -> Path:
    """Return a `.weights.h5` file with today's names: `path` itself, or a copy in `folder`."""
    with h5py.File(path, "r") as file:
        if not _blocks_to_rename(file):
            return path
    copy = folder / WEIGHTS
    shutil.copyfile(path, copy)
    _rename(copy)
    return copy


def _rename(path: Path) -> None:
    """Give the blocks in an HDF5 file today's names."""
    with h5py.File(path, "r+") as file:
        for block in _blocks_to_rename(file):
            for first, current in RENAMED.items():
                block.move(first, current)


def _blocks_to_rename(file: h5py.File) -> list[h5py.Group]:
    """Return the groups of a file that hold a block's layers by their first names."""
    blocks: list[h5py.Group] = []

    def look(name: str, found: h5py.Group | h5py.Dataset) -> None:
        if isinstance(found, h5py.Group) and all(first in found for first in RENAMED):
            blocks.append(found)

    file.visititems(look)
    return blocks
