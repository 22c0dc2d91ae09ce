"""Tensors in files: .pth (PyTorch's weights-only reading, which runs no code), .safetensors, and folders of these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lut_tf.interop.folders import read_folder
from lut_tf.interop.told import Told
from lut_tf.interop.torch_files import TORCH_SUFFIXES, import_torch, read_torch
from lut_tf.writing import replacing

Tensors = dict[str, np.ndarray]

SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
FLOATS = ("float16", "bfloat16", "float32", "float64")
"""What weights may be written in."""

# Where trainers keep the weights inside a file, by what they are.
STUDENT_KEYS = ("model", "state_dict", "student")
TEACHER_KEYS = ("model_ema", "teacher")
# What trainers put in front of names; Hugging Face's `encoder.layer.` is a name of its own.
_PREFIX = re.compile(
    r"^(?:(?:module|model|net|_orig_mod|base_encoder|momentum_encoder|backbone|ema|vit|dinov2|dinov2_with_registers)\.(?!\d)"
    r"|encoder\.(?!layer\.))+"
)
_TEACHER_PREFIX = re.compile(r"(?:^|\.)(?:ema|momentum_encoder)\.")


class Weights(NamedTuple):
    """What a source holds, by bare names.

    Attributes:
        student: the trained network.
        teacher: its momentum teacher, where there is one.
        told: what stands beside the weights.
        what: what to call the source in a message.
    """

    student: Tensors
    teacher: Tensors | None
    told: Told = Told()
    what: str = "the mapping"


Source = str | os.PathLike[str] | Mapping[str, Any] | Weights


def describe(source: Source) -> str:
    """Return what to call `source` in a message."""
    if isinstance(source, Weights):
        return source.what
    return "the mapping" if isinstance(source, Mapping) else str(source)


def read_weights(source: Source) -> Weights:
    """Read the tensors of a file, folder or mapping and strip what trainers put around and in front of their names.

    A tensor of a dtype that NumPy does not have comes as a stand-in without numbers: `dtype_name` says what it was.

    Args:
        source: path of a .pth, .pt, .bin, .ckpt or .safetensors file, or of a folder that Hugging Face's or timm's
            `save_pretrained` wrote, or a mapping of names to arrays. Weights may lie under `model`, `state_dict` or
            `student`, and the teacher's under `model_ema` or `teacher`. What has been read comes back as it is.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: the file is damaged, of another kind, holds no tensors, or holds more than tensors.
    """
    if isinstance(source, Weights):
        return source
    content, told = (source, Told()) if isinstance(source, Mapping) else _read(Path(source))
    what = describe(source)
    groups: dict[bool, Tensors] = {False: {}, True: {}}
    for is_teacher, name, value in _tensors(content):
        prefix = found[0] if (found := _PREFIX.match(name)) else ""
        group, bare = groups[is_teacher or bool(_TEACHER_PREFIX.search(prefix))], name[len(prefix) :]
        if bare in group:
            raise ValueError(f"{what} holds {bare} twice, once as {name}: give one network at a time")
        group[bare] = _array(value, f"{what} cannot be loaded: {name}")
    student, teacher = groups[False], groups[True]
    if not student and not teacher:
        raise ValueError(f"{what} holds no tensors by name")
    grouped = any(isinstance(content.get(key), Mapping) for key in (*STUDENT_KEYS, *TEACHER_KEYS))
    told = told._replace(of_trainer=grouped or any(name.startswith("decoder") for name in student))
    return Weights(student or teacher, (teacher or None) if student else None, told, what)


def _tensors(content: Mapping[str, Any]) -> Iterator[tuple[bool, str, Any]]:
    """Yield (belongs to the teacher, name, tensor) of everything that has a shape."""
    nested = [key for key in (*STUDENT_KEYS, *TEACHER_KEYS) if isinstance(content.get(key), Mapping)]
    groups = {key: content[key] for key in nested} or {"": content}
    for key, group in groups.items():
        for name, value in group.items():
            if hasattr(value, "shape"):
                text = str(name)
                yield key in TEACHER_KEYS, text if text.isprintable() else ascii(text), value


def _array(value: Any, what: str) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    dtype = str(value.dtype).removeprefix("torch.")
    if str(value.layout) != "torch.strided" or value.is_quantized or value.device.type != "cpu":
        return stand_in(f"{value.layout} {dtype} on {value.device}".replace("torch.", ""), tuple(value.shape))
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{what} says that it is {'×'.join(map(str, value.shape))}, and the file holds less: it is damaged"
        )
    try:
        # NumPy has no bfloat16; and no float8, which is refused by name where it is wanted.
        return (value.detach().float() if dtype == "bfloat16" else value.detach()).numpy()
    except TypeError:
        return stand_in(dtype, tuple(value.shape))


def stand_in(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of the shape that occupies a single byte and remembers the name of a dtype."""
    return np.broadcast_to(np.zeros((), [(dtype, "u1")]), shape)


def dtype_name(array: np.ndarray) -> str:
    """Return what dtype an array has, or stands for (see `stand_in`)."""
    return array.dtype.names[0] if array.dtype.names else array.dtype.name


def _read(path: Path) -> tuple[Mapping[str, Any], Told]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the path of a file of weights")
    if path.is_dir() and path.suffix not in SUFFIXES:
        return read_folder(path, _read_file)
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ValueError(f"{path} is not a file of weights: give one that ends in {', '.join(SUFFIXES)}")
    return _read_file(path), Told()


def _read_file(path: Path) -> Mapping[str, Any]:
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return content


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)
    from safetensors import SafetensorError, safe_open

    floats = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}

    def tensor(file: Any, name: str) -> np.ndarray:
        piece = file.get_slice(name)
        kind, shape = piece.get_dtype(), tuple(piece.get_shape())
        return file.get_tensor(name) if kind in floats else stand_in(kind, shape)

    try:
        with safe_open(path, "np") as file:
            return {name: tensor(file, name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({' '.join(str(error).split())})") from error


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
        import_torch()
    return path


def write_weights(path: Path, content: Mapping[str, Any]) -> None:
    """Write names to arrays (.safetensors), or these also in groups by name (.pth), at once or not at all."""
    with replacing(path) as written:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(dict(content), written, metadata={"format": "pt"})  # Hugging Face insists on the format
            return
        torch = import_torch()

        def tensors(group: Mapping[str, Any]) -> dict[str, Any]:
            return {k: tensors(v) if isinstance(v, Mapping) else torch.tensor(v) for k, v in group.items()}

        torch.save(tensors(content), written)
