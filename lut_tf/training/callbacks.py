"""What happens around the epochs of `fit`: measuring, logging, drawing."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lut_tf.training.plan import Plan
from lut_tf.writing import write_text

logger = logging.getLogger(__name__)


def _due(epoch: int, every: int) -> bool:
    """Tell whether something that happens every `every` epochs (0: never) happens at the end of `epoch` (from 0)."""
    return every > 0 and (epoch + 1) % every == 0


def tensorboard(directory: Path) -> keras.callbacks.TensorBoard:
    """Return Keras' callback that writes an epoch's figures for TensorBoard."""
    board = keras.callbacks.TensorBoard(str(directory), write_graph=False)
    board.async_safe = True  # by epochs only, so its `on_train_batch_end` does nothing; Keras need not wait to call it
    return board


class Probe(keras.callbacks.Callback):
    """Add an encoder's measured worth to the logs, every `every` epochs.

    Args:
        measure: returns the figures by name.
        every: epochs between two measurements; 0 measures never.
    """

    def __init__(self, measure: Callable[[], dict[str, float]], every: int) -> None:
        super().__init__()
        self._measure, self._every = measure, every

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure, if it is time."""
        if _due(epoch, self._every) and logs is not None:
            logs.update({f"probe_{name}": value for name, value in self._measure().items()})


class MetricsLog(keras.callbacks.Callback):
    """One JSON line an epoch: epoch (from 1), step, losses, rates, probes, seconds, images per second.

    Lines of steps that a resumed run does again are dropped when it starts.

    Args:
        path: the file.
        start_step: optimizer steps that the run has behind it when it starts.
        plan: of the run.
        patient: when the disk is full, keep the lines for the next epoch instead of raising `OSError`.
    """

    def __init__(self, path: Path, start_step: int, plan: Plan, patient: bool = False) -> None:
        super().__init__()
        self._patient, self._waiting = patient, list[str]()
        self._path, self._plan = path, plan
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= start_step]
        if kept != lines or not path.exists():
            write_text(path, "".join(kept))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the epoch's line."""
        seconds = time.perf_counter() - self._start
        values = {name: float(value) for name, value in (logs or {}).items()}
        images = self.params["steps"] * self._plan.batch_size  # a resumed epoch has fewer steps
        speed = {"seconds": round(seconds, 3), "images_per_second": round(images / seconds, 1)}
        line = {"epoch": epoch + 1, "step": (epoch + 1) * self._plan.steps_per_epoch, **values, **speed}
        self._waiting.append(json.dumps(line) + "\n")
        self._write()

    def _write(self) -> None:
        """Append the lines that wait, whole or not at all."""
        size = self._path.stat().st_size
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
