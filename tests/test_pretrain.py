"""Whole runs on the digits: what a run directory holds, going on after a stop, recipes. Guards `lut_tf.pretrain`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_batch
from runs import CONFIGS, assert_same_run, checkpointed, has_saved, lines, replaced, small

from lut_tf.config import from_yaml, validate
from lut_tf.data.batches.order import step_indices
from lut_tf.data.reading.sources import open_sources
from lut_tf.methods.build import build_model
from lut_tf.tasks.build import compile_model
from lut_tf.tasks.pretrain import pretrain
from lut_tf.tasks.result import RunResult
from lut_tf.training.guards import NonFiniteLoss


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of 3 epochs on one device that nobody stopped; what stops and goes on is compared with it."""
    return pretrain(small(tmp_path_factory.mktemp("whole") / "run", epochs=3), callbacks=[watcher])


class Watcher(keras.callbacks.Callback):
    """A user's callback: notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.epochs = list[dict[str, float]](), list[dict[str, float]]()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.steps.append(dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epochs.append({"epoch": epoch + 1, **(logs or {})})


watcher = Watcher()


@pytest.mark.medium
def test_a_run_leaves_everything_that_it_promises(whole: RunResult) -> None:
    root = whole.files.root
    files = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    assert {
        "config.yaml", "metrics.jsonl", "probes.json", "encoder.keras", "model.weights.h5",
        "checkpoints/step_00000027/manifest.json", "pictures/epoch_0003.png", "pictures/curves.png",
        "tensorboard/train",
    } <= files  # fmt: skip
    facts = json.loads((root / "resolved.json").read_text(encoding="utf-8"))
    assert (facts["batch_size"], facts["steps_per_epoch"], facts["peak_learning_rate"]) == (128, 9, 3e-3)
    log = lines(root)
    assert [(line["epoch"], line["step"]) for line in log] == [(1, 9), (2, 18), (3, 27)]
    assert all({"loss", "reconstruction", "context", "learning_rate", "probe_knn"} <= set(line) for line in log)
    assert list(whole.probes) == ["raw pixels", "random encoder", "trained encoder"]
    assert "300 held-out images" in whole.summary()
    assert str(whole.files.encoder) in whole.summary()
    assert len(watcher.steps) == 27 and "reconstruction" in watcher.steps[0]  # a user's callback is told the same
    assert [
        {name: line[name] for name in told} for line, told in zip(log, watcher.epochs, strict=True)
    ] == watcher.epochs
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    encoder = keras.saving.load_model(root / "encoder.keras")
    np.testing.assert_allclose(encoder(images), whole.model.encoder(images), atol=1e-6)


@pytest.mark.slow
def test_a_run_of_simmim_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Drop path, units and a rate that begins above zero included; and its encoder is an encoder."""
    recipe = from_yaml((CONFIGS / "simmim_digits.yaml").read_text(encoding="utf-8"))
    settings = {"epochs": 2, "encoder__width": 16, "optimizer__batch_size": 256, "method__drop_path": 0.5,
                "optimizer__warmup_epochs": 1.0,
                "optimizer__warmup_learning_rate": 1e-4, "checkpoint__every_epochs": 1, "logging__pictures": 2,
                "probe__every": 0, "probe__before_and_after": False}  # fmt: skip
    for name, value in settings.items():
        recipe = replaced(recipe, name.split("__"), value)
    first, second = (dataclasses.replace(recipe, run_dir=str(tmp_path / name)) for name in ("first", "second"))
    whole = pretrain(first)
    shutil.copytree(first.run_dir, second.run_dir)
    for part in ("encoder.keras", "model.weights.h5", "checkpoints/step_00000008"):
        (shutil.rmtree if part.startswith("checkpoints") else Path.unlink)(tmp_path / "second" / part)
    again = pretrain(second)
    for one, other in zip(whole.model.variables, again.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
    encoder = keras.saving.load_model(again.files.encoder)
    assert encoder.position_kind == "learned" and encoder(np.zeros((1, 16, 16, 3), "float32")).shape == (1, 65, 16)


@pytest.mark.medium
def test_a_finished_run_started_again_trains_nothing(
    whole: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole.files.root, run_dir)
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    again = pretrain(small(run_dir, epochs=3))
    assert "this run is complete" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    written = {path.name for path, time in after.items() if time != before[path]}
    assert written <= {"lock", "config.yaml", "resolved.json"}
    assert whole.probes == again.probes
    assert lines(run_dir) == lines(whole.files.root)


@pytest.mark.slow
def test_a_run_stopped_after_an_epoch_goes_on_as_if_it_had_not(
    whole: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after epoch 1 of 3 and started again: the same losses (1e-6) and weights (1e-5), no line twice."""
    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_epoch_end", stop_in_epoch(1))
        with pytest.raises(KeyboardInterrupt):
            pretrain(small(tmp_path / "parts", epochs=3))
    assert [line["epoch"] for line in lines(tmp_path / "parts")] == [1, 2]  # epoch 2 was logged, not saved
    parts = pretrain(small(tmp_path / "parts", epochs=3))
    for a, b in zip(lines(whole.files.root), lines(tmp_path / "parts"), strict=True):
        assert a["step"] == b["step"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
    for v1, v2 in zip(whole.model.variables, parts.model.variables, strict=True):
        np.testing.assert_allclose(v1.numpy(), v2.numpy(), atol=1e-5, err_msg=v1.path)
    assert whole.probes["random encoder"] == parts.probes["random encoder"]


def stop_in_epoch(number: int) -> Any:
    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        if epoch == number:
            raise KeyboardInterrupt

    return on_epoch_end


@pytest.mark.slow
def test_two_mirrored_devices_learn_what_one_does(tmp_path: Path) -> None:
    """A whole run's losses; each step's, to 1e-5 and with SGD, are in test_fit.py and test_hosts.py."""
    one = pretrain(small(tmp_path / "one", epochs=1))
    two = pretrain(small(tmp_path / "two", epochs=1, strategy="mirrored", devices=2))
    assert lines(tmp_path / "one")[0]["loss"] == pytest.approx(lines(tmp_path / "two")[0]["loss"], rel=1e-4)
    assert one.model.count_params() == two.model.count_params()


def test_another_configuration_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    has_saved(tmp_path / "run")
    from lut_tf.config import to_yaml

    written = to_yaml(small(tmp_path / "run"))
    (tmp_path / "run" / "config.yaml").write_text(written, encoding="utf-8")
    with pytest.raises(ValueError, match=r"method.mask_ratio was 0.75, now 0.5"):
        pretrain(small(tmp_path / "run", method__mask_ratio=0.5))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "checkpoints"}
    assert (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8") == written


@pytest.mark.medium
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if "small" in path.stem or "large" in path.stem else ())
     for path in sorted(CONFIGS.glob("*.yaml"))],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_every_recipe_builds_and_takes_a_step(path: Path) -> None:
    """At a smoke size: the recipe's method, ratios, weights and optimizer, with a narrow and shallow network."""
    config = from_yaml(path.read_text(encoding="utf-8"))
    if config.data.source == "image_folder":  # nothing is read here; one recipe leaves the folder to the user
        config = replaced(config, ["data", "path"], "photos")
    validate(config)
    assert config.encoder.size().width % 4 == 0
    smoke = {"encoder__image_size": 32, "encoder__patch_size": 8, "encoder__width": 24, "encoder__depth": 1,
             "encoder__heads": 2,
             **({"method__head__hidden": 16} if config.method.name == "lut" else {}),
             **({"method__mask_unit": 8} if config.method.name == "simmim" else {})}  # fmt: skip
    if config.method.name != "simmim":  # whose decoder has no size
        smoke |= {"decoder__width": 16, "decoder__depth": 1, "decoder__heads": 2}
    for name, value in smoke.items():
        config = replaced(config, name.split("__"), value)
    model = build_model(config, total_steps=10)
    compile_model(config, model, steps_per_epoch=2)
    assert model.micro_batches == config.optimizer.accumulate
    model.micro_batches = 1  # what several add to it is in test_fit.py
    logs = model.train_step({name: tf.constant(x) for name, x in tiny_batch(model, 2).items()})
    assert np.isfinite(float(logs["loss"]))
    assert int(model.optimizer.iterations) == 1


@pytest.mark.medium
@pytest.mark.parametrize("allowed", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, allowed: int
) -> None:
    """A rate of 1e30 ruins the weights in step 1: step 2 is bad. The message has all that a search for it needs."""
    config = small(
        tmp_path / "run",
        probe__every=0,
        checkpoint__every_steps=1,
        optimizer__base_learning_rate=1e30,
        optimizer__warmup_epochs=0.0,
        optimizer__max_bad_steps=allowed,
    )
    with pytest.raises(NonFiniteLoss) as stop:
        pretrain(config)
    message, step = str(stop.value), 2 + allowed
    images = open_sources(config.data).train
    _, indices = step_indices(tf.constant(step - 1, tf.int64), images=len(images), batch_size=128, seed=0)
    assert message.startswith(f"the loss or gradient of step {step} is not finite: {{'loss': ")
    assert "'context': " in message
    assert f"images {indices.numpy().tolist()};" in message
    assert f"last good checkpoint: {tmp_path / 'run' / 'checkpoints' / f'step_{step - 1:08d}'};" in message
    assert caplog.text.count("skipped, number") == allowed
    for folder in (tmp_path / "run" / "checkpoints").glob("step_*"):
        reader = tf.train.load_checkpoint(str(folder / "state"))
        for name in reader.get_variable_to_shape_map():
            value = np.asarray(reader.get_tensor(name))
            if "agreement" not in name and np.issubdtype(value.dtype, np.floating):  # it tells of the last bad loss
                assert np.isfinite(value).all(), name


@pytest.mark.slow
def test_a_run_goes_on_on_another_number_of_replicas(whole: RunResult, tmp_path: Path) -> None:
    """Stopped inside an epoch on 2 replicas, ended on 1: the same steps, the same batches, the same losses (1e-4)."""
    moved = small(tmp_path / "moved", epochs=3, probe__every=0, checkpoint__every_steps=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_train_batch_end", stop_at_batch(5))
        with pytest.raises(KeyboardInterrupt):
            pretrain(dataclasses.replace(moved, strategy="mirrored", devices=2))
    assert checkpointed(tmp_path / "moved") == [4]
    pretrain(moved)
    for a, b in zip(lines(whole.files.root), lines(tmp_path / "moved"), strict=True):
        assert a["step"] == b["step"]
        for name in ("loss", "reconstruction", "context", "learning_rate", "teacher_momentum"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)


def stop_at_batch(number: int) -> Any:
    def on_train_batch_end(self: Any, batch: int, logs: Any = None) -> None:
        if batch == number:
            raise KeyboardInterrupt

    return on_train_batch_end


@pytest.mark.slow
def test_two_replicas_stopped_inside_an_epoch_go_on_to_the_last_bit(tmp_path: Path) -> None:
    """Weights and metrics, the running means included, are those of two replicas that nobody stopped."""
    settings = {"epochs": 2, "probe__every": 0, "checkpoint__every_steps": 4, "strategy": "mirrored", "devices": 2}
    pretrain(small(tmp_path / "whole", **settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_train_batch_end", stop_at_batch(5))
        with pytest.raises(KeyboardInterrupt):
            pretrain(small(tmp_path / "parts", **settings))
    pretrain(small(tmp_path / "parts", **settings))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.medium
@pytest.mark.parametrize("share", [0.05, 0.9], ids=["too many", "a class without any"])
def test_damaged_images_end_a_run_in_one_line_wherever_they_are_met(tmp_path: Path, share: float) -> None:
    """In the evaluation folder, which is read before training starts, as well as in training."""
    for part in ("train", "evaluation"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(8):
                pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                path = tmp_path / part / name / f"{i}.png"
                path.write_bytes(tf.io.encode_png(pixels).numpy())
                if part == "evaluation" and name == "dog":
                    path.write_bytes(b"no image")
    folders = {"data__path": str(tmp_path / "train"), "data__evaluation_path": str(tmp_path / "evaluation")}
    config = small(
        tmp_path / "run", **folders, data__source="image_folder", data__damaged_share=share,
        optimizer__batch_size=8, probe__neighbours=3,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"data.evaluation_path: \d of 16 files give no image .*damaged_share"):
        pretrain(config)
