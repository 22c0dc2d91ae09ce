"""What happens around the epochs of `fit`: measuring, logging, drawing, saving, stopping on nonsense."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from lut_tf.errors import Stopped
from lut_tf.training.checkpoint import Checkpoints, SaveFailed
from lut_tf.training.interruption import Interrupted, StopRequest
from lut_tf.writing import write_text

logger = logging.getLogger(__name__)


def _due(epoch: int, every: int) -> bool:
    """Tell whether something that happens every `every` epochs (0: never) happens at the end of `epoch` (from 0)."""
    return every > 0 and (epoch + 1) % every == 0


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
        steps_per_epoch: optimizer steps of one epoch.
        batch_size: images of a step.
        patient: when the disk is full, keep the lines for the next epoch instead of raising `OSError`.
    """

    def __init__(
        self, path: Path, start_step: int, steps_per_epoch: int, batch_size: int, patient: bool = False
    ) -> None:
        super().__init__()
        self._patient, self._waiting = patient, list[str]()
        self._path, self._steps, self._batch_size = path, steps_per_epoch, batch_size
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= start_step]
        if kept != lines or not path.exists():
            write_text(path, "".join(kept))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self._start, self._done = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count the step: a resumed epoch has fewer."""
        self._done += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the epoch's line."""
        seconds = time.perf_counter() - self._start
        values = {name: float(value) for name, value in (logs or {}).items()}
        speed = {"seconds": round(seconds, 3), "images_per_second": round(self._done * self._batch_size / seconds, 1)}
        line = {"epoch": epoch + 1, "step": (epoch + 1) * self._steps, **values, **speed}
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
        self._writer = tf.summary.create_file_writer(str(tensorboard)) if tensorboard else None

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
            path.unlink(missing_ok=True)
            return
        if self._writer:
            with self._writer.as_default():
                picture = tf.io.decode_png(tf.io.read_file(str(path)), channels=3)
                tf.summary.image("reconstruction", picture[None], step=epoch + 1)
                self._writer.flush()


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


class SaveCheckpoint(keras.callbacks.Callback):
    """Save when it is time, and when a signal asks the run to stop; put it last, after all else of an epoch is written.

    Raises `Interrupted` after the step at which a signal was noticed, once that step is saved. On several hosts all of
    them stop, after the same step.

    Args:
        checkpoints: where to.
        start_step: optimizer steps that the run has behind it when it starts.
        total_steps: of the whole run; its end is always saved.
        intervals: save at multiples of these steps.
        every_minutes: minutes between two checkpoints; 0: none by the clock.
        request: asks the run to stop.
        hosts: of the run.
        patient: when a checkpoint cannot be written, warn and go on instead of raising `SaveFailed`.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        start_step: int,
        total_steps: int,
        intervals: list[int],
        every_minutes: float,
        request: StopRequest,
        hosts: int = 1,
        patient: bool = False,
    ) -> None:
        super().__init__()
        self._checkpoints, self._step, self._total = checkpoints, start_step, total_steps
        self._intervals, self._seconds, self._request = intervals, 60 * every_minutes, request
        self._hosts, self._patient = hosts, patient
        self._saved_at, self._due, self._stop = time.monotonic(), False, False

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Pass a signal on to the other hosts."""
        if self._hosts > 1 and self._request.number:
            self.model.ask_to_stop()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count the step; inside an epoch, save if it is time."""
        self._step += 1
        self._stop = self.model.agreed.stop if self._hosts > 1 else bool(self._request.number)
        due = any(self._step % interval == 0 for interval in self._intervals)
        late = self._seconds and time.monotonic() - self._saved_at >= self._seconds
        self._due = bool(due or late or self._step == self._total or self._stop)
        if batch + 1 < self.params["steps"]:
            self._save_if_due()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save what was due at the epoch's last step, now that its line and pictures are written."""
        self._save_if_due()

    def _save_if_due(self) -> None:
        if not self._due:
            return
        saved = True
        try:
            self._checkpoints.save(self._step)
        except SaveFailed as failure:
            if not self._patient:
                raise
            logger.warning("%s", failure)
            saved = False
        self._saved_at, self._due = time.monotonic(), False
        if self._stop:
            raise Interrupted(self._request.number, self._step, saved)


class NonFiniteLoss(Stopped):
    """The loss, or its gradient, became infinite or not a number."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Stop with a clear error, before anything of it is saved, when a step's loss or gradient is no finite number.

    Args:
        start_step: optimizer steps that the run has behind it when it starts.
        indices: returns the images of a step, for the message.
        checkpoints: named in the message.
        allowed: bad steps of the run that are only reported; the model must be compiled to leave them out.
    """

    def __init__(
        self, start_step: int, indices: Callable[[int], list[int]], checkpoints: Checkpoints, allowed: int = 0
    ) -> None:
        super().__init__()
        self._step, self._indices, self._checkpoints, self._allowed = start_step, indices, checkpoints, allowed
        self._bad = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Count on from the bad steps that a resumed run had."""
        self._bad = self.model.agreed.bad_steps

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Look at what the replicas have agreed about the step.

        Raises:
            NonFiniteLoss: it is bad, and none more is allowed; the message names step, parts and images.
        """
        agreed = self.model.agreed
        if agreed.bad_steps > self._bad:
            self._bad = agreed.bad_steps
            what = (
                f"the loss or gradient of step {self._step + 1} is not finite: {agreed.losses}; "
                f"images {self._indices(self._step)}"
            )
            if self._bad > self._allowed:
                raise NonFiniteLoss(
                    f"{what}; last good checkpoint: {self._checkpoints.newest()}; lower "
                    f"optimizer.base_learning_rate, give more optimizer.warmup_epochs, or let optimizer.max_bad_steps "
                    f"be skipped ({self._allowed} now)"
                )
            logger.warning("%s; skipped, number %d of %d allowed", what, self._bad, self._allowed)
        self._step += 1
