"""Imports go one way, and TensorFlow stays where it belongs: what docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lut_tf"
# A room may import itself and the rows before its own, not its neighbours.
ROWS = [
    ("config", "settings", "checks", "presets", "lazy", "errors", "startup", "writing"),
    ("models",),
    ("methods", "data"),
    ("training",),
    ("downstream", "analysis", "interop"),
    ("export",),  # which reads encoder files by way of interop
    ("build", "run"),
    ("pretrain", "doctor"),
    ("cli", "__main__"),
]
LISTING = ("checks", "data")  # checks count the images of a folder, which needs no TensorFlow
WITHOUT_TENSORFLOW = [
    "models", "config.py", "settings.py", "checks.py", "cli.py", "training/schedules.py",
    "methods/base.py", "methods/losses.py", "methods/lut.py", "methods/mae.py", "methods/masking.py",
    "methods/momentum.py", "methods/means.py",
]  # fmt: skip


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "presets" if parts[-1] == "presets" else parts[0]


def row(name: str) -> int:
    return next(i for i, names in enumerate(ROWS) if name in names)


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
def test_rooms_import_one_way(path: Path) -> None:
    here = room(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "lut_tf" or len(parts) == 1:
            continue
        there = "presets" if "presets" in parts else parts[1]
        if there == here or not any(there in names for names in ROWS) or (here, there) == LISTING:
            continue
        allowed = row(there) < row(here) or row(here) == row(there) == 0
        assert allowed, f"{here} must not import {name}"


@pytest.mark.parametrize("place", WITHOUT_TENSORFLOW)
def test_tensorflow_stays_out(place: str) -> None:
    for path in [PACKAGE / place] if place.endswith(".py") else (PACKAGE / place).rglob("*.py"):
        assert not any(name.split(".")[0] == "tensorflow" for name in imported(path)), path
