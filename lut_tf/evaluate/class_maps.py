"""Which of ImageNet's 1,000 classes the folders of the robustness sets are (the files in `classes/`; no TensorFlow)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "classes"
IMAGENET = 1000
"""Number of ImageNet's classes."""


@cache
def _rows(name: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line.split("\t")) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines())


@cache
def imagenet_ids() -> tuple[str, ...]:
    """Return the WordNet ids (`n01440764`) of ImageNet's classes in the order of their numbers."""
    return tuple(row[0] for row in _rows("imagenet.tsv"))


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the names (`tench, Tinca tinca`) of ImageNet's classes in the order of their numbers."""
    return tuple(row[1] for row in _rows("imagenet.tsv"))


@cache
def _numbers() -> dict[str, int]:
    return {wnid: number for number, wnid in enumerate(imagenet_ids())}


def subset(letter: str) -> NDArray[np.int64]:
    """Return the numbers (200,), rising, of the classes of ImageNet-A, -R or -O.

    Args:
        letter: `a`, `r` or `o`.
    """
    return np.array(sorted(_numbers()[row[0]] for row in _rows(f"imagenet_{letter}.txt")), np.int64)


def by_number() -> Mapping[str, tuple[int, ...]]:
    """Return the class of folders that are called by its number, as ImageNet-V2's: `10` is class 10, not the third."""
    return {str(number): (number,) for number in range(IMAGENET)}


def by_id() -> Mapping[str, tuple[int, ...]]:
    """Return the class of folders that are called by its WordNet id."""
    return {wnid: (number,) for wnid, number in _numbers().items()}


def by_id_among(letter: str) -> Mapping[str, tuple[int, ...]]:
    """Return the same of the 200 classes of ImageNet-A, -R or -O."""
    return {imagenet_ids()[number]: (int(number),) for number in subset(letter)}


def objectnet() -> Mapping[str, tuple[int, ...]]:
    """Return the classes of those of ObjectNet's folders that have any; some have several, each of which is right."""
    return {folder: tuple(_numbers()[wnid] for wnid in ids.split()) for folder, ids in _rows("objectnet.tsv")}


def si_score() -> Mapping[str, tuple[int, ...]]:
    """Return the class of SI-Score's folders."""
    return {folder: (_numbers()[wnid],) for folder, wnid in _rows("si_score.tsv")}
