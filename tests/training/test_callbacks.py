"""The log of a run that goes on, its speed, its line on a terminal, and what TensorBoard calls an epoch."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf
from data_helpers import png

from lut_tf.training.callbacks import MetricsLog, Pictures, Progress, TensorBoard, TrainingClock
from lut_tf.training.plan import Plan

PLAN = Plan(epochs=4, images=40, batch_size=10)
GOOD = [json.dumps({"epoch": epoch, "step": 4 * epoch, "loss": 0.5}).encode() + b"\n" for epoch in (1, 2, 3)]


@pytest.mark.parametrize(
    "damaged",
    [
        b"\n",
        b"no json\n",
        b"\xff\xfe\n",
        b'{"epoch": 2}\n',
        b"[]\n",
        b'{"step": "x"}\n',
        b"null\n",
        b'{"epoci": 1, "step": 4}\n',
    ],
)
def test_a_damaged_line_is_set_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD[0] + damaged + GOOD[1] + GOOD[2])
    with caplog.at_level(logging.WARNING):
        MetricsLog(path, 8, PLAN, TrainingClock())
    assert path.read_bytes() == GOOD[0] + GOOD[1]  # epoch 3 is trained again
    assert (tmp_path / "metrics.damaged").read_bytes() == damaged
    assert "has 1 damaged line(s)" in caplog.text


def test_a_line_cut_short_by_a_kill_goes_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD[0] + GOOD[1][:-5])
    MetricsLog(path, 8, PLAN, TrainingClock())
    assert path.read_bytes() == GOOD[0]
    assert caplog.text == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the callbacks take for the time; tests set `now`."""
    time = SimpleNamespace(now=100.0, perf_counter=lambda: time.now, monotonic=lambda: time.now)
    monkeypatch.setattr("lut_tf.training.callbacks.time", time)
    return time


def test_images_per_second_are_trainings_own(tmp_path: Path, clock: Any) -> None:
    """Ten seconds of steps, four of them saving, then ninety of probes: 40 images in 6 seconds; the line says 100."""
    training = TrainingClock()
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, PLAN, training)
    log.set_params({"steps": 4})
    for callback in (training, log):
        callback.on_epoch_begin(0)
    clock.now += 6
    with training.apart():
        clock.now += 4
    training.on_epoch_end(0)
    clock.now += 90
    log.on_epoch_end(0, {"loss": 0.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["seconds"], line["images_per_second"]) == (100.0, 6.7)


def test_a_terminal_is_told_how_long_the_whole_run_still_takes(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone on after step 5 of 16: two seconds a step, the first of which, which is compiled, is not counted."""
    monkeypatch.setenv("COLUMNS", "100")
    terminal = io.StringIO()
    progress = Progress(5, PLAN, terminal)
    progress.on_epoch_begin(1)
    for batch, seconds in enumerate((60, 2, 2)):
        clock.now += seconds
        progress.on_train_batch_end(batch, {"loss": 0.5})
    first, second, third = terminal.getvalue().split("\r")[1:]
    assert first.strip() == "epoch 2/4  step 6/16  loss 0.5000"
    assert second.strip() == "epoch 2/4  step 7/16  loss 0.5000  5 images/s  0:00:18 left"
    assert third.strip() == "epoch 2/4  step 8/16  loss 0.5000  5 images/s  0:00:16 left"
    progress.on_epoch_end(1)
    assert terminal.getvalue().endswith("\r" + " " * len(third) + "\r")
    said = terminal.getvalue()
    progress.on_train_batch_end(-1, {"loss": 0.5})  # the last step's, late from its thread
    assert terminal.getvalue() == said
    clock.now += 1
    progress.on_train_batch_end(0, {"loss": 0.25})
    assert terminal.getvalue().removeprefix(said).startswith("\repoch 3/4  step 9/16  loss 0.2500")
    clock.now += 0.1
    progress.on_train_batch_end(1, {"loss": 0.25})  # too soon for another look
    assert "step 10/16" not in terminal.getvalue()


def test_a_line_is_never_wider_than_the_terminal(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = io.StringIO()
    Progress(0, PLAN, terminal).on_train_batch_end(0, {"loss": 0.5})
    assert terminal.getvalue() == "\repoch 1/4  step 1/1"


def test_tensorboard_and_the_pictures_count_epochs_as_the_log_does(tmp_path: Path) -> None:
    def draw(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(0))

    board, training = TensorBoard(tmp_path / "board"), TrainingClock()
    pictures = Pictures(draw, tmp_path / "pictures", 1, 4, tmp_path / "board" / "pictures")
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, PLAN, training)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1))
    callbacks = keras.callbacks.CallbackList([training, log, board, pictures], model=model, steps=4, epochs=4)
    callbacks.on_train_begin()
    for epoch in (0, 1):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {"loss": 0.5})
    callbacks.on_train_end()
    steps: dict[str, list[int]] = {}
    for file in sorted((tmp_path / "board").rglob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                steps.setdefault(value.tag, []).append(event.step)
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]
    assert (steps["epoch_loss"], steps["reconstruction"]) == (epochs, epochs)
