"""What happens around the steps and epochs of `fit`: measuring, logging, drawing, saving, stopping on nonsense.

No callback here has an `on_train_batch_end`: Keras hands it the step's losses as Python numbers, and to have them the
host waits for the device. What happens between two steps is done as the next one begins (`BetweenSteps`), and what must
be read from the device is read every `LOOK_EVERY` steps, before a checkpoint, and as an epoch ends.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from lut_tf.config import CheckpointConfig
from lut_tf.errors import Stopped
from lut_tf.step.tensorflow_step import REMEMBERED
from lut_tf.training.checkpoint import Checkpoints, SaveFailed
from lut_tf.training.interruption import Interrupted, StopRequest
from lut_tf.training.plan import Plan
from lut_tf.writing import write_text

logger = logging.getLogger(__name__)

LOOK_EVERY = REMEMBERED
"""Steps between two looks at what the replicas have agreed: the host waits for the device no more often than that."""


def _due(epoch: int, every: int) -> bool:
    """Tell whether something that happens every `every` epochs (0: never) happens at the end of `epoch` (from 0)."""
    return every > 0 and (epoch + 1) % every == 0


def tensorboard(directory: Path) -> keras.callbacks.TensorBoard:
    """Return Keras' callback that writes an epoch's figures for TensorBoard."""
    board = keras.callbacks.TensorBoard(str(directory), write_graph=False)
    board.async_safe = True  # by epochs only, so its `on_train_batch_end` does nothing; Keras need not wait to call it
    return board


class BetweenSteps(keras.callbacks.Callback):
    """Knows how many steps are done, without waiting for the device: they may still be under way.

    Args:
        start_step: optimizer steps that the run has behind it when `fit` starts.
    """

    def __init__(self, start_step: int) -> None:
        super().__init__()
        self.step = start_step

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Count the step before this one."""
        if batch:
            self.step += 1
            self.after_step(epoch_ends=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Count the epoch's last step."""
        self.step += 1
        self.after_step(epoch_ends=True)

    def after_step(self, epoch_ends: bool) -> None:
        """Do what is to be done after step number `step`."""

    def looks(self, epoch_ends: bool) -> bool:
        """Tell whether it is time to look at the device; at the same steps on every host."""
        return epoch_ends or self.step % LOOK_EVERY == 0


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


class NonFiniteLoss(Stopped):
    """The loss, or its gradient, became infinite or not a number."""


class StopOnNonFinite(BetweenSteps):
    """Stop with a clear error, before anything of it is saved, when a step's loss or gradient is no finite number.

    Args:
        start_step: optimizer steps that the run has behind it when `fit` starts.
        indices: returns the images of a step, for the message.
        checkpoints: named in the message.
        allowed: bad steps of the run that are only reported; the model must be compiled to leave them out.
    """

    def __init__(
        self, start_step: int, indices: Callable[[int], list[int]], checkpoints: Checkpoints, allowed: int = 0
    ) -> None:
        super().__init__(start_step)
        self._indices, self._checkpoints, self._allowed = indices, checkpoints, allowed
        self._seen = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Count on from the bad steps that a resumed run had."""
        self._seen = self.model.agreed.bad_steps
        self.model.count_from(self.step)

    def after_step(self, epoch_ends: bool) -> None:
        """Look, if it is time."""
        if self.looks(epoch_ends):
            self.look()

    def look(self) -> None:
        """Report what the replicas have agreed about the steps since the last look.

        Raises:
            NonFiniteLoss: one is bad, and none more is allowed; the message names step, losses and images.
        """
        if self.model.agreed.bad_steps == self._seen:
            return
        for bad in self.model.bad_steps_after(self._seen):
            self._seen += 1
            what = (
                f"the loss or gradient of step {bad.number} is not finite: {bad.losses}; "
                f"images {self._indices(bad.number - 1)}"
            )
            if self._seen > self._allowed:
                raise NonFiniteLoss(
                    f"{what}; last good checkpoint: {self._checkpoints.newest()}; lower "
                    f"optimizer.base_learning_rate, give more optimizer.warmup_epochs, or let optimizer.max_bad_steps "
                    f"be skipped ({self._allowed} now)"
                )
            logger.warning("%s; skipped, number %d of %d allowed", what, self._seen, self._allowed)


class SaveCheckpoint(BetweenSteps):
    """Save when it is time, and when a signal asks the run to stop; put it last, after all else of an epoch is written.

    Raises `Interrupted` after the step at which a signal was noticed, once that step is saved. On several hosts all of
    them stop, after the same step, at most `LOOK_EVERY` steps later.

    Args:
        checkpoints: where to.
        plan: of the run; its end is always saved.
        start_step: optimizer steps that the run has behind it when `fit` starts.
        intervals: save at multiples of these steps.
        settings: `every_minutes`, and what to do `on_failure`.
        request: asks the run to stop.
        guard: looks first, so that nothing of a bad step is saved.
        hosts: of the run.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        plan: Plan,
        start_step: int,
        intervals: list[int],
        settings: CheckpointConfig,
        request: StopRequest,
        guard: StopOnNonFinite,
        hosts: int = 1,
    ) -> None:
        super().__init__(start_step)
        self._checkpoints, self._total, self._intervals = checkpoints, plan.total_steps, intervals
        self._settings, self._request, self._guard, self._hosts = settings, request, guard, hosts
        self._saved_at = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Save if it is time, and pass a signal on to the other hosts."""
        super().on_train_batch_begin(batch, logs)
        if self._hosts > 1 and self._request.number:
            self.model.ask_to_stop()

    def after_step(self, epoch_ends: bool) -> None:
        """Save if it is time; stop if one of the hosts was asked to."""
        stop = self._asked_to_stop(epoch_ends)
        due = any(self.step % interval == 0 for interval in self._intervals)
        wait = 60 * self._settings.every_minutes
        late = wait and time.monotonic() - self._saved_at >= wait
        if not (due or late or stop or self.step == self._total):
            return
        self._guard.look()
        saved = self._save()
        self._saved_at = time.monotonic()
        if stop:
            raise Interrupted(self._request.number, self.step, saved)

    def _asked_to_stop(self, epoch_ends: bool) -> bool:
        if self._hosts == 1:
            return bool(self._request.number)
        return self.looks(epoch_ends) and self.model.agreed.stop

    def _save(self) -> bool:
        """Return whether a checkpoint was written."""
        try:
            self._checkpoints.save(self.step)
        except SaveFailed as failure:
            if self._settings.on_failure != "continue":
                raise
            logger.warning("%s", failure)
            return False
        return True
