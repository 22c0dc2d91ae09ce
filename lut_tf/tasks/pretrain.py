"""Pre-training, as a recipe reads: images, method, probes, training, measures, files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lut_tf.analysis.curves import draw_curves
from lut_tf.analysis.reconstruction import draw_reconstructions
from lut_tf.config import Config
from lut_tf.data.batches.pretraining import pretraining_dataset
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import Parts, Source, open_sources
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.build import build_model
from lut_tf.tasks.build import compile_model
from lut_tf.tasks.initial import find_initial, load_initial
from lut_tf.tasks.preflight import preflight
from lut_tf.tasks.probes import Probes
from lut_tf.tasks.result import RunResult, announcement, resolved
from lut_tf.training.callbacks import Pictures, Probe
from lut_tf.training.plan import Plan
from lut_tf.training.run import Run
from lut_tf.training.run_directory import EVALUATION_IMAGES, RunFiles, facts_of
from lut_tf.training.strategy import Host
from lut_tf.writing import replacing


def pretrain(
    config: Config, listing: Listing | None = None, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> RunResult:
    """Pre-train as `config` says, or go on where its run directory stands.

    Args:
        config: of the run.
        listing: what `preflight` returned for this configuration; None has it checked here.
        callbacks: Keras callbacks of your own, for Weights & Biases, MLflow and the like. They see what `fit` tells any
            callback, probes included; a run that goes on inside an epoch calls `fit` twice. One with an
            `on_train_batch_end` makes the host wait for the device at each step. On several hosts: the chief's, and the
            end of an epoch is when one may set `stop_training`; all hosts then stop within ten steps, saved.

    Raises:
        ValueError, FileNotFoundError, PermissionError: a mistake in the configuration, in one line, before anything
            slow starts and before anything is written.
        lut_tf.training.interruption.Interrupted: SIGINT or SIGTERM stopped the run, which is saved.
        lut_tf.training.guards.NonFiniteLoss: the loss is no finite number any more.
    """
    listing = preflight(config) if listing is None else listing
    files = RunFiles(Path(config.run_dir))
    run = Run(config, files, listing.digest)
    found = find_initial(config)
    initial = None if found is None else load_initial(config, found)
    parts = open_sources(config.data, listing)
    plan = Plan(config.epochs, len(parts.train), config.optimizer.batch_size)
    same = facts_of(files).get(EVALUATION_IMAGES, listing.evaluation_digest) == listing.evaluation_digest
    probes = Probes(config, parts, files.probes, listing.why_no_probes, same)
    with run.directory([part for part in parts if part is not None]):
        model = run.build(lambda: _compiled(config, plan), plan)
        rows = probes.before(model.encoder) if run.host.chief else {}
        with run.strategy.scope():
            start = "" if initial is None else initial.give(model)
        complete = run.restore() >= plan.total_steps and files.encoder.exists() and files.weights.exists()
        if run.host.chief:
            facts = resolved(config, model, plan, run.strategy.num_replicas_in_sync)
            facts[EVALUATION_IMAGES] = listing.evaluation_digest
            notes = [start, probes.said, listing.left_out and f"left out: {listing.left_out}"]
            if listing.evaluates_training:
                notes.append("the evaluation images are the training images: the figures say nothing of new ones")
            run.announce(facts, announcement(facts, config.run_dir, *notes))
        batches = partial(_batches, config, model, plan, parts.train)
        if not run.host.chief:
            run.train(batches)
            return RunResult(files, model, worker=run.host.number)
        run.train(
            batches,
            measures=[Probe(lambda: probes.while_training(model.encoder), probes.every)],
            others=[_pictures(config, model, plan, parts, files), *callbacks],
        )
        if complete:  # what is there and whole is not written again
            rows = probes.completed(model.encoder, rows)
            return RunResult(files, model, rows, probes.title, probes.explanation)
        return _finish(model, probes, rows, files)


def _compiled(config: Config, plan: Plan) -> MaskedImageModel:
    model = build_model(config, plan.total_steps)
    compile_model(config, model, plan.steps_per_epoch)
    return model


def _batches(
    config: Config, model: MaskedImageModel, plan: Plan, source: Source, start_step: int, host: Host, **changes: Any
) -> tf.data.Dataset:
    wanted = {"steps": plan.total_steps, "batch_size": plan.batch_size, **changes}
    return pretraining_dataset(
        source,
        image_size=config.encoder.image_size,
        views=config.views,
        seed=config.seed,
        start_step=start_step,
        view_count=model.view_count,
        noise_length=model.noise_length,
        parallel_calls=config.data.parallel_calls,
        host=host.number,
        hosts=host.total,
        **wanted,
    )


def _pictures(config: Config, model: MaskedImageModel, plan: Plan, parts: Parts, files: RunFiles) -> Pictures:
    """Return the callback that draws the reconstructions of a fixed batch, of images never seen where there are any."""
    source, part = (parts.train, "training") if parts.validation is None else (parts.validation, "validation")
    count = min(config.logging.pictures, len(source))

    @cache
    def batch() -> dict[str, tf.Tensor]:
        return next(iter(_batches(config, model, plan, source, 0, Host(), steps=1, batch_size=count)))

    def draw(path: Path) -> None:
        draw_reconstructions(model, batch(), path, f"{files.root.name}, {path.stem.replace('_', ' ')}, {part} images")

    return Pictures(
        draw,
        files.pictures,
        config.logging.pictures_every,
        plan.epochs,
        files.tensorboard / "pictures" if config.logging.tensorboard else None,
        config.checkpoint.on_failure == "continue",
    )


def _finish(
    model: MaskedImageModel, probes: Probes, baselines: dict[str, dict[str, float]], files: RunFiles
) -> RunResult:
    """Save the networks, measure the trained encoder, draw the curves."""
    with replacing(files.encoder) as path:
        model.encoder.save(path)
    with replacing(files.weights) as path:
        model.save_weights(path)
    rows = probes.after(model.encoder, baselines)
    draw_curves(files.metrics, files.curves, {name: row for name, row in rows.items() if name != "trained encoder"})
    return RunResult(files, model, rows, probes.title, probes.explanation)
