"""LUT and MAE against the numbers of the published reference program (float64 there, float32 here)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from helpers import golden_batch, golden_config, golden_model, gradients, group

from lut_tf import LUT, MAE
from lut_tf.interop import to_reference
from lut_tf.training.optimizer import adamw

Golden = Callable[[str], dict[str, np.ndarray]]
FILES = ("lut_tiny", "lut_tiny_variant")


# The variant has other heads and no normalised pixels; `test_dimensions` has both, in every run.
@pytest.fixture(scope="module", params=[FILES[0], pytest.param(FILES[1], marks=pytest.mark.slow)])
def arrays(request: pytest.FixtureRequest, golden: Golden) -> dict[str, np.ndarray]:
    return golden(request.param)


def is_key_bias(name: str) -> bool:
    return name.endswith("attn.qkv.bias")


def without_key(name: str, value: np.ndarray) -> np.ndarray:
    """Leave out the key bias: its gradient is zero but for rounding, which Adam makes as large as any other."""
    return np.delete(value, slice(len(value) // 3, 2 * len(value) // 3)) if is_key_bias(name) else value


class Trained(NamedTuple):
    """What a model says before each step of its golden file, what each step reports, and the model after the last."""

    model: LUT
    outputs: list[dict[str, Any]]
    logs: list[dict[str, float]]


@pytest.fixture(scope="module")
def trained(arrays: dict[str, np.ndarray]) -> Trained:
    """Take every step of the golden file by `fit`; looking on the way must not move BatchNorm."""
    model, config = golden_model(arrays), golden_config(arrays)
    model.compile(adamw(config["lr"], config["weight_decay"], config["betas"], model=model))
    outputs, logs = [], []
    for step in range(config["steps"]):
        batch = golden_batch(arrays, step)
        running = [(variable, variable.numpy()) for variable in model.moved_by_forward()]
        outputs.append(model(batch, training=True))
        for variable, value in running:
            variable.assign(value)
        history = model.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history
        logs.append({name: values[0] for name, values in history.items()})
    return Trained(model, outputs, logs)


class First(NamedTuple):
    """A step's losses and gradients before anything is learned, and the model that they are of."""

    model: LUT
    losses: dict[str, float]
    gradients: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def first(arrays: dict[str, np.ndarray]) -> First:
    model = golden_model(arrays)
    return First(model, *gradients(model, golden_batch(arrays, 0)))


@pytest.fixture(scope="module")
def without_context(arrays: dict[str, np.ndarray]) -> First:
    model = golden_model(arrays, context_weight=0.0)
    return First(model, *gradients(model, golden_batch(arrays, 0)))


@pytest.mark.medium
def test_losses_of_every_step(arrays: dict[str, np.ndarray], trained: Trained) -> None:
    """1e-6 relative: guards losses, optimizer, teacher and their order in a step."""
    for step, logs in enumerate(trained.logs):
        for ours, theirs in (("reconstruction", "reconstruction"), ("context", "context"), ("loss", "total")):
            np.testing.assert_allclose(logs[ours], arrays[f"step{step}/loss_{theirs}"], rtol=1e-6)


def test_momentum_of_every_step(arrays: dict[str, np.ndarray], trained: Trained) -> None:
    """1e-6 absolute: guards the schedule and that the first update uses step 0."""
    for step, logs in enumerate(trained.logs):
        np.testing.assert_allclose(logs["teacher_momentum"], arrays[f"step{step}/ema_decay"], atol=1e-6)


@pytest.mark.parametrize("teacher", [False, True])
def test_weights_after_the_last_step(arrays: dict[str, np.ndarray], trained: Trained, teacher: bool) -> None:
    """The teacher 2e-6 absolute; the student 1e-5 of each array's norm, 1e-4 absolute, running variances 1e-5.

    Guards AdamW's decay and exclusions, BatchNorm's statistics, and the teacher's average. Where a gradient is of the
    size of AdamW's epsilon, its rounding moves a weight by as much as another's whole step: hence the student's 1e-4.
    """
    found = to_reference(trained.model, teacher=teacher)
    expected = group(arrays, "final/teacher/" if teacher else "final/student/")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):  # Keras keeps no count
            continue
        ours, theirs = without_key(name, found[name]), without_key(name, value)
        most = 2e-6 if teacher else 1e-5 if name.endswith("running_var") else 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=most, err_msg=name)
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs) + 1e-6, name


def test_outputs_of_step_0(arrays: dict[str, np.ndarray], trained: Trained) -> None:
    """1e-5 of the largest: guards masking, both networks, both heads and the teacher's inference mode."""
    outputs = trained.outputs[0]
    order = np.argsort(np.concatenate([outputs["plan1"].visible, outputs["plan1"].masked], axis=1), axis=1)
    found = {
        "pred": np.take_along_axis(outputs["prediction"].numpy(), order[..., None], axis=1),
        "student_out": np.concatenate([outputs["student1"], outputs["student2"]]),
        "teacher_out": np.concatenate([outputs["teacher1"], outputs["teacher2"]]),
    }
    for name, value in found.items():
        expected = arrays[f"step0/{name}"]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def test_outputs_of_later_steps(arrays: dict[str, np.ndarray], trained: Trained) -> None:
    """Of the largest: teacher 2e-6, student 5e-5. Guards what both say after each update."""
    for step, outputs in enumerate(trained.outputs):
        for side, tolerance in (("student", 5e-5), ("teacher", 2e-6)):
            expected = arrays[f"step{step}/{side}_out"]
            found = np.concatenate([outputs[f"{side}1"], outputs[f"{side}2"]])
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.medium
def test_gradients_of_step_0(arrays: dict[str, np.ndarray], first: First) -> None:
    """Every one within 1e-4 of its norm, and their norm: guards what learns from what."""
    for name, value in group(arrays, "grad/").items():
        difference = np.linalg.norm(without_key(name, first.gradients[name]) - without_key(name, value))
        assert difference <= 1e-4 * np.linalg.norm(value), name
    norm = np.sqrt(sum(np.sum(value.astype("float64") ** 2) for value in first.gradients.values()))
    np.testing.assert_allclose(norm, arrays["step0/grad_norm"], rtol=1e-5)


def test_untrained_have_no_gradient(arrays: dict[str, np.ndarray], first: First) -> None:
    """Exactly zero: positions are constants, and the file has a gradient for everything else."""
    silent = {name for name, value in first.gradients.items() if not value.any()}
    assert silent == set(first.gradients) - set(group(arrays, "grad/"))


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["LUT with context weight 0", "MAE"])
def test_mae(arrays: dict[str, np.ndarray], without_context: First, kind: str) -> None:
    """1e-5 relative, and the same gradients by both ways: MAE is LUT without its context."""
    lut, losses, reference = without_context
    if kind == "MAE":
        mae = MAE(lut.encoder, lut.decoder, lut.mask_ratio, lut.norm_pix_loss)
        losses, found = gradients(mae, golden_batch(arrays, 0))
        for name, value in found.items():
            np.testing.assert_allclose(value, reference[name], rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(losses["total"], arrays["step0/loss_reconstruction"], rtol=1e-5)
    heads = [value for name, value in reference.items() if name.startswith(("head", "predictor"))]
    assert not any(value.any() for value in heads)
