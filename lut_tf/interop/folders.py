"""Folders that Hugging Face's or timm's `save_pretrained` wrote: weights, and what stands in `config.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lut_tf.interop.preprocessing import PREPROCESSOR, of_huggingface, of_timm
from lut_tf.interop.told import Told
from lut_tf.models.preprocess import Preprocessing
from lut_tf.paths import SAVED_CONFIG as CONFIG
from lut_tf.paths import is_saved_folder

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""What weights are called; where they are spread over several files, `<name>.index.json` says which is where."""

_POOLINGS = {"None": None, "avg": "mean", "token": "cls"}
"""timm's `global_pool` in our words; its other ways keep their names."""


def read_folder(folder: Path, read_file: Callable[[Path], Mapping[str, Any]]) -> tuple[Mapping[str, Any], Told]:
    """Return the tensors of a folder by their names, and what its configuration tells.

    Raises:
        FileNotFoundError: there is no configuration, or no weights.
        ValueError: a file is damaged, or the configuration says that these weights are used in another way than here.
    """
    if not is_saved_folder(folder):
        raise FileNotFoundError(f"{folder} holds no {CONFIG}: give a file of weights, or a folder of save_pretrained")
    told = _told(folder, read_json(folder / CONFIG))
    content: dict[str, Any] = {}
    for file in _weight_files(folder):
        content |= read_file(file)
    return content, told


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is damaged or no JSON ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not settings by name")
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object to a JSON file."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(folder, index)
    raise FileNotFoundError(f"{folder} holds no weights: there should be {' or '.join(WEIGHT_FILES)}")


def _shards(folder: Path, index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(f"{index} names no files beside it: its weight_map is damaged")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, which {index.name} names")
    return [folder / name for name in names]


def _told(folder: Path, config: Mapping[str, Any]) -> Told:
    nested = config.get("pretrained_cfg")
    pretrained: Mapping[str, Any] = nested if isinstance(nested, Mapping) else {}
    activation = config.get("hidden_act", "gelu")
    if activation not in ("gelu", "gelu_python"):
        raise ValueError(f"{folder} cannot be loaded: hidden_act={activation!r}, and encoders here have the exact GELU")
    inputs = pretrained.get("input_size")
    size = config.get("image_size") or (inputs[1:] if isinstance(inputs, list) else None)
    preprocessing, told_by = _preprocessing(folder, pretrained)
    return Told(
        num_heads=_whole(folder, config, "num_attention_heads"),
        decoder_num_heads=_whole(folder, config, "decoder_num_attention_heads"),
        layer_norm_eps=_small(folder, config, "layer_norm_eps"),
        image_size=_size(folder, size),
        preprocessing=preprocessing,
        told_by=told_by,
        pooling=_POOLINGS.get(str(config.get("global_pool")), config.get("global_pool")),
        class_names=_class_names(folder, config),
    )


def _class_names(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return what Hugging Face (`id2label`) or timm (`label_names`) calls the classes; None where it is nothing."""
    labels, names = config.get("id2label"), config.get("label_names")
    if isinstance(labels, Mapping):
        numbers = range(len(labels))
        names = [labels.get(str(number)) for number in numbers]
        if names == [f"LABEL_{number}" for number in numbers]:  # what transformers writes where nobody gave names
            return None
    elif not isinstance(names, list):
        return None
    if not all(isinstance(name, str) for name in names):
        setting = "id2label" if isinstance(labels, Mapping) else "label_names"
        raise ValueError(f"{folder / CONFIG} is damaged: {setting} does not name the classes from 0 up")
    return tuple(names)


def _preprocessing(folder: Path, pretrained: Mapping[str, Any]) -> tuple[Preprocessing | None, str]:
    """Return what the folder says of it, and in which file."""
    path = folder / PREPROCESSOR
    if path.is_file():
        return of_huggingface(read_json(path), str(path)), PREPROCESSOR
    return of_timm(pretrained, str(folder / CONFIG)), f"pretrained_cfg in {CONFIG}"


def _whole(folder: Path, config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{folder / CONFIG} is damaged: {name}={value!r} is no whole number above 0")
    return value


def _small(folder: Path, config: Mapping[str, Any], name: str) -> float | None:
    value = config.get(name)
    if value is not None and (type(value) not in (float, int) or not 0 < value < 1):
        raise ValueError(f"{folder / CONFIG} is damaged: {name}={value!r} is not above 0 and below 1")
    return value


def _size(folder: Path, size: Any) -> tuple[int, int] | None:
    sides = [size, size] if type(size) is int else size
    if sides is None:
        return None
    if not isinstance(sides, list) or len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"{folder / CONFIG} is damaged: image_size={size!r} is neither a number nor height and width")
    return sides[0], sides[1]
