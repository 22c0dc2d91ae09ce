"""The run engine: takes any trainable model from its start, or its last checkpoint, to its end.

Devices and hosts, the run directory and its lock, agreement of all replicas, restoring, `fit` in stretches, metrics,
TensorBoard, saving, signals, bad steps, and what a user can do about a full disk or a lost host: all of it is here, and
nothing of what is learned.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from lut_tf.config import RunConfig, to_yaml
from lut_tf.data.batches.order import step_indices
from lut_tf.data.reading.damaged import raise_damage
from lut_tf.errors import Stopped
from lut_tf.step import TrainableModel
from lut_tf.training import callbacks, guards
from lut_tf.training.agreement import check_agreement
from lut_tf.training.checkpoint import Checkpoints
from lut_tf.training.going_on import has_begun
from lut_tf.training.interruption import Hold, StopRequest, holder, locked, stop_requests
from lut_tf.training.plan import Plan, Stretch
from lut_tf.training.run_directory import IMAGES, RunFiles, newest, steps_in
from lut_tf.training.strategy import Host, build_strategy, distribute, this_host
from lut_tf.writing import remove_unfinished, write_text

LOST_WORKER = (
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError, tf.errors.InternalError,
    tf.errors.UnavailableError, tf.errors.FailedPreconditionError,
)  # fmt: skip
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Batches = Callable[[int, Host], tf.data.Dataset]
"""From the step to start at and the host to its data set of batches, each that host's share of the global batch."""


class Run:
    """One run on the devices and hosts that its configuration asks for.

    In the order of use: `directory`, `build`, `restore`, `announce`, `train`.

    Args:
        config: validated; TensorFlow's devices are chosen by it.
        files: where the run writes what.
        images: digest of the images that it reads (`lut_tf.data.reading.digest`); all hosts must read the same.

    Attributes:
        strategy: the devices and hosts.
        host: this process among them; only the chief measures and writes.
        step: optimizer steps that the run has behind it, once `restore` has been called.

    Raises:
        ValueError: fewer devices exist than were asked for, or they cannot share the batch evenly.
    """

    def __init__(self, config: RunConfig, files: RunFiles, images: str = "") -> None:
        self.config, self.files, self._images = config, files, images
        self.strategy = build_strategy(config)
        config.check_replicas(self.strategy.num_replicas_in_sync)
        self.host = this_host(self.strategy)
        self.step = 0
        self._hold: Hold | None = None
        self._sources: Sequence[Any] = ()

    @contextmanager
    def directory(self, sources: Sequence[Any]) -> Iterator[None]:
        """Hold the run directory, write the configuration, and turn errors that a user can mend into a line.

        Args:
            sources: the run's images; one with too many damaged files explains an error that TensorFlow wraps.

        Raises:
            PermissionError: the directory cannot be made.
            ValueError: another process holds it.
        """
        self._sources = sources
        try:
            self._make_directory()
            # The chief holds the directory for all.
            with locked(self.files.root) if self.host.chief else nullcontext() as self._hold:
                if self.host.chief:
                    for folder in (self.files.root, self.files.pictures, self.files.candidates):
                        remove_unfinished(folder)
                    if not steps_in(self.files.checkpoints):
                        self._write_config()
                    if not has_begun(self.files):  # an earlier start may have measured with other settings
                        self.files.probes.unlink(missing_ok=True)
                try:
                    yield
                except (tf.errors.OpError, OSError):
                    if self._hold is not None:
                        self._hold.check()  # nothing can be written to a directory that is gone
                    raise
        except (tf.errors.OpError, OSError, RuntimeError) as error:  # the last is what HDF5 says of a full disk
            self._explain(error)
            raise

    def _make_directory(self) -> None:
        try:
            self.files.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            raise PermissionError(
                f"run_dir={self.config.run_dir!r} cannot be made ({error.strerror}): give another"
            ) from error

    def build(self, make: Callable[[], TrainableModel], plan: Plan) -> TrainableModel:
        """Return the compiled model that `make` returns, made from the run's seed on its devices.

        Args:
            make: builds and compiles it.
            plan: how far the run goes.
        """
        keras.utils.set_random_seed(self.config.seed)
        wanted, self.plan = self.config.checkpoint, plan
        with self.strategy.scope():
            self.model = make()
            self.checkpoints = Checkpoints(
                self.files.checkpoints,
                self.model,
                wanted.keep,
                wanted.keep_every * plan.steps_per_epoch,
                self.host.chief,
            )
        return self.model

    def restore(self) -> int:
        """Load the newest whole checkpoint, if there is one; check that all replicas and hosts agree; return the step.

        Raises:
            ValueError: they do not.
        """
        with self.strategy.scope():
            self.step = self.checkpoints.restore()
            check_agreement(self.strategy, self.model, self._shared_settings(), self.step)
        if self.host.chief and self.step:  # only now is it known that the checkpoint is of these settings
            self._write_config()
        return self.step

    def _write_config(self) -> None:
        write_text(self.files.config, to_yaml(self.config))

    def announce(self, facts: dict[str, Any], text: str) -> None:
        """Say in a few lines what runs, and keep it: people stop a wrong run early if they can see it.

        Args:
            facts: what the settings came to, for `resolved.json`.
            text: the same for people.
        """
        write_text(self.files.resolved, json.dumps({**facts, IMAGES: self._images}, indent=2) + "\n")
        print(text)
        if self.step >= self.plan.total_steps:
            print("  this run is complete: nothing is left to train")
        elif self.step:
            print(f"  going on after step {self.step} of {self.plan.total_steps}")

    def train(
        self,
        batches: Batches,
        measures: Sequence[keras.callbacks.Callback] = (),
        others: Sequence[keras.callbacks.Callback] = (),
        stops: Iterable[int] = (),
        before_stretch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """Train from where the run stands to the end of its plan.

        Args:
            batches: called anew for each stretch.
            measures: the chief's callbacks that add to an epoch's logs before these are written.
            others: the chief's other callbacks.
            stops: epochs before which `fit` ends and begins anew, for a hook that changes what the batches hold.
            before_stretch: called before each `fit` with the epoch that it begins in, on every host.

        Raises:
            lut_tf.training.interruption.Interrupted: SIGINT or SIGTERM stopped the run, which is saved.
            lut_tf.training.guards.NonFiniteLoss: the loss is no finite number any more.
        """
        with stop_requests() as request:
            for stretch in self.plan.stretches(self.step, stops):
                before_stretch(stretch.first_epoch)
                self.model.fit(
                    distribute(self.strategy, partial(batches, stretch.start_step)),
                    epochs=stretch.last_epoch,
                    initial_epoch=stretch.first_epoch,
                    steps_per_epoch=stretch.steps,
                    shuffle=False,
                    verbose=2 if self.host.chief else 0,
                    callbacks=self._callbacks(stretch, request, measures, others),
                )
                if self.model.stop_training:  # one of the callbacks wants no more of it
                    return

    def _callbacks(
        self, stretch: Stretch, request: StopRequest, measures: Sequence[Any], others: Sequence[Any]
    ) -> list[keras.callbacks.Callback]:
        config, plan, wanted = self.config, self.plan, self.config.checkpoint
        intervals = [n for n in (wanted.every_epochs * plan.steps_per_epoch, wanted.every_steps) if n]
        begun = stretch.start_step % plan.steps_per_epoch
        means = [v for metric in self.model.metrics for v in metric.variables] if begun else []
        guard = guards.StopOnNonFinite(
            stretch.start_step,
            self._images_of,
            self.checkpoints,
            config.optimizer.max_bad_steps,
            f"optimizer.{config.optimizer.rate_setting}",
        )
        clock = callbacks.TrainingClock()
        save = guards.SaveCheckpoint(
            self.checkpoints, plan, stretch.start_step, intervals, wanted, request, guard, self.host.total, clock.apart
        )
        if not self.host.chief:
            return [callbacks.RestoreMeans(means), guard, save]
        hold = [guards.KeepHold(self._hold.check)] if self._hold else []
        shown = [callbacks.Progress(stretch.start_step, plan, sys.stdout)] if sys.stdout.isatty() else []
        log = callbacks.MetricsLog(self.files.metrics, stretch.start_step, plan, clock, wanted.on_failure == "continue")
        board = [callbacks.TensorBoard(self.files.tensorboard)] if config.logging.tensorboard else []
        first = [callbacks.RestoreMeans(means), clock, *hold, *shown, guard]
        return [*first, *measures, log, *board, *others, save]

    def _images_of(self, step: int) -> list[int]:
        _, indices = step_indices(
            tf.constant(step, tf.int64),
            images=self.plan.images,
            batch_size=self.plan.batch_size,
            seed=self.config.seed,
        )
        return indices.numpy().tolist()

    def _shared_settings(self) -> str:
        """Return what all hosts must share at one time: the run's settings, what shapes a step, and the directory.

        Building the model has waited for the chief, so the holder that is read here is the chief.
        """
        skips = bool(self.config.optimizer.max_bad_steps)
        shared = f"{self.config.identity()}\nimages={self._images}\nmax_bad_steps={skips}"
        return f"{shared}\nrun_dir held by {holder(self.files.root)}"

    def _explain(self, error: Exception) -> None:
        """Raise what a user can act upon, where an error has a cause that is known."""
        saved = newest(self.files.checkpoints)
        full = next((os.strerror(number) for number in FULL_DISK if _is(error, number)), "")
        if full:
            raise Stopped(
                f"{self.files.root} could not be written ({full}); the last good "
                f"checkpoint is {saved}: make room, then start again to go on from there"
            ) from error
        raise_damage(self._sources)
        if self.host.total > 1 and isinstance(error, LOST_WORKER):
            said = (str(error).splitlines() or [""])[0][:300]
            raise Stopped(
                f"worker {self.host.number} lost contact with another of the {self.host.total} workers: start all of "
                f"them again, and they go on from the last checkpoint ({saved}); "
                f"TensorFlow says: {said}"
            ) from error


def _is(error: Exception, number: int) -> bool:
    """Tell whether an error is the system's of this number; TensorFlow and HDF5 have it in their words alone."""
    return getattr(error, "errno", None) == number or os.strerror(number) in str(error)
