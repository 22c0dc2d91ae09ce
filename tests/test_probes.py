"""Guards that a run says in one line why it measures nothing, and measures where it can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_encoder
from runs import small
from settings_table import changed_all

from lut_tf.data import ArraySource, digits
from lut_tf.data.reading.sources import Chosen, Parts
from lut_tf.tasks.probes import Probes


def source(*labels: int) -> ArraySource:
    return ArraySource(np.zeros((3, 8, 8), np.uint8), np.array(labels, np.int32) if labels else None)


# Training images, evaluation images, settings, and what the line says; empty: probes are made.
CASES: dict[str, tuple[ArraySource, ArraySource, dict[str, Any], str]] = {
    "two classes": (source(0, 1, 1), source(0, 1, 0), {}, ""),
    "some labels": (source(0, -1, 1), source(-1, -1, 0), {}, ""),
    "only unknown training labels": (source(-1, -1, -1), source(0, 1, 0), {}, "training images have no labels"),
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


@pytest.mark.parametrize("evaluation", [None, source(0, 1, 0)])
def test_what_the_listing_tells_is_said(evaluation: ArraySource | None, tmp_path: Path) -> None:
    probes = Probes(changed_all({}), Parts(source(), evaluation, None), tmp_path / "probes.json", "there is nothing")
    assert probes.said == "no probes: there is nothing" and probes.every == 0


@pytest.mark.medium
def test_figures_of_other_evaluation_images_are_measured_anew(tmp_path: Path) -> None:
    """What is learned does not change with them, but a table of two kinds of images would compare nothing."""
    path = tmp_path / "probes.json"
    parts = Parts(digits("train"), digits("validation"), digits("heldout"))
    config = small(tmp_path, probe__images=50, probe__queries=20, probe__neighbours=5)
    encoder = tiny_encoder()
    old = {name: {"knn": 0.0, "linear": 0.0} for name in ("raw pixels", "random encoder", "trained encoder")}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert Probes(config, parts, path).before(encoder) == old
    probes = Probes(config, parts, path, same_images=False)
    rows = probes.before(encoder)
    assert rows["random encoder"]["knn"] > 0 and "trained encoder" not in rows
    assert probes.completed(encoder, rows).keys() == old.keys() == json.loads(path.read_text()).keys()


def part(*indices: int) -> Chosen:
    return Chosen(source(0, 1, 0), np.array(indices))


ASKED = {
    "evaluation images": (
        None, source(0, 1, 0), None, "on 3 evaluation images; the closing table on 3 evaluation images"
    ),
    "the digits": (
        None, source(0, 1, 0), source(0, 1, 1), "on 3 validation images; the closing table on 3 held-out images"
    ),
    "held-out images": (part(0, 1), part(2), None, "on 1 held-out images; the closing table on 1 held-out images"),
    "held-out and evaluation images": (
        part(0, 1), part(2), source(0, 1, 0), "on 1 validation images; the closing table on 3 evaluation images"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_it_is_said_on_which_images_figures_are(case: str, tmp_path: Path) -> None:
    train, validation, heldout, said = ASKED[case]
    parts = Parts(train or source(0, 1, 1), validation, heldout)
    probes = Probes(changed_all({"probe.every": 1}), parts, tmp_path / "probes.json")
    assert probes.said == f"probes: k-NN and linear each epoch {said}"
    assert probes.title == f"accuracy on {said.rpartition(' on ')[2]}" and probes.final is parts.final
