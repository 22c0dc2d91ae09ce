"""The linear probe, as a recipe reads: encoder, images, who judges, training, the choice, the result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from lut_tf.config import LinearProbeConfig
from lut_tf.data.batches.probing import probing_dataset
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import Source, open_sources
from lut_tf.interop.sources import OpenedEncoder, open_encoder
from lut_tf.methods.linear_probe import FrozenEncoder, LinearProbe
from lut_tf.models.encoder import ViTEncoder
from lut_tf.tasks.build import compile_probe
from lut_tf.tasks.classes import Classes, classes_of
from lut_tf.tasks.judges import judges_of
from lut_tf.tasks.linear_probe_result import Heads, ProbeResult, announcement, resolved
from lut_tf.tasks.logistic_probe import logistic_probe
from lut_tf.tasks.preflight import preflight_probe
from lut_tf.training.callbacks import Probe
from lut_tf.training.plan import Plan
from lut_tf.training.run import Run
from lut_tf.training.run_directory import EVALUATION_IMAGES, RunFiles
from lut_tf.training.strategy import Host
from lut_tf.writing import replacing


def linear_probe(
    config: LinearProbeConfig, listing: Listing | None = None, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> ProbeResult:
    """Probe an encoder as `config` says, or go on where its run directory stands.

    Args:
        config: of the run.
        listing: what `preflight_probe` returned for this configuration; None has it checked here.
        callbacks: Keras callbacks of your own; see `lut_tf.pretrain`. The solver `logistic` calls none.

    Raises:
        ValueError, FileNotFoundError, PermissionError: a mistake in the configuration, in one line, before anything
            slow starts and before anything is written; or the run has begun with another encoder.
        lut_tf.training.interruption.Interrupted: SIGINT or SIGTERM stopped the run, which is saved.
        lut_tf.training.guards.NonFiniteLoss: the loss of one of the linear layers is no finite number any more.
    """
    listing = preflight_probe(config) if listing is None else listing
    if config.solver == "logistic":
        return logistic_probe(config, listing)
    files = RunFiles(Path(config.run_dir))
    run = Run(config, files, listing.digest)
    parts = open_sources(config.data, listing)
    classes = classes_of(config.data, parts)
    judges = judges_of(config, parts)
    with tf.device("CPU:0"):  # the devices are the run's own
        opened = open_encoder(str(config.init_from), image_size=config.image_size, setting="init_from")
    plan = Plan(config.epochs, classes.images, config.optimizer.batch_size)
    with run.directory([part for part in parts if part is not None]):
        model = run.build(lambda: _compiled(config, opened, classes, plan), plan)
        through = run.restore() >= plan.total_steps
        if not model.fits:
            raise ValueError(
                f"init_from={config.init_from!r} is another encoder than the probe in run_dir={config.run_dir!r} has "
                "begun with: give the encoder of then, or another --run_dir"
            )
        batches = partial(_batches, config, model, plan, parts.train)
        if not run.host.chief:
            run.train(batches)
            return ProbeResult(files, model=model, worker=run.host.number)
        heads = Heads(config, model, opened, judges, classes)
        facts = resolved(config, model, classes, plan, run.strategy.num_replicas_in_sync)
        facts[EVALUATION_IMAGES] = listing.evaluation_digest
        left_out = listing.left_out and f"left out: {listing.left_out}"
        run.announce(facts, announcement(facts, config, opened.origin, classes.said, judges.said, left_out))
        measures = [Probe(heads.while_training, 0 if judges.choosing is None else 1, "validation")]
        run.train(batches, measures=measures, others=callbacks)
        if not (through and files.weights.exists()):  # what is there and whole is not written again
            with replacing(files.weights) as path:
                model.save_weights(path)
        return ProbeResult(files, *heads.closed(files, listing, parts, again=through), model=model)


def _compiled(config: LinearProbeConfig, opened: OpenedEncoder, classes: Classes, plan: Plan) -> LinearProbe:
    model = LinearProbe(
        _on_devices(config, opened), classes.count, config.optimizer.base_learning_rates, seed=config.seed
    )
    compile_probe(config, model, plan.steps_per_epoch)
    return model


def _on_devices(config: LinearProbeConfig, opened: OpenedEncoder) -> FrozenEncoder:
    """Return the encoder in the run's precision, on the devices in whose scope this is called."""
    encoder = ViTEncoder.from_config({**opened.encoder.get_config(), "dtype": config.compute.precision})
    for target, source in zip(encoder.variables, opened.encoder.variables, strict=True):
        target.assign(source)
    encoder.trainable = False
    return FrozenEncoder(encoder, opened.checksum)


def _batches(
    config: LinearProbeConfig, model: LinearProbe, plan: Plan, source: Source, start_step: int, host: Host
) -> tf.data.Dataset:
    return probing_dataset(
        source,
        batch_size=plan.batch_size,
        image_size=model.frozen.encoder.image_size,
        views=config.views,
        seed=config.seed,
        steps=plan.total_steps,
        start_step=start_step,
        parallel_calls=config.data.parallel_calls,
        host=host.number,
        hosts=host.total,
    )
