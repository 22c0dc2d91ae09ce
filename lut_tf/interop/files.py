"""Tensors in files: .pth (PyTorch's weights-only reading, which runs no code) and .safetensors."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lut_tf.writing import replacing

Tensors = dict[str, np.ndarray]
Source = str | os.PathLike[str] | Mapping[str, Any]

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")

# Where trainers keep the weights inside a file, by what they are.
STUDENT_KEYS = ("model", "state_dict", "student")
TEACHER_KEYS = ("model_ema", "teacher")
# What trainers put in front of names; Hugging Face's `encoder.layer.` is a name of its own.
_PREFIX = re.compile(
    r"^(?:(?:module|_orig_mod|base_encoder|momentum_encoder|backbone|ema|vit)\.|encoder\.(?!layer\.))+"
)
_TEACHER_PREFIX = re.compile(r"(?:^|\.)(?:ema|momentum_encoder)\.")


class MissingExtraError(ImportError, ValueError):
    """An optional library is not installed; the message names the extra that brings it."""


class Weights(NamedTuple):
    """What a source holds, by bare names: the trained network, and its momentum teacher where there is one."""

    student: Tensors
    teacher: Tensors | None


def describe(source: Source) -> str:
    """Return what to call `source` in a message."""
    return "the mapping" if isinstance(source, Mapping) else str(source)


def read_weights(source: Source) -> Weights:
    """Read the tensors of a file or mapping and strip what trainers put around and in front of their names.

    Args:
        source: path of a .pth, .pt, .bin or .safetensors file, or a mapping of names to arrays; a file or mapping may
            keep the weights under `model`, `state_dict` or `student`, and the teacher's under `model_ema` or `teacher`.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: the file is damaged, of another kind, holds no tensors, or holds more than tensors.
    """
    content = source if isinstance(source, Mapping) else _read_file(Path(source))
    groups: dict[bool, Tensors] = {False: {}, True: {}}
    for is_teacher, name, value in _tensors(content):
        prefix = found[0] if (found := _PREFIX.match(name)) else ""
        group, bare = groups[is_teacher or bool(_TEACHER_PREFIX.search(prefix))], name[len(prefix) :]
        if bare in group:
            raise ValueError(f"{describe(source)} holds {bare} twice, once as {name}: give one network at a time")
        group[bare] = value
    student, teacher = groups[False], groups[True]
    if not student and not teacher:
        raise ValueError(f"{describe(source)} holds no tensors by name")
    return Weights(student, teacher or None) if student else Weights(teacher, None)


def _tensors(content: Mapping[str, Any]) -> Iterator[tuple[bool, str, np.ndarray]]:
    """Yield (belongs to the teacher, name, array) of everything that has a shape."""
    nested = [key for key in (*STUDENT_KEYS, *TEACHER_KEYS) if isinstance(content.get(key), Mapping)]
    groups = {key: content[key] for key in nested} or {"": content}
    for key, group in groups.items():
        for name, value in group.items():
            if hasattr(value, "shape"):
                yield key in TEACHER_KEYS, str(name), _array(value)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor; NumPy has no bfloat16
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def _read_file(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the path of a file of weights")
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ValueError(f"{path} is not a file of weights: give one that ends in {', '.join(SUFFIXES)}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return content


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    import ml_dtypes  # noqa: F401  (gives NumPy bfloat16, which safetensors asks it for)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("a .pth file needs PyTorch: pip install torch") from error
    return torch


def _read_torch(path: Path) -> Any:
    torch = _torch()
    try:
        # Trainers keep their settings beside the weights; a Namespace is a bag of values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} is refused: it carries {named[1]}, which could run code when unpickled; "
                "only tensors, plain values and argparse.Namespace are read"
            ) from error
        raise ValueError(f"{path} is damaged or no PyTorch file of tensors ({_first_line(error)})") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no PyTorch file of tensors ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_target(path: str | os.PathLike[str], suffixes: tuple[str, ...] = (".pth", ".safetensors")) -> Path:
    """Return the path to write to.

    Raises:
        FileNotFoundError: its folder does not exist.
        MissingExtraError: it ends in .pth and PyTorch is not installed.
        ValueError: it ends in something else than `suffixes`.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise ValueError(f"{path} does not say what to write: end it in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path.absolute().parent} is not a folder: make it first")
    if path.suffix == ".pth":
        _torch()
    return path


def write_weights(path: Path, content: Mapping[str, Any]) -> None:
    """Write names to arrays (.safetensors), or these also in groups by name (.pth), at once or not at all."""
    with replacing(path) as written:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(dict(content), written, metadata={"format": "pt"})  # Hugging Face insists on the format
            return
        torch = _torch()

        def tensors(group: Mapping[str, Any]) -> dict[str, Any]:
            return {k: tensors(v) if isinstance(v, Mapping) else torch.tensor(v) for k, v in group.items()}

        torch.save(tensors(content), written)
