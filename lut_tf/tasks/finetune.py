"""Fine-tuning, as a recipe reads: encoder, images, classes, training, measures, files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from lut_tf.config import FinetuneConfig
from lut_tf.data.batches.finetuning import finetuning_dataset
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import Source, open_sources
from lut_tf.methods.classification import Classification
from lut_tf.tasks.begun import Beginning, open_beginning
from lut_tf.tasks.build import compile_classification
from lut_tf.tasks.classes import Classes, classes_of
from lut_tf.tasks.finetune_result import FinetuneResult, Measures, announcement, closed, resolved
from lut_tf.tasks.preflight import preflight_finetuning
from lut_tf.training.best import KeepBest
from lut_tf.training.callbacks import Probe
from lut_tf.training.plan import Plan
from lut_tf.training.run import Run
from lut_tf.training.run_directory import EVALUATION_IMAGES, RunFiles, facts_of
from lut_tf.training.strategy import Host
from lut_tf.writing import replacing


def finetune(
    config: FinetuneConfig, listing: Listing | None = None, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> FinetuneResult:
    """Fine-tune an encoder as `config` says, or go on where its run directory stands.

    Args:
        config: of the run.
        listing: what `preflight_finetuning` returned for this configuration; None has it checked here.
        callbacks: Keras callbacks of your own; see `lut_tf.pretrain`.

    Raises:
        ValueError, FileNotFoundError, PermissionError: a mistake in the configuration, in one line, before anything
            slow starts and before anything is written.
        lut_tf.training.interruption.Interrupted: SIGINT or SIGTERM stopped the run, which is saved.
        lut_tf.training.guards.NonFiniteLoss: the loss is no finite number any more.
    """
    listing = preflight_finetuning(config) if listing is None else listing
    files = RunFiles(Path(config.run_dir))
    run = Run(config, files, listing.digest)
    parts = open_sources(config.data, listing)
    classes = classes_of(config.data, parts)
    beginning = open_beginning(config)
    plan = Plan(config.epochs, classes.images, config.optimizer.batch_size)
    with run.directory([part for part in parts if part is not None]):
        model = run.build(lambda: _compiled(config, beginning, classes, plan), plan)
        complete = run.restore() >= plan.total_steps and files.classifier.exists() and files.weights.exists()
        batches = partial(_batches, config, model, plan, parts.train)
        if not run.host.chief:
            run.train(batches)
            return FinetuneResult(files, model.kept, worker=run.host.number)
        if beginning.written is None:
            beginning.write(files, model.classifier)
        measures = Measures(model.kept, parts, classes, listing.why_no_probes)
        # What was the best on other images may not be so on these.
        same = facts_of(files).get(EVALUATION_IMAGES, listing.evaluation_digest) == listing.evaluation_digest
        patient = config.checkpoint.on_failure == "continue"
        best = KeepBest("validation_top1", files, plan, run.step if same else 0, model.kept.save, patient)
        facts = resolved(config, model, classes, plan, run.strategy.num_replicas_in_sync)
        facts[EVALUATION_IMAGES] = listing.evaluation_digest
        left_out = listing.left_out and f"left out: {listing.left_out}"
        notes = [f"begins with {beginning.origin}", classes.said, measures.said, left_out]
        if listing.evaluates_training:
            notes.append("the evaluation images are the training images: the figures say nothing of new ones")
        run.announce(facts, announcement(facts, config.run_dir, *notes))
        run.train(
            batches,
            measures=[Probe(measures.while_training, 1 if measures.possible else 0, "validation")],
            others=[best, *callbacks],
        )
        if not complete:  # what is there and whole is not written again
            _save(model, files)
        result = closed(config, files, measures, beginning, listing, best.settle(), again=complete and same)
        best.clear()  # a run that is killed before its result is written finds its best epoch again
        return result


def _compiled(config: FinetuneConfig, beginning: Beginning, classes: Classes, plan: Plan) -> Classification:
    model = Classification(beginning.make(config, classes.count, classes.names), config.classifier.ema)
    compile_classification(config, model, plan.steps_per_epoch)
    return model


def _save(model: Classification, files: RunFiles) -> None:
    with replacing(files.classifier) as path:
        model.kept.save(path)
    with replacing(files.weights) as path:
        model.save_weights(path)


def _batches(
    config: FinetuneConfig, model: Classification, plan: Plan, source: Source, start_step: int, host: Host
) -> tf.data.Dataset:
    classifier = model.classifier
    return finetuning_dataset(
        source,
        classes=classifier.classes,
        batch_size=plan.batch_size,
        image_size=classifier.image_size,
        views=config.views,
        seed=config.seed,
        steps=plan.total_steps,
        start_step=start_step,
        parallel_calls=config.data.parallel_calls,
        host=host.number,
        hosts=host.total,
        preprocessing=classifier.preprocessing,
        drop_path_numbers=2 * classifier.encoder.depth if classifier.drop_path else 0,
    )
