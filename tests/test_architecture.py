"""Imports go one way, and TensorFlow stays where it belongs: what docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lut_tf"
# A package may import itself and the rows before its own, not its neighbours; those of the first row each other too.
ROWS = [
    ("config", "lazy", "errors", "startup", "writing", "paths"),
    ("models",),
    ("step",),
    ("methods", "data"),
    ("training",),
    ("interop",),
    ("evaluate", "analysis", "export"),
    ("tasks",),
    ("cli", "__main__"),
]
WITHOUT_TENSORFLOW = [
    "config", "cli", "models", "methods", "step/trainable.py", "step/means.py", "tasks/preflight.py",
    "training/schedules.py", "training/run_directory.py", "training/going_on.py", "writing.py", "paths.py",
    "evaluate/results.py", "evaluate/frozen.py", "interop/sources.py",
]  # fmt: skip
# What the answer to a mistake goes through: a module of these imports nothing heavy outside of a function.
QUICK = [
    "config",
    "cli",
    "tasks/preflight.py",
    "training/run_directory.py",
    "training/going_on.py",
    "writing.py",
    "paths.py",
    "errors.py",
    "startup.py",
]
HEAVY = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn", "onnx", "tf2onnx", "onnxruntime", "h5py"}


def package(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def row(name: str) -> int:
    return next(i for i, names in enumerate(ROWS) if name in names)


def files_of(place: str) -> list[Path]:
    return [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_packages_import_one_way(path: Path) -> None:
    here = package(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "lut_tf" or len(parts) == 1:
            continue
        there = parts[1]
        if there == here or not any(there in names for names in ROWS):
            continue
        allowed = row(there) < row(here) or row(here) == row(there) == 0
        assert allowed, f"{here} must not import {name}"


@pytest.mark.parametrize("place", WITHOUT_TENSORFLOW)
def test_tensorflow_stays_out(place: str) -> None:
    files = files_of(place)
    assert files
    for path in files:
        assert not any(name.split(".")[0] == "tensorflow" for name in imported(path)), path


@pytest.mark.parametrize("place", QUICK)
def test_the_way_to_an_answer_is_light(place: str) -> None:
    for path in files_of(place):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
        assert not {name.split(".")[0] for name in names} & HEAVY, path


def test_every_module_has_its_row() -> None:
    """A new package must be put somewhere: an import of one that is in no row would not be checked."""
    assert {package(path) for path in FILES} <= {name for names in ROWS for name in names}
