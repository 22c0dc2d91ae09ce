"""The run engine on two logical devices: how often the host waits for them, stretches, bad steps seen late."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicas_worker import Case, batches, model_of
from runs import lines, small
from tensorflow.python.framework import ops

from lut_tf import LUT
from lut_tf.config import (
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    FinetuneViews,
    LoggingConfig,
    OptimizerConfig,
    RunConfig,
    from_yaml,
    validate,
)
from lut_tf.data import digits, finetuning_dataset
from lut_tf.data.batches.order import step_indices
from lut_tf.step import TrainableModel
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.going_on import check_run_dir
from lut_tf.training.guards import LOOK_EVERY, NonFiniteLoss
from lut_tf.training.plan import Plan, Stretch
from lut_tf.training.run import Run
from lut_tf.training.run_directory import RunFiles
from lut_tf.training.strategy import Host

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS = 30


def run_of(run_dir: Path, plan: Plan, again: LUT | None = None, **settings: Any) -> tuple[Run, LUT]:
    """A run of the equality tests' tiny LUT, or of one that is compiled already; its directory is not held."""
    defaults = {"epochs": plan.epochs, "optimizer__batch_size": plan.batch_size, "logging__tensorboard": True}
    config = small(run_dir, **{**defaults, **settings})
    run = Run(config, RunFiles(run_dir))
    model = run.build(lambda: again or model_of(Case("run", steps=plan.total_steps, max_bad_steps=0)), plan)
    run.restore()
    return run, model


@pytest.mark.slow
def test_the_host_waits_for_the_devices_every_so_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 steps on two devices the host reads three times from a device, and once more as the epoch ends.

    Other threads may read, for the bar: the next step does not wait for them. Keras asks after each step whether there
    was a batch, which is not the devices' to answer (the one truth value here).
    """
    plan = Plan(epochs=1, images=64 * STEPS, batch_size=64)
    run, model = run_of(tmp_path, plan, strategy="mirrored", devices=2, checkpoint__every_epochs=0)
    assert run.strategy.num_replicas_in_sync == 2
    case, main, at, reads = Case("run", steps=STEPS), threading.main_thread(), [0], []
    read = ops._EagerTensorBase._numpy

    def counted(tensor: Any) -> Any:
        if threading.current_thread() is main and 0 < at[0] <= STEPS and tensor.dtype != tf.bool:
            reads.append(at[0])
        return read(tensor)

    step = model.make_train_function

    def counting() -> None:
        step()
        inner = model.train_function

        def one_step(iterator: Any) -> Any:
            logs = inner(iterator)
            at[0] += 1
            return logs

        model.train_function = one_step

    monkeypatch.setattr(model, "make_train_function", counting)
    monkeypatch.setattr(ops._EagerTensorBase, "_numpy", counted)
    run.train(lambda start, host: batches(case, model, host))
    inside = sorted(set(reads) - {STEPS})
    assert inside == list(range(LOOK_EVERY, STEPS, LOOK_EVERY))
    assert len([at for at in reads if at < STEPS]) == len(inside)
    assert at[0] == STEPS


def test_stretches_end_a_begun_epoch_and_stop_where_they_are_told() -> None:
    plan = Plan(epochs=6, images=100, batch_size=20)
    assert plan.stretches(0) == [Stretch(0, 0, 6, 5)]
    assert plan.stretches(7) == [Stretch(7, 1, 2, 3), Stretch(10, 2, 6, 5)]
    assert plan.stretches(0, [2, 4]) == [Stretch(0, 0, 2, 5), Stretch(10, 2, 4, 5), Stretch(20, 4, 6, 5)]
    assert plan.stretches(12, [2, 4, 9]) == [Stretch(12, 2, 3, 3), Stretch(15, 3, 4, 5), Stretch(20, 4, 6, 5)]
    assert plan.stretches(30, [2]) == []
    assert plan.stretches(28) == [Stretch(28, 5, 6, 2)]


@dataclasses.dataclass(frozen=True)
class Classification(RunConfig):
    """Another task's settings: what any run has, and fine-tuning's views.

    Args:
        data: images.
        views: what is done to them.
        optimizer: batch and rate.
        logging: TensorBoard.
        checkpoint: saving.
        compute: precision.
    """

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    views: FinetuneViews = dataclasses.field(default_factory=FinetuneViews)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


class Classifier(TrainableModel):
    """An objective that is no masked-image modelling: images and soft targets, an average that follows the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.average = (keras.layers.Dense(10, name=name) for name in ("linear", "average"))
        for layer in (self.linear, self.average):
            layer.build((None, 192))
        self.average.trainable = False
        self.built = True

    @property
    def teacher_pairs(self) -> list[tuple[Any, Any]]:
        return list(zip(self.average.variables, self.linear.variables, strict=True))

    def momentum_at(self, step: Any) -> Any:
        return tf.constant(0.5)

    def compute_losses(self, batch: Any, training: bool = True, gather: Any = None) -> dict[str, Any]:
        images, targets = batch
        logits = self.linear(tf.reshape(images, [-1, 192]))
        return {"total": tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))}


def classified(run_dir: Path) -> tuple[Classification, Run, Plan]:
    """A run of the other objective on the digits: two micro-batches of 64, three epochs of nine steps."""
    config = Classification(
        run_dir=str(run_dir),
        epochs=3,
        views=FinetuneViews(operations=0, erasing=0.0),
        optimizer=OptimizerConfig(batch_size=128, accumulate=2, warmup_epochs=0),
        logging=LoggingConfig(tensorboard=False),
    )
    return config, Run(config, RunFiles(run_dir)), Plan(config.epochs, len(digits("train")), 128)


def compiled() -> Classifier:
    model = Classifier()
    model.compile(keras.optimizers.SGD(0.02), accumulate=2)
    return model


def classification_batches(config: Classification, plan: Plan, start: int, host: Host) -> tf.data.Dataset:
    return finetuning_dataset(
        digits("train"), classes=10, batch_size=plan.batch_size, image_size=8, views=config.views, seed=0,
        steps=plan.total_steps, start_step=start, host=host.number, hosts=host.total,
    )  # fmt: skip


@pytest.mark.slow
def test_a_hook_comes_before_each_stretch_and_changes_no_number(tmp_path: Path) -> None:
    """The same losses in three stretches as in one; the hook is told the epochs, batches begin where they should."""
    found: list[list[float]] = []
    for stops in ([], [1, 2]):
        config, run, plan = classified(tmp_path / str(len(stops)))
        seen: list[int] = []
        starts: list[int] = []

        def from_step(start: int, host: Host, config: Any = config, plan: Plan = plan, starts: Any = starts) -> Any:
            starts.append(start)
            return classification_batches(config, plan, start, host)

        with run.directory([]):
            run.build(compiled, plan)
            run.restore()
            run.train(from_step, stops=stops, before_stretch=seen.append)
        assert (seen, starts) == (([0], [0]) if not stops else ([0, 1, 2], [0, 9, 18]))
        found.append([line["loss"] for line in lines(tmp_path / str(len(stops)))])
    assert len(found[0]) == 3
    assert found[0] == found[1]


@pytest.mark.medium
@pytest.mark.parametrize("allowed", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_steps_are_named_though_the_host_looks_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, allowed: int
) -> None:
    """Steps 3, 5 and 6 of 8 are bad, and nobody looks before the epoch ends: the first that is too many is named.

    Its number, losses and images; those before it that are allowed are warnings, each with its own.
    """
    plan = Plan(epochs=1, images=64 * 8, batch_size=64)
    config = {"optimizer__max_bad_steps": allowed, "checkpoint__every_epochs": 0, "logging__tensorboard": False}
    run, model = run_of(tmp_path, plan, **config)
    model.max_bad_steps = allowed

    def spoiled(start: int, host: Any) -> tf.data.Dataset:
        bad = tf.constant([2, 4, 5], tf.int64)

        def spoil(step: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            noise = tf.where(tf.reduce_any(step == bad), float("nan"), 0.0)
            views = {name: tf.cast(batch[name], tf.float32) / 255 + noise for name in ("view1", "view2")}
            return {**batch, **views}

        return batches(Case("run", steps=8), model, host).enumerate().map(spoil)

    with pytest.raises(NonFiniteLoss) as stop:
        run.train(spoiled)
    wrong = {0: 3, 2: 6}[allowed]
    _, indices = step_indices(tf.constant(wrong - 1, tf.int64), images=plan.images, batch_size=64, seed=0)
    assert str(stop.value).startswith(f"the loss or gradient of step {wrong} is not finite: {{'loss': nan")
    assert f"images {indices.numpy().tolist()};" in str(stop.value)
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    told = [f"the loss or gradient of step {step} " for step in (3, 5)[:allowed]]
    assert [message[: len(start)] for message, start in zip(warned, told, strict=True)] == told


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_as_it_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made before there was an engine, stopped inside its second epoch: the same configuration file is taken, and the
    epoch's line is what that version wrote when nobody stopped it.

    To 1e-4: that version's BatchNorm kept a biased running variance. With its BatchNorm the line is the same bit for
    bit on the machine that made it.
    """
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)  # it would last for all tests
    run_dir = tmp_path / "run"
    shutil.copytree(GOLDEN / "run_before_engine", run_dir)
    config = from_yaml((run_dir / "config.yaml").read_text(encoding="utf-8"))
    pretrain(dataclasses.replace(config, run_dir=str(run_dir)))
    first, last = lines(run_dir)
    assert (first["step"], last["step"]) == (9, 18)
    expected = {
        "loss": 1.2362875938415527,
        "reconstruction": 1.0490341186523438,
        "context": 1.8725361824035645,
        "learning_rate": 9.046098421094939e-05,
        "teacher_momentum": 0.9997721314430237,
    }
    np.testing.assert_allclose([last[name] for name in expected], list(expected.values()), rtol=1e-4)


@pytest.mark.medium
def test_another_objective_runs_on_the_same_engine(tmp_path: Path) -> None:
    """Pairs of images and targets, its own tree of settings, accumulation, an average; complete when started again."""
    for again in (False, True):
        config, run, plan = classified(tmp_path)
        validate(config)
        check_run_dir(config)
        with run.directory([digits("train")]):
            model = run.build(compiled, plan)
            assert run.restore() == (plan.total_steps if again else 0)
            run.train(partial(classification_batches, config, plan))
    first, *_, last = lines(tmp_path)
    assert last["loss"] < first["loss"]
    assert last["teacher_momentum"] == 0.5
    assert not np.allclose(model.average.kernel.numpy(), model.linear.kernel.numpy())
    with pytest.raises(ValueError, match=r"views\.mixup was 0\.8, now 0\.1"):
        check_run_dir(dataclasses.replace(config, views=dataclasses.replace(config.views, mixup=0.1)))
