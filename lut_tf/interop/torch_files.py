"""Reading PyTorch's files without running what is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

from lut_tf.interop.archives import check_archive

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
# What trainers keep beside the weights, settings, paths, numbers and metrics, by the library it comes from.
_BESIDE = re.compile(
    r"(?:argparse|collections|datetime|lightning|numpy|omegaconf|pathlib|pytorch_lightning|typing)\."
    r"|builtins\.(?:bool|bytes|complex|dict|float|int|list|object|range|set|slice|str|tuple)$"
)
# Files from before 2020 are no zip and cannot be asked what they name: what is usual is foreseen.
_USUAL = (
    "argparse.Namespace", "numpy.dtype", "numpy.ndarray", "pathlib.PosixPath", "pathlib.WindowsPath",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)  # fmt: skip


class MissingExtraError(ImportError, ValueError):
    """An optional library is not installed; the message names the extra that brings it."""


class _Inert:
    """Stands for whatever a file names beside its weights: it takes anything and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take anything."""

    def __setstate__(self, state: Any) -> None:
        """Take anything."""


class _InertDict:
    """Stands for a dictionary of somebody's: what comes of it is a plain one, which may be filled."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return {}


def import_torch() -> Any:
    """Return PyTorch.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("a .pth file needs PyTorch: pip install torch") from error
    return torch


def read_torch(path: Path) -> Any:
    """Return what is in a file of `torch.save`: tensors and plain values, and nothing in the place of anything else.

    Raises:
        MissingExtraError: PyTorch is not installed.
        ValueError: the file is damaged, or names what could run code.
    """
    torch = import_torch()
    try:
        stand_ins = [(_InertDict if name.lower().endswith("dict") else _Inert, name) for name in _named(path, torch)]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path} is refused: it carries {named[1]}, which could run code when unpickled; only tensors and "
                "plain values are read, beside what is left out unread: settings, paths and numbers of trainers"
            ) from error
        raise _damaged(path, error) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can end in any
        raise _damaged(path, error) from error


def _named(path: Path, torch: Any) -> list[str]:
    """Return the names, beside PyTorch's own, that stand in a file and may have a stand-in."""
    if not zipfile.is_zipfile(path):
        return list(_USUAL)
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path.stat().st_size)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [name for name in names if _BESIDE.match(name)]


def _damaged(path: Path, error: Exception) -> ValueError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path} is damaged or no PyTorch file of tensors ({first})")
