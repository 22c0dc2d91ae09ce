"""Keras' own files of our networks, and those that were written while some layers had other names."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

import lut_tf.methods.registry
import lut_tf.models.classifier
import lut_tf.training.optimizer  # noqa: F401  (Keras finds the classes by their registered names)
from lut_tf.interop.archives import EXPANSION, check_archive
from lut_tf.interop.shapes import block_numbers, check_held, unfit

WEIGHTS = "model.weights.h5"
"""What Keras calls the HDF5 file in a `.keras` archive."""

RENAMED = {"expand": "mlp/fc1", "contract": "mlp/fc2"}
"""Layers of a `Block`: what the first files call them, and where Keras looks for them now."""


def load_keras(path: str | os.PathLike[str]) -> Any:
    """Return the network in a `.keras` file of ours: an encoder, or a whole method, not compiled.

    Files from before the layers of a block were renamed are read by way of a temporary copy and stay as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or a weight is not finite; the message is the reason alone, for callers know the
            setting that gave the path.
    """

    def read(folder: Path) -> Any:
        _check(Path(path))
        return keras.saving.load_model(_renamed_archive(Path(path), folder), compile=False)

    return _reading(Path(path), read)


def load_keras_weights(network: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load a `.weights.h5` file into `network`, with today's names or the first ones; see `load_keras`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or holds another network; the message is the reason alone.
    """

    def read(folder: Path) -> keras.Model:
        network.load_weights(_renamed_weights(Path(path), folder))
        return network

    _reading(Path(path), read)


def _reading(path: Path, read: Callable[[Path], Any]) -> Any:
    """Call `read` with a temporary folder, and look at the weights of the network that it returns."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give the path of a file of weights")
    try:
        with tempfile.TemporaryDirectory() as folder:
            network = read(Path(folder))
    except Exception as error:  # zip, JSON, HDF5 and Keras over a damaged file: it can end in any
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    for variable in network.variables:
        if variable.dtype.startswith(("float", "bfloat")) and (reason := unfit(np.asarray(variable))):
            raise ValueError(f"{variable.path} {reason}")
    return network


def _check(path: Path) -> None:
    """Refuse a `.keras` file that is damaged, is of other classes, or would make a network that it cannot fill.

    Raises:
        ValueError: it is; or whatever zip, JSON and HDF5 raise.
    """
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path.stat().st_size)
        config = json.loads(archive.read("config.json"))
        with archive.open(WEIGHTS) as stream, h5py.File(stream, "r") as file:
            held = _held(file, path.stat().st_size)
    objects = list(_objects(config))
    for each in objects:
        name, module = each.get("registered_name"), str(each.get("module"))
        known = keras.saving.get_registered_object(str(name)) if str(name).startswith("lut_tf>") else None
        if known is None and module.partition(".")[0] not in ("keras", "builtins"):
            raise ValueError(f"it names {module}.{each['class_name']}, which is none of lut_tf's classes")
    if not objects or objects[0] is not config:
        raise ValueError("config.json describes no network")
    for each in objects:
        _check_size(each, held)


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that Keras would make of a configuration, the outermost first."""
    if isinstance(part, dict) and "class_name" in part:
        yield part
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for each in inner:
        yield from _objects(each)


def _held(file: h5py.File, size: int) -> list[int]:
    """Return how many numbers each data set of a file of `size` bytes holds."""
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, part: found.append(part) if isinstance(part, h5py.Dataset) else None)
    if sum(each.nbytes for each in found) > EXPANSION * size:
        raise ValueError(f"its weights say that they are more than {EXPANSION} times as large as itself")
    return [each.size for each in found]


def _check_size(described: dict[str, Any], held: list[int]) -> None:
    """Refuse sizes in a network's configuration for which there are far too few weights."""
    kind, config = described.get("registered_name"), described.get("config")
    if not isinstance(config, dict):
        raise ValueError(f"{kind} is described by nothing")
    if kind == "lut_tf>ViTEncoder":
        width, depth, patch = (_whole(config, name) for name in ("width", "depth", "patch_size"))
        height, breadth = config["image_size"]
        numbers = block_numbers(width, depth) + width * (3 * patch**2 + height * breadth // patch**2)
        numbers += width * config.get("register_tokens", 0)
    elif kind == "lut_tf>PixelDecoder":
        width, depth, patch, outer = (_whole(config, n) for n in ("width", "depth", "patch_size", "encoder_width"))
        numbers = block_numbers(width, depth) + width * (3 * patch**2 + outer + config["grid"][0] * config["grid"][1])
    elif kind == "lut_tf>LinearDecoder":
        depth, numbers = 1, (_whole(config, "encoder_width") + 1) * 3 * _whole(config, "patch_size") ** 2
    elif kind == "lut_tf>MLPHead":
        width, depth, hidden = _whole(config, "width"), config["depth"], _whole(config, "hidden")
        numbers = depth * width * hidden + max(0, depth - 2) * hidden**2
    elif kind == "lut_tf>ViTClassifier":
        numbers, depth = _whole(config, "classes") * _whole(config["encoder"]["config"], "width"), 1
    elif kind == "lut_tf>LUT" and not all(isinstance(config.get(head), dict) for head in ("projector", "predictor")):
        raise ValueError("config.json lacks a head of the network")
    else:
        return
    check_held(numbers, held)
    if depth > len(held):
        raise ValueError(f"depth={depth}, and it holds {len(held)} weights")


def _whole(config: Any, name: str) -> int:
    if type(config[name]) is not int or config[name] < 1:
        raise ValueError(f"{name}={config[name]!r} is no whole number above 0")
    return config[name]


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
