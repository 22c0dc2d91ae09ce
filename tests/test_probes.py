"""Guards that a run says in one line why it measures nothing, and measures where it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from settings_table import changed_all

from lut_tf.data import ArraySource
from lut_tf.data.reading.sources import Parts
from lut_tf.tasks.probes import Probes


def source(*labels: int) -> ArraySource:
    return ArraySource(np.zeros((max(len(labels), 3), 8, 8), np.uint8), np.array(labels, np.int32) if labels else None)


# Training images, evaluation images, settings, and what the line says; empty: probes are made.
CASES: dict[str, tuple[ArraySource, ArraySource | None, dict[str, Any], str]] = {
    "two classes": (source(0, 1, 1), source(0, 1, 0), {}, ""),
    "some labels": (source(0, -1, 1), source(-1, -1, 0), {}, ""),
    "no training labels": (source(), source(0, 1, 0), {}, "training images have no labels"),
    "only unknown training labels": (source(-1, -1, -1), source(0, 1, 0), {}, "training images have no labels"),
    "no evaluation images": (source(0, 1, 1), None, {}, "no evaluation images"),
    "no evaluation labels": (source(0, 1, 1), source(), {}, "evaluation images have no labels"),
    "only unknown evaluation labels": (source(0, 1, 1), source(-1, -1, -1), {}, "evaluation images have no labels"),
    "one class": (source(1, 1, 1), source(1, 1, 1), {}, "of one class"),
    "one class is known": (source(1, -1, 1), source(1, 1, 1), {}, "of one class"),
    "one class is asked": (source(1, 0, 1), source(1, 1, 1), {"probe.images": 1}, "of one class"),
    "none are asked for": (source(0, 1, 1), source(0, 1, 0), {"probe.before_and_after": False}, "none are asked"),
}


@pytest.mark.parametrize("case", CASES)
def test_why_nothing_is_measured(case: str, tmp_path: Path) -> None:
    train, evaluation, settings, why = CASES[case]
    probes = Probes(changed_all(settings), Parts(train, evaluation, None), tmp_path / "probes.json")
    assert why in probes.why_none and probes.possible == (not why)
