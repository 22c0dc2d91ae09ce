"""What happens between the steps of `fit`: stopping on nonsense, saving, stopping when asked to.

No callback of a run has an `on_train_batch_end`: Keras hands it the step's losses as Python numbers, and to have them
the host waits for the device. What happens between two steps is done as the next one begins (`BetweenSteps`), and what
must be read from the device is read every `LOOK_EVERY` steps, before a checkpoint, and as an epoch ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import keras

from lut_tf.config import CheckpointConfig
from lut_tf.errors import Stopped
from lut_tf.step import REMEMBERED
from lut_tf.training.checkpoint import Checkpoints, SaveFailed
from lut_tf.training.interruption import Interrupted, StopRequest
from lut_tf.training.plan import Plan

logger = logging.getLogger(__name__)

LOOK_EVERY = REMEMBERED
"""Steps between two looks at what the replicas have agreed: the host waits for the device no more often than that."""


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


class KeepHold(BetweenSteps):
    """Stop when the run directory is no longer this process'; put it first, before anything of a step is written.

    Args:
        check: raises what is to be said; it costs a look at two names.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__(0)
        self._check = check

    def after_step(self, epoch_ends: bool) -> None:
        """Look."""
        self._check()


class NonFiniteLoss(Stopped):
    """The loss, or its gradient, became infinite or not a number."""


class StopOnNonFinite(BetweenSteps):
    """Stop with a clear error, before anything of it is saved, when a step's loss or gradient is no finite number.

    Args:
        start_step: optimizer steps that the run has behind it when `fit` starts.
        indices: returns the images of a step, for the message.
        checkpoints: named in the message.
        allowed: bad steps of the run that are only reported; the model must be compiled to leave them out.
        rate: the setting that the message says to lower.
    """

    def __init__(
        self,
        start_step: int,
        indices: Callable[[int], list[int]],
        checkpoints: Checkpoints,
        allowed: int = 0,
        rate: str = "optimizer.base_learning_rate",
    ) -> None:
        super().__init__(start_step)
        self._indices, self._checkpoints, self._allowed, self._rate = indices, checkpoints, allowed, rate
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
                    f"{self._rate}, give more optimizer.warmup_epochs, or let optimizer.max_bad_steps "
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
        apart: what time spent in it does not count as training.
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
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(start_step)
        self._apart = apart
        self._checkpoints, self._total, self._intervals = checkpoints, plan.total_steps, intervals
        self._settings, self._request, self._guard, self._hosts = settings, request, guard, hosts
        self._saved_at = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Save if it is time, and pass a signal on to the other hosts."""
        super().on_train_batch_begin(batch, logs)
        if self._hosts > 1 and self._request.number:
            self.model.ask_to_stop()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Have every host stop, and not this one alone, where a callback wants no more: the others would wait."""
        if self._hosts > 1 and self.model.stop_training:
            self.model.stop_training = False
            self.model.ask_to_stop()
        super().on_epoch_end(epoch, logs)

    def after_step(self, epoch_ends: bool) -> None:
        """Save if it is time; stop if one of the hosts was asked to."""
        stop = self._asked_to_stop(epoch_ends)
        due = any(self.step % interval == 0 for interval in self._intervals) or self.model.stop_training
        wait = 60 * self._settings.every_minutes
        # By the clock only at the steps at which every host looks: their clocks differ, and the guard may stop the run.
        late = wait and self.looks(epoch_ends) and time.monotonic() - self._saved_at >= wait
        if not (due or late or stop or self.step == self._total):
            return
        self._guard.look()
        with self._apart():
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
