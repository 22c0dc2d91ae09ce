"""Compose a pre-training run out of the rooms: strategy, data, model, callbacks, `fit`, measures, files."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lut_tf.analysis.curves import draw_curves
from lut_tf.analysis.reconstruction import draw_reconstructions
from lut_tf.build import build_model, compile_model
from lut_tf.checks import check, check_batch, check_files, identity
from lut_tf.config import Config, to_yaml
from lut_tf.data.batches.order import step_indices, steps_per_epoch
from lut_tf.data.batches.pretraining import pretraining_dataset
from lut_tf.data.reading.sources import Parts, Source, open_sources
from lut_tf.downstream import probe
from lut_tf.errors import Stopped
from lut_tf.models.encoder import ViTEncoder
from lut_tf.run import RunFiles, RunResult, announcement, resolved
from lut_tf.training import callbacks
from lut_tf.training.agreement import check_agreement
from lut_tf.training.checkpoint import Checkpoints
from lut_tf.training.interruption import holder, locked, stop_requests
from lut_tf.training.strategy import Host, build_strategy, distribute, this_host
from lut_tf.writing import write_text

LOST_WORKER = (
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError, tf.errors.InternalError,
    tf.errors.UnavailableError, tf.errors.FailedPreconditionError,
)  # fmt: skip


def pretrain(config: Config) -> RunResult:
    """Pre-train as `config` says, or go on where its run directory stands.

    Raises:
        ValueError, FileNotFoundError, PermissionError: a mistake in the configuration, in one line, before anything
            slow starts and before anything is written.
        lut_tf.training.interruption.Interrupted: SIGINT or SIGTERM stopped the run, which is saved.
        lut_tf.training.callbacks.NonFiniteLoss: the loss is no finite number any more.
    """
    check(config)
    check_files(config)
    strategy = build_strategy(config)
    check_batch(config, strategy.num_replicas_in_sync)
    parts = open_sources(config.data)
    files = RunFiles(Path(config.run_dir))
    try:
        files.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"run_dir={config.run_dir!r} cannot be made ({error.strerror}): give another") from error
    if not this_host(strategy).chief:  # the chief holds the directory for all
        return _Run(config, files, parts, strategy).go()
    with locked(files.root):
        write_text(files.config, to_yaml(config))
        return _Run(config, files, parts, strategy).go()


@dataclass(frozen=True)
class _Probes:
    """The measures of one run: on the validation part while training, on the held-out part before and after."""

    config: Config
    parts: Parts

    @property
    def final(self) -> Source | None:
        """What the closing table is about."""
        return self.parts.heldout or self.parts.validation

    @property
    def possible(self) -> bool:
        """Whether there are labels to learn from and images to ask about."""
        return self.parts.train.labels is not None and self.final is not None

    @property
    def title(self) -> str:
        """The closing table's heading."""
        part = "held-out" if self.parts.heldout else "evaluation"
        return f"accuracy on {len(self.final)} {part} images" if self.final else ""

    def encoder(self, encoder: ViTEncoder, queries: Source | None) -> dict[str, float]:
        """Measure an encoder on some images."""
        assert queries is not None
        wanted = self.config.probe
        return probe.encoder_probe(encoder, self.parts.train, queries, wanted.neighbours, wanted.images)

    def baselines(self, encoder: ViTEncoder) -> dict[str, dict[str, float]]:
        """Measure the pixels themselves and the untrained encoder."""
        assert self.final is not None
        wanted, size = self.config.probe, self.config.encoder.image_size
        pixels = probe.pixel_probe(size, self.parts.train, self.final, wanted.neighbours, wanted.images)
        return {"raw pixels": pixels, "random encoder": self.encoder(encoder, self.final)}


class _Run:
    """One run from its start, or its last checkpoint, to its end."""

    def __init__(self, config: Config, files: RunFiles, parts: Parts, strategy: tf.distribute.Strategy) -> None:
        self.config, self.files, self.parts, self.strategy = config, files, parts, strategy
        self.probes, self.host = _Probes(config, parts), this_host(strategy)
        self.steps_per_epoch = steps_per_epoch(len(parts.train), config.optimizer.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch

    def go(self) -> RunResult:
        """Build, measure, restore, train, measure, save."""
        keras.utils.set_random_seed(self.config.seed)
        with self.strategy.scope():
            self.model = build_model(self.config, self.total_steps)
            compile_model(self.config, self.model, self.steps_per_epoch)
            wanted = self.config.checkpoint
            forever = wanted.keep_every * self.steps_per_epoch
            self.checkpoints = Checkpoints(self.files.checkpoints, self.model, wanted.keep, forever, self.host.chief)
        try:
            return self._start_to_end()
        except (tf.errors.OpError, OSError) as error:
            self._explain(error)
            raise

    def _start_to_end(self) -> RunResult:
        with self.strategy.scope():
            results = self._baselines() if self.host.chief else {}
            step = self.checkpoints.restore()
            check_agreement(self.strategy, self.model, self._settings(), step)
        if self.host.chief:
            self._announce(step)
        self._fit(step)
        if self.host.chief:
            return self._finish(results)
        return RunResult(self.files, self.model, worker=self.host.number)

    def _settings(self) -> str:
        """Return what all hosts must share at one time: the run's settings, what shapes a step, and the directory.

        Building the model has waited for the chief, so the holder that is read here is the chief.
        """
        skips = bool(self.config.optimizer.max_bad_steps)
        return f"{identity(self.config)}\nmax_bad_steps={skips}\nrun_dir held by {holder(self.files.root)}"

    def _explain(self, error: Exception) -> None:
        """Raise what a user can act upon, where an error has a cause that is known."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Stopped(
                f"{error.filename or self.files.root} could not be written ({error.strerror}); the last good "
                f"checkpoint is {self.checkpoints.newest()}: make room, then start again to go on from there"
            ) from error
        for part in self.parts:
            damage = getattr(part, "damage", None)
            if damage is not None and damage.fatal:
                raise ValueError(damage.summary()) from None
        if self.host.total > 1 and isinstance(error, LOST_WORKER):
            raise Stopped(
                f"worker {self.host.number} lost contact with another of the {self.host.total} workers: start all of "
                f"them again, and they go on from the last checkpoint ({self.checkpoints.newest()})"
            ) from error

    def _fit(self, step: int) -> None:
        with stop_requests() as request:
            for start, epoch, last_epoch, steps in self._stretches(step):
                self.model.fit(
                    distribute(self.strategy, partial(self._dataset, self.parts.train, start)),
                    epochs=last_epoch,
                    initial_epoch=epoch,
                    steps_per_epoch=steps,
                    shuffle=False,
                    verbose=self._verbosity(),
                    callbacks=self._callbacks(start, request),
                )

    def _verbosity(self) -> int:
        """Return 1 (a bar) for people, 2 (a line an epoch) for files, 0 for hosts that are not the chief."""
        return (1 if sys.stdout.isatty() else 2) if self.host.chief else 0

    def _stretches(self, step: int) -> list[tuple[int, int, int, int]]:
        """Return (first step, first epoch, last epoch, steps an epoch) of each `fit`: a begun epoch, then the rest."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        begun = [(step, epoch, epoch + 1, self.steps_per_epoch - inside)] if inside else []
        first = epoch + bool(inside)
        whole = (first * self.steps_per_epoch, first, self.config.epochs, self.steps_per_epoch)
        return begun + ([whole] if first < self.config.epochs else [])

    def _dataset(self, source: Source, start_step: int, host: Host, **settings: Any) -> tf.data.Dataset:
        wanted = {"steps": self.total_steps, "batch_size": self.config.optimizer.batch_size, **settings}
        return pretraining_dataset(
            source,
            image_size=self.config.encoder.image_size,
            views=self.config.views,
            seed=self.config.seed,
            start_step=start_step,
            view_count=self.model.views,
            noise_length=self.model.noise_length,
            parallel_calls=self.config.data.parallel_calls,
            host=host.number,
            hosts=host.total,
            **wanted,
        )

    def _callbacks(self, start_step: int, request: Any) -> list[keras.callbacks.Callback]:
        config, files, steps = self.config, self.files, self.steps_per_epoch
        board = files.tensorboard if config.logging.tensorboard else None
        every = config.probe.every if self.probes.possible else 0
        saving = [n for n in (config.checkpoint.every_epochs * steps, config.checkpoint.every_steps) if n]
        means = [v for metric in self.model.metrics for v in metric.variables] if start_step % steps else []
        first = [
            callbacks.RestoreMeans(means),
            callbacks.StopOnNonFinite(start_step, self._images_of, self.checkpoints, config.optimizer.max_bad_steps),
        ]
        patient = config.checkpoint.on_failure == "continue"
        last = callbacks.SaveCheckpoint(
            self.checkpoints,
            start_step,
            self.total_steps,
            saving,
            config.checkpoint.every_minutes,
            request,
            hosts=self.host.total,
            patient=patient,
        )
        if not self.host.chief:
            return [*first, last]
        return [
            *first,
            callbacks.Probe(lambda: self.probes.encoder(self.model.encoder, self.parts.validation), every),
            callbacks.MetricsLog(files.metrics, start_step, steps, config.optimizer.batch_size, patient),
            *([keras.callbacks.TensorBoard(str(board), write_graph=False)] if board else []),
            callbacks.Pictures(
                self._drawer(),
                files.pictures,
                config.logging.pictures_every,
                config.epochs,
                board and board / "pictures",
                patient,
            ),
            last,
        ]

    def _images_of(self, step: int) -> list[int]:
        batch = self.config.optimizer.batch_size
        _, indices = step_indices(
            tf.constant(step, tf.int64), images=len(self.parts.train), batch_size=batch, seed=self.config.seed
        )
        return indices.numpy().tolist()

    def _drawer(self) -> Any:
        """Return the function that draws the reconstructions of a fixed batch, of images that training does not see."""
        source = self.parts.validation or self.parts.train
        count = min(self.config.logging.pictures, len(source))
        batch = next(iter(self._dataset(source, 0, Host(), steps=1, batch_size=count)))

        def draw(path: Path) -> None:
            title = f"{self.files.root.name}, {path.stem.replace('_', ' ')}"
            draw_reconstructions(self.model, batch, path, title)

        return draw

    def _baselines(self) -> dict[str, dict[str, float]]:
        """Return the measures before training: the run directory's if there are, else made and written now."""
        if not self.probes.possible:
            return {}
        if self.files.probes.exists():
            return json.loads(self.files.probes.read_text(encoding="utf-8"))
        results = self.probes.baselines(self.model.encoder)
        probe.save(self.files.probes, results)
        return results

    def _announce(self, step: int) -> None:
        """Say in a few lines what runs, and keep it: people stop a wrong run early if they can see it."""
        replicas, images = self.strategy.num_replicas_in_sync, len(self.parts.train)
        facts = resolved(self.config, self.model, images, replicas, self.steps_per_epoch)
        write_text(self.files.resolved, json.dumps(facts, indent=2) + "\n")
        print(announcement(facts, self.config.run_dir))
        if step >= self.total_steps:
            print("  this run is complete: nothing is left to train")
        elif step:
            print(f"  going on after step {step} of {self.total_steps}")

    def _finish(self, results: dict[str, dict[str, float]]) -> RunResult:
        """Save the networks, measure the trained encoder, draw the curves."""
        self.model.encoder.save(self.files.encoder)
        self.model.save_weights(self.files.weights)
        baselines = results
        if self.probes.possible:
            results = {**results, "trained encoder": self.probes.encoder(self.model.encoder, self.probes.final)}
            probe.save(self.files.probes, results)
        draw_curves(self.files.metrics, self.files.curves, baselines)
        return RunResult(self.files, self.model, results, self.probes.title)
