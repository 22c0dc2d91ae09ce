"""What happens around the epochs of `fit`: measuring, logging, drawing."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import keras
import tensorflow as tf

from lut_tf.training.plan import Plan
from lut_tf.writing import replacing

logger = logging.getLogger(__name__)


def _due(epoch: int, every: int) -> bool:
    """Tell whether something that happens every `every` epochs (0: never) happens at the end of `epoch` (from 0)."""
    return every > 0 and (epoch + 1) % every == 0


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback that writes an epoch's figures for TensorBoard, with epochs from 1 as everywhere else.

    Args:
        directory: TensorBoard's.
    """

    async_safe = True  # by epochs only, so its `on_train_batch_end` does nothing; Keras need not wait to call it

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), write_graph=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write."""
        super().on_epoch_end(epoch + 1, logs)


class TrainingClock(keras.callbacks.Callback):
    """Knows how long an epoch has trained: what other callbacks do as it ends does not count, nor what is done `apart`.

    Put it before those.

    Attributes:
        seconds: of the last epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = self._started = self._apart = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start."""
        self._started, self._apart = time.perf_counter(), 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._started - self._apart

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Leave out what the block takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._apart += time.perf_counter() - began


class Progress(keras.callbacks.Callback):
    """One line on a terminal that says how far the run is, and how long it still takes, probes and saving included.

    Args:
        start_step: optimizer steps that the run has behind it when `fit` starts.
        plan: of the run.
        terminal: where to.
        every: seconds between two looks of the line.
    """

    async_safe = True  # Keras calls `on_train_batch_end` in a thread, and training does not wait for the losses

    def __init__(self, start_step: int, plan: Plan, terminal: TextIO, every: float = 0.5) -> None:
        super().__init__()
        self._plan, self._terminal, self._every = plan, terminal, every
        self._epoch_start = self._ended = start_step
        self._first: tuple[int, float] | None = None
        self._shown_at, self._shown = -math.inf, ""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Show the step, if it is time."""
        step, now = self._epoch_start + batch + 1, time.monotonic()
        self._first = self._first or (step, now)  # the first step is compiled, and says nothing of the others
        if step > self._ended and now - self._shown_at >= self._every:
            self._shown_at = now
            self._show(self._line(step, now, logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Make room for the epoch's own line."""
        self._epoch_start = self._ended = (epoch + 1) * self._plan.steps_per_epoch
        self._show("")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Leave no half line."""
        self._show("")

    def _line(self, step: int, now: float, logs: dict[str, float]) -> str:
        plan, (first, since) = self._plan, self._first or (step, now)
        epoch = min((step - 1) // plan.steps_per_epoch + 1, plan.epochs)
        words = [f"epoch {epoch}/{plan.epochs}", f"step {step}/{plan.total_steps}"]
        words += [f"loss {logs['loss']:.4f}"] if "loss" in logs else []
        if step > first and now > since:
            each = (now - since) / (step - first)
            left = timedelta(seconds=round(each * (plan.total_steps - step)))
            words += [f"{plan.batch_size / each:.0f} images/s", f"{left} left"]
        return "  ".join(words)

    def _show(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]  # a longer one would break, and stay
        if line or self._shown:
            print(f"\r{line:<{len(self._shown)}}", end="" if line else "\r", file=self._terminal, flush=True)
        self._shown = line


class Probe(keras.callbacks.Callback):
    """Add a network's measured worth to the logs, every `every` epochs.

    Args:
        measure: returns the figures by name.
        every: epochs between two measurements; 0 measures never.
        part: what the figures' names begin with in the logs.
    """

    def __init__(self, measure: Callable[[], dict[str, float]], every: int, part: str = "probe") -> None:
        super().__init__()
        self._measure, self._every, self._part = measure, every, part

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure, if it is time."""
        if _due(epoch, self._every) and logs is not None:
            logs.update({f"{self._part}_{name}": value for name, value in self._measure().items()})


def _step_of(line: bytes) -> float | None:
    """Return the step of a line of `metrics.jsonl`; None where it is not one that was written, or cut short."""
    try:
        values = json.loads(line)
        numbers = all(isinstance(value, int | float) for value in values.values())
        return values["step"] if numbers and "epoch" in values and line.endswith(b"\n") else None
    except (ValueError, KeyError, AttributeError):
        return None


class MetricsLog(keras.callbacks.Callback):
    """One JSON line an epoch: epoch (from 1), step, losses, rates, probes, seconds, images per second of training.

    The seconds are all until the line is written; in the images per second probes and saving do not count.

    Lines of steps that a resumed run does again are dropped when it starts.

    Args:
        path: the file.
        start_step: optimizer steps that the run has behind it when it starts.
        plan: of the run.
        clock: says how long the epoch has trained.
        patient: when the disk is full, keep the lines for the next epoch instead of raising `OSError`.
    """

    def __init__(self, path: Path, start_step: int, plan: Plan, clock: TrainingClock, patient: bool = False) -> None:
        super().__init__()
        self._clock, self._patient, self._waiting = clock, patient, list[str]()
        self._path, self._plan = path, plan
        self._keep_up_to(start_step)

    def _keep_up_to(self, step: int) -> None:
        """Drop the lines of steps that are done again, and set damaged ones aside in `metrics.damaged`."""
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        steps = [_step_of(line) for line in lines]
        kept = [line for line, found in zip(lines, steps, strict=True) if found is not None and found <= step]
        damaged = [line for line, found in zip(lines, steps, strict=True) if found is None and line.endswith(b"\n")]
        if damaged:
            aside = self._path.with_suffix(".damaged")
            logger.warning("%s has %d damaged line(s): they are put into %s", self._path, len(damaged), aside.name)
            with aside.open("ab") as file:
                file.writelines(damaged)
        if kept != lines or not self._path.exists():
            with replacing(self._path) as written:
                written.write_bytes(b"".join(kept))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the epoch's line."""
        seconds = time.perf_counter() - self._start
        values = {name: float(value) for name, value in (logs or {}).items()}
        images = self.params["steps"] * self._plan.batch_size  # a resumed epoch has fewer steps
        speed = {"seconds": round(seconds, 3), "images_per_second": round(images / max(self._clock.seconds, 1e-9), 1)}
        line = {"epoch": epoch + 1, "step": (epoch + 1) * self._plan.steps_per_epoch, **values, **speed}
        self._waiting.append(json.dumps(line) + "\n")
        self._write()

    def _write(self) -> None:
        """Append the lines that wait, whole or not at all."""
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(self._waiting)
        except OSError as error:
            os.truncate(self._path, size)
            if not self._patient:
                raise
            logger.warning("%s cannot be written (%s): its lines wait for the next epoch", self._path, error.strerror)
        else:
            self._waiting = []


class Pictures(keras.callbacks.Callback):
    """Draw reconstructions every `every` epochs and when training ends; for TensorBoard too.

    Args:
        draw: writes the picture of the model as it is to the path it is given.
        directory: where `epoch_0001.png` and its successors go.
        every: epochs between two pictures; 0 draws the last one only.
        last: epochs of the whole run.
        tensorboard: TensorBoard's directory, or None.
        patient: when the disk is full, go on without the picture instead of raising `OSError`.
    """

    def __init__(
        self,
        draw: Callable[[Path], None],
        directory: Path,
        every: int,
        last: int,
        tensorboard: Path | None,
        patient: bool = False,
    ) -> None:
        super().__init__()
        self._patient = patient
        self._draw, self._directory, self._every, self._last = draw, directory, every, last
        self._tensorboard = tensorboard

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draw, if it is time."""
        if not _due(epoch, self._every) and epoch + 1 != self._last:
            return
        path = self._directory / f"epoch_{epoch + 1:04d}.png"
        try:
            self._draw(path)
        except OSError as error:
            if not self._patient:
                raise
            logger.warning("%s cannot be written (%s): going on without it", path, error.strerror)
            return
        if self._tensorboard:
            with self._writer.as_default():
                picture = tf.io.decode_png(tf.io.read_file(str(path)), channels=3)
                tf.summary.image("reconstruction", picture[None], step=epoch + 1)
                self._writer.flush()

    @cached_property
    def _writer(self) -> Any:
        """Made when there is something to write: a run that is complete leaves no new file."""
        return tf.summary.create_file_writer(str(self._tensorboard))


class RestoreMeans(keras.callbacks.Callback):
    """Give a run that goes on inside an epoch the running means it had there; Keras clears them as the epoch begins.

    Args:
        variables: the metrics' variables, holding what the checkpoint held.
    """

    def __init__(self, variables: list[keras.Variable]) -> None:
        super().__init__()
        self._restored = [(variable, variable.numpy()) for variable in variables]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Put them back, once."""
        for variable, value in self._restored:
            variable.assign(value)
        self._restored = []
