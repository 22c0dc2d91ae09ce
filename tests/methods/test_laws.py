"""What must hold for every mask, image and batch (hypothesis)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import plain
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import Case

from lut_tf.interop import load_reference
from lut_tf.methods.context import l2_distance
from lut_tf.methods.lut import LUT
from lut_tf.methods.masking import disjoint_plans, plan_mask, random_plan
from lut_tf.models.layers import patchify, unpatchify

few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
many = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
CASE = Case(norm="layer", batch=3)


def model() -> LUT:
    student, teacher = plain.random_weights(CASE, 1)
    return load_reference(student, teacher=teacher, num_heads=2, decoder_num_heads=3)


MODEL = model()


def batch_of(seed: int) -> dict[str, Any]:
    return {name: tf.constant(value) for name, value in plain.random_batch(CASE, seed).items()}


@many
@given(patches=st.integers(2, 60), ratio=st.floats(0.05, 0.95), seed=seeds)
def test_a_plan_partitions_the_patches(patches: int, ratio: float, seed: int) -> None:
    visible = int(patches * (1 - ratio))
    noise = np.random.default_rng(seed).random((3, patches)).astype("float32")
    plan = random_plan(noise, visible)
    assert plan.visible.shape[1] == int(patches * (1 - ratio))
    everything = np.sort(np.concatenate([plan.visible, plan.masked], axis=1), axis=1)
    assert (everything == np.arange(patches)).all()
    mask = np.asarray(plan_mask(plan))
    assert (mask.sum(axis=1) == patches - visible).all()
    assert not np.take_along_axis(mask, np.asarray(plan.visible), axis=1).any()


@many
@given(patches=st.integers(2, 60), ratio=st.floats(0.5, 0.95), seed=seeds)
def test_two_views_are_disjoint_and_each_a_partition(patches: int, ratio: float, seed: int) -> None:
    visible = int(patches * (1 - ratio))
    noise = np.random.default_rng(seed).random((3, patches)).astype("float32")
    first, second = disjoint_plans(noise, visible)
    for plan in (first, second):
        everything = np.sort(np.concatenate([plan.visible, plan.masked], axis=1), axis=1)
        assert (everything == np.arange(patches)).all()
    for row in range(3):
        assert not set(np.asarray(first.visible)[row]) & set(np.asarray(second.visible)[row])


@many
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), patch=st.integers(1, 6), seed=seeds)
def test_unpatchify_undoes_patchify(rows: int, columns: int, patch: int, seed: int) -> None:
    """Exact, for rectangles too; and the patches are those cut by plain slicing."""
    images = np.random.default_rng(seed).random((2, rows * patch, columns * patch, 3)).astype("float32")
    patches = patchify(keras.ops.array(images), patch)
    np.testing.assert_array_equal(patches, plain.patches_of(images, patch, np))
    np.testing.assert_array_equal(unpatchify(patches, (rows, columns), patch), images)


@pytest.mark.medium
@few
@given(seed=seeds, scale=st.floats(-3, 3))
def test_reconstruction_ignores_predictions_of_visible_patches(seed: int, scale: float) -> None:
    """Exact: the loss is on masked patches, whatever is predicted for, or seen at, the visible ones."""
    batch = batch_of(seed)
    outputs = MODEL(batch, training=False)
    visible, masked = outputs["plan1"].visible.numpy(), outputs["plan1"].masked
    changed = plain.patches_of(batch["view1"].numpy(), CASE.patch, np).copy()
    np.put_along_axis(changed, visible[..., None], scale, axis=1)
    side = CASE.side // CASE.patch
    other = unpatchify(keras.ops.array(changed), (side, side), CASE.patch)
    targets = (MODEL.reconstruction_target(images, masked) for images in (batch["view1"], other))
    np.testing.assert_array_equal(*targets)
    loss = MODEL.reconstruction(batch, outputs)
    noise = np.zeros(outputs["prediction"].shape, "float32")
    noise[:, : visible.shape[1]] = scale
    moved = {**outputs, "prediction": outputs["prediction"] + noise}
    np.testing.assert_array_equal(loss, MODEL.reconstruction(batch, moved))
    noise[:, -1] = 1.0
    assert MODEL.reconstruction(batch, {**outputs, "prediction": outputs["prediction"] + noise}) != loss


@pytest.mark.medium
@few
@given(seed=seeds)
def test_a_masked_patch_is_not_seen(seed: int) -> None:
    """Exact: changing view 1 where it is masked changes neither the prediction nor the student."""
    batch = batch_of(seed)
    outputs = MODEL(batch, training=False)
    changed = plain.patches_of(batch["view1"].numpy(), CASE.patch, np).copy()
    np.put_along_axis(changed, outputs["plan1"].masked.numpy()[..., None], 7.0, axis=1)
    side = CASE.side // CASE.patch
    other = MODEL({**batch, "view1": unpatchify(keras.ops.array(changed), (side, side), CASE.patch)}, training=False)
    for name in ("prediction", "student1"):
        np.testing.assert_array_equal(outputs[name], other[name])


@pytest.mark.slow
@few
@given(seed=seeds, order=st.permutations(range(CASE.batch)))
def test_permuting_the_batch_permutes_the_outputs(seed: int, order: list[int]) -> None:
    """1e-5: images do not see each other (heads with LayerNorm), so the total is unchanged too."""
    batch = batch_of(seed)
    shuffled = {name: tf.gather(value, order) for name, value in batch.items()}
    outputs, others = MODEL(batch, training=False), MODEL(shuffled, training=False)
    for name in ("prediction", "student1", "student2", "teacher1", "teacher2"):
        np.testing.assert_allclose(others[name], tf.gather(outputs[name], order), atol=1e-5)
    totals = (float(MODEL.compute_losses(b, training=False)["total"]) for b in (batch, shuffled))
    np.testing.assert_allclose(*totals, rtol=1e-5)


@pytest.mark.medium
@few
@given(seed=seeds)
def test_the_teacher_gets_no_gradient(seed: int) -> None:
    """None at all, not just zeros, for every one of its variables and through its outputs."""
    batch = batch_of(seed)
    teacher = [variable.value for variable, _ in MODEL.teacher_pairs]
    with tf.GradientTape() as tape:
        tape.watch([batch["view2"], *teacher])
        losses = MODEL.compute_losses(batch, training=True)
    assert all(gradient is None for gradient in tape.gradient(losses["total"], teacher))
    assert not {id(variable) for variable, _ in MODEL.teacher_pairs} & {id(v) for v in MODEL.trainable_variables}


@many
@given(seed=seeds, scale=st.floats(0.01, 100))
def test_the_distance_knows_directions_only(seed: int, scale: float) -> None:
    """1e-5: 0 for equal directions, 4 for opposite ones, and no length matters."""
    x, y = np.random.default_rng(seed).normal(size=(2, 4, 8)).astype("float32")
    np.testing.assert_allclose(l2_distance(x, scale * x), 0.0, atol=1e-5)
    np.testing.assert_allclose(l2_distance(x, -x), 4.0, atol=1e-5)
    np.testing.assert_allclose(l2_distance(x, y), l2_distance(scale * x, y), atol=1e-5)
