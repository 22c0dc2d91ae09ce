"""Whole runs on the digits: what a run directory holds, going on after a stop, recipes. Guards `lut_tf.pretrain`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lut_tf.build import build_model, compile_model
from lut_tf.checks import check, resolve_size
from lut_tf.config import Config, from_yaml
from lut_tf.pretrain import pretrain

CONFIGS = Path(__file__).parent.parent / "configs"


def small(run_dir: Path, **settings: Any) -> Config:
    """The digits' recipe, smaller; settings are dotted names with `__` for the dot."""
    config = from_yaml((CONFIGS / "digits.yaml").read_text(encoding="utf-8"))
    smallest = {
        "run_dir": str(run_dir),
        "epochs": 2,
        "encoder__width": 16,
        "encoder__depth": 1,
        "decoder__width": 16,
        "decoder__depth": 1,
        "method__head__hidden": 16,
        "optimizer__warmup_epochs": 1.0,
        "optimizer__batch_size": 128,
        "probe__every": 1,
        "logging__pictures": 2,
    }
    for name, value in {**smallest, **settings}.items():
        config = replaced(config, name.split("__"), value)
    return config


def replaced(node: Any, path: list[str], value: Any) -> Any:
    new = replaced(getattr(node, path[0]), path[1:], value) if len(path) > 1 else value
    return dataclasses.replace(node, **{path[0]: new})


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.medium
def test_a_run_leaves_everything_that_it_promises(tmp_path: Path) -> None:
    result = pretrain(small(tmp_path / "run"))
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    assert {
        "config.yaml", "metrics.jsonl", "probes.json", "encoder.keras", "model.weights.h5",
        "checkpoints/step_00000018/manifest.json", "pictures/epoch_0002.png", "pictures/curves.png",
        "tensorboard/train",
    } <= files  # fmt: skip
    log = lines(tmp_path / "run")
    assert [(line["epoch"], line["step"]) for line in log] == [(1, 9), (2, 18)]
    assert all({"loss", "reconstruction", "context", "learning_rate", "probe_knn"} <= set(line) for line in log)
    assert list(result.probes) == ["raw pixels", "random encoder", "trained encoder"]
    assert "300 held-out images" in result.summary()
    assert str(result.files.encoder) in result.summary()
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    encoder = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
    np.testing.assert_allclose(encoder(images), result.model.encoder(images), atol=1e-6)


@pytest.mark.medium
def test_a_run_stopped_after_an_epoch_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after epoch 1 of 3 and started again: the same losses (1e-6) and weights (1e-5), no line twice."""
    whole = pretrain(small(tmp_path / "whole", epochs=3))
    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_epoch_end", stop_in_epoch(1))
        with pytest.raises(KeyboardInterrupt):
            pretrain(small(tmp_path / "parts", epochs=3))
    assert [line["epoch"] for line in lines(tmp_path / "parts")] == [1, 2]  # epoch 2 was logged, not saved
    parts = pretrain(small(tmp_path / "parts", epochs=3))
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "parts"), strict=True):
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


@pytest.mark.medium
def test_two_mirrored_devices_learn_what_one_does(tmp_path: Path) -> None:
    one = pretrain(small(tmp_path / "one", epochs=1))
    two = pretrain(small(tmp_path / "two", epochs=1, strategy="mirrored", devices=2))
    assert lines(tmp_path / "one")[0]["loss"] == pytest.approx(lines(tmp_path / "two")[0]["loss"], rel=1e-4)
    assert one.model.count_params() == two.model.count_params()


@pytest.mark.medium
def test_a_finished_run_started_again_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = pretrain(small(tmp_path / "run", epochs=1, probe__every=0))
    again = pretrain(small(tmp_path / "run", epochs=1, probe__every=0))
    assert "this run is complete" in capsys.readouterr().out
    assert first.probes == again.probes
    assert len(lines(tmp_path / "run")) == 1


def test_another_configuration_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    from lut_tf.config import to_yaml

    written = to_yaml(small(tmp_path / "run"))
    (tmp_path / "run" / "config.yaml").write_text(written, encoding="utf-8")
    with pytest.raises(ValueError, match=r"method.mask_ratio was 0.75, now 0.5"):
        pretrain(small(tmp_path / "run", method__mask_ratio=0.5))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    assert (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8") == written


@pytest.mark.medium
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_builds_and_takes_a_step(path: Path) -> None:
    """At a smoke size: the recipe's method, ratios, weights and optimizer, with a narrow and shallow network."""
    config = from_yaml(path.read_text(encoding="utf-8"))
    check(config)
    assert resolve_size(config.encoder).width % 4 == 0
    smoke = {"encoder__image_size": 32, "encoder__patch_size": 8, "encoder__width": 24, "encoder__depth": 1,
             "encoder__heads": 2, "decoder__width": 16, "decoder__depth": 1, "decoder__heads": 2,
             "method__head__hidden": 16}  # fmt: skip
    for name, value in smoke.items():
        config = replaced(config, name.split("__"), value)
    model = build_model(config, total_steps=10)
    compile_model(config, model, steps_per_epoch=2)
    random = np.random.default_rng(0)
    count = 2 * config.optimizer.accumulate
    batch = {"noise": random.random((count, model.noise_length), dtype="float32")}
    for name in ("view1", "view2"):
        batch[name] = random.normal(size=(count, 32, 32, 3)).astype("float32")
    logs = model.train_step({name: tf.constant(x) for name, x in batch.items()})
    assert np.isfinite(float(logs["loss"]))
    assert int(model.optimizer.iterations) == 1
