"""LUT of other sizes, heads and settings than the golden files', against `plain.lut` in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import plain
import pytest
import tensorflow as tf
from helpers import gradients, group
from plain import Case

from lut_tf.interop import load_reference, to_reference
from lut_tf.methods.lut import LUT
from lut_tf.training.optimizer import adamw

CASES = {
    "default": Case(),
    "identity heads": Case(projector=0, predictor=0),
    "no projector": Case(projector=0, predictor=2, norm="layer"),
    "no predictor": Case(projector=3, predictor=0, activation="gelu"),
    "deep heads without norm": Case(projector=3, predictor=3, norm=None),
    "shallow heads": Case(projector=1, predictor=1, norm=None, activation="gelu"),
    "LayerNorm, GELU": Case(projector=2, predictor=3, norm="layer", activation="gelu", norm_pix_loss=False),
    "half masked": Case(side=32, mask_ratio=0.5, norm_pix_loss=False, context_weight=1.0),
    "almost all masked": Case(side=40, patch=4, mask_ratio=0.9, batch=3),
    "one direction": Case(symmetric=False, mask_ratio=0.6, context_weight=2.0),
    "deep and narrow": Case(width=12, depth=4, heads=3, decoder_width=8, decoder_heads=2, decoder_depth=3),
    # Without blocks the visible tokens do not reach the pixels, and BatchNorm does not feel a shift: with it the final
    # norm's shift would have no gradient but rounding.
    "no decoder blocks": Case(width=24, heads=6, decoder_width=16, decoder_depth=0, decoder_heads=4, norm="layer"),
}


def load(case: Case, student: dict[str, np.ndarray], teacher: dict[str, np.ndarray]) -> LUT:
    return load_reference(
        student,
        teacher=teacher,
        num_heads=case.heads,
        decoder_num_heads=case.decoder_heads,
        head_norm=case.norm,
        head_activation=case.activation,
        mask_ratio=case.mask_ratio,
        norm_pix_loss=case.norm_pix_loss,
        context_weight=case.context_weight,
        symmetric=case.symmetric,
        momentum=0.9,
    )


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


def wide(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array if name == "noise" else array.astype("float64") for name, array in arrays.items()}


# What the others change stands in one of these too; they are slow.
USUAL = ("default", "LayerNorm, GELU", "one direction")


@pytest.fixture(params=[name if name in USUAL else slow(name) for name in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.medium
def test_losses_and_outputs(case: Case) -> None:
    """1e-5 relative, outputs 1e-5 of their largest: guards the forward pass for settings nobody listed."""
    student, teacher = plain.random_weights(case, 1)
    batch = plain.random_batch(case, 2)
    expected = plain.lut(wide(student), wide(teacher), wide(batch), case, np)
    model = load(case, student, teacher)
    losses = model.compute_losses({name: tf.constant(value) for name, value in batch.items()}, training=True)
    for name in ("reconstruction", "context", "total"):
        np.testing.assert_allclose(float(losses[name]), expected[name], rtol=1e-5, err_msg=name)
    outputs = model(batch, training=True)  # BatchNorm has moved, which what it says in training does not show
    ids = np.concatenate([outputs["plan1"].visible, outputs["plan1"].masked], axis=1)
    expected["prediction"] = np.take_along_axis(expected["prediction"], ids[..., None], axis=1)
    for name in ("prediction", "student1", "student2", "teacher1", "teacher2"):
        if name in outputs:
            largest = np.abs(expected[name]).max()
            np.testing.assert_allclose(outputs[name], expected[name], rtol=0, atol=1e-5 * largest, err_msg=name)


def slope(case: Case, arrays: tuple[Any, Any, Any], name: str, direction: np.ndarray) -> float:
    """The derivative of the total loss along `direction` of one weight, by central differences in float64."""
    student, teacher, batch = arrays
    step = 1e-6 / np.sqrt(direction.size)
    either = [
        plain.lut({**student, name: student[name] + sign * step * direction}, teacher, batch, case, np)["total"]
        for sign in (1, -1)
    ]
    return (either[0] - either[1]) / (2 * step)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["default", *map(slow, USUAL[1:])])
def test_gradients_by_finite_differences(name: str) -> None:
    """1e-4 of each gradient's norm along a Gaussian direction: guards gradients where PyTorch is not installed."""
    case = CASES[name]
    student, teacher = plain.random_weights(case, 3)
    batch = plain.random_batch(case, 4)
    _, found = gradients(load(case, student, teacher), {k: tf.constant(v) for k, v in batch.items()})
    arrays = wide(student), wide(teacher), wide(batch)
    for weight in (w for w in student if "pos_embed" not in w and "running" not in w):
        direction = np.random.default_rng(5).normal(size=student[weight].shape)
        expected = slope(case, arrays, weight, direction)
        tolerance = 1e-4 * max(float(np.linalg.norm(found[weight])), 1e-3)
        np.testing.assert_allclose(np.sum(found[weight] * direction), expected, rtol=0, atol=tolerance, err_msg=weight)


def torch_run(case: Case, student: Any, teacher: Any, batches: list[Any], betas: tuple[float, float]) -> Any:
    """Train `plain.lut` by PyTorch's AdamW in float64; return first gradients, losses, final student and teacher."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    student, teacher = ({k: torch.tensor(v).double() for k, v in arrays.items()} for arrays in (student, teacher))
    trained = {k: v.requires_grad_() for k, v in student.items() if "pos_embed" not in k and "running" not in k}
    decays = [
        {"params": [v for v in trained.values() if v.ndim > 1], "weight_decay": 0.05},
        {"params": [v for v in trained.values() if v.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(decays, lr=1e-3, betas=betas, eps=1e-8)
    losses, first = [], None
    for batch in batches:
        images = {k: v if k == "noise" else torch.tensor(v).double() for k, v in batch.items()}
        loss = plain.lut(student, teacher, images, case, torch)["total"]
        optimizer.zero_grad()
        loss.backward()
        if first is None:
            first = {k: np.zeros(v.shape) if v.grad is None else v.grad.numpy().copy() for k, v in trained.items()}
        optimizer.step()
        losses.append(loss.item())
        for k in teacher:
            teacher[k] = 0.9 * teacher[k] + 0.1 * student[k].detach()
    return first, losses, *({k: v.detach().numpy() for k, v in arrays.items()} for arrays in (student, teacher))


@pytest.mark.medium
def test_gradients_by_torch(case: Case) -> None:
    """1e-4 of each gradient's norm: guards what learns from what for settings nobody listed."""
    student, teacher = plain.random_weights(case, 6)
    batch = plain.random_batch(case, 7)
    expected, *_ = torch_run(case, student, teacher, [batch], (0.9, 0.95))
    _, found = gradients(load(case, student, teacher), {k: tf.constant(v) for k, v in batch.items()})
    for name, value in expected.items():
        tolerance = 1e-4 * max(float(np.linalg.norm(value)), 1e-3)
        assert np.linalg.norm(found[name] - value) <= tolerance, name


UPDATED = {"default"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name in UPDATED else slow(name) for name in CASES])
def test_updates_by_torch(name: str) -> None:
    """Weights after 3 AdamW steps 1e-4, losses 1e-4: guards `fit` end to end."""
    case = CASES[name]
    student, teacher = plain.random_weights(case, 6)
    batches = [plain.random_batch(case, seed) for seed in (7, 8, 9)]
    _, losses, final, final_teacher = torch_run(case, student, teacher, batches, (0.9, 0.95))
    model = load(case, student, teacher)
    model.compile(adamw(1e-3, 0.05, (0.9, 0.95), model=model), run_eagerly=True)  # tracing takes longer than 3 steps
    for batch, expected in zip(batches, losses, strict=True):
        logs = model.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history
        np.testing.assert_allclose(logs["loss"][0], expected, rtol=1e-4)
    for arrays, side in ((final, False), (final_teacher, True)):
        found = to_reference(model, teacher=side)
        for name, expected in arrays.items():
            if not name.endswith("attn.qkv.bias"):  # the key's third is rounding, made large by Adam
                np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-4, err_msg=name)


GOLDEN_CASE = Case(side=32, patch=8, width=48, depth=2, heads=3, decoder_width=32, decoder_heads=4, hidden=64, batch=6)


@pytest.mark.slow
def test_a_hundred_steps_stay_on_the_trajectory_of_float64(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    """Every loss of 100 AdamW steps from the golden weights within 5e-6, relative, a fresh batch each step.

    Guards what drifts: with a biased running variance, which the teacher lives on, 1e-3 after 200 steps.
    """
    case, arrays = GOLDEN_CASE, golden("lut_tiny")
    sides = (group(arrays, f"init/{side}/") for side in ("student", "teacher"))
    student, teacher = ({k: v for k, v in side.items() if not k.endswith("tracked")} for side in sides)
    batches = [plain.random_batch(case, 100 + seed) for seed in range(100)]
    _, expected, _, _ = torch_run(case, student, teacher, batches, (0.9, 0.95))
    model = load(case, student, teacher)
    model.compile(adamw(1e-3, 0.05, (0.9, 0.95), model=model))
    data = tf.data.Dataset.from_tensor_slices({k: np.stack([batch[k] for batch in batches]) for k in batches[0]})
    found = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: model.reset_metrics(),
        on_train_batch_end=lambda batch, logs: found.append(logs["loss"]),
    )
    model.fit(data, verbose=0, shuffle=False, callbacks=[record])
    np.testing.assert_allclose(found, expected, rtol=5e-6)
