"""The log of a run that goes on: lines of steps done again are dropped, damaged ones set aside. Guards `MetricsLog`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from lut_tf.training.callbacks import MetricsLog
from lut_tf.training.plan import Plan

PLAN = Plan(epochs=4, images=40, batch_size=10)
GOOD = [json.dumps({"epoch": epoch, "step": 4 * epoch, "loss": 0.5}).encode() + b"\n" for epoch in (1, 2, 3)]


@pytest.mark.parametrize(
    "damaged", [b"\n", b"no json\n", b"\xff\xfe\n", b'{"epoch": 2}\n', b"[]\n", b'{"step": "x"}\n', b"null\n"]
)
def test_a_damaged_line_is_set_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD[0] + damaged + GOOD[1] + GOOD[2])
    with caplog.at_level(logging.WARNING):
        MetricsLog(path, 8, PLAN)
    assert path.read_bytes() == GOOD[0] + GOOD[1]  # epoch 3 is trained again
    assert (tmp_path / "metrics.damaged").read_bytes() == damaged
    assert "has 1 damaged line(s)" in caplog.text


def test_a_line_cut_short_by_a_kill_goes_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD[0] + GOOD[1][:-5])
    MetricsLog(path, 8, PLAN)
    assert path.read_bytes() == GOOD[0]
    assert caplog.text == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]
