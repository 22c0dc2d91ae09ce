"""`model.fit`: names and values of the metrics, replicas, accumulation, the teacher. Guards the custom train step.

The law over replicas and micro-batches (losses, gradients, weights of ten steps) is in test_hosts.py too. What needs a
step but not its graph runs eagerly: to trace a step takes as long as ten eager ones.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_batch, tiny_encoder, tiny_lut, tiny_mae

from lut_tf import LUT, MAE, CosineMomentum

BATCH, STEPS = 8, 6


@cache
def images(count: int = BATCH * STEPS) -> dict[str, np.ndarray]:
    return tiny_batch(tiny_lut(), count)


def dataset(count: int = BATCH * STEPS, model: LUT | None = None) -> tf.data.Dataset:
    """The images that every LUT learns from, and the noise that a given one needs."""
    given = images(count) if model is None else tiny_batch(model, count)
    return tf.data.Dataset.from_tensor_slices(given).batch(BATCH, drop_remainder=True)


def lut(**settings: Any) -> LUT:
    return tiny_lut(**{"momentum": CosineMomentum(0.9, STEPS), **settings})


class Steps(keras.callbacks.Callback):
    """Keeps what every step reports."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.logs.append({name: float(value) for name, value in (logs or {}).items()})


def strategy_of(replicas: int) -> tf.distribute.Strategy:
    devices = [f"CPU:{i}" for i in range(replicas)]
    return (
        tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
        if replicas > 1
        else tf.distribute.get_strategy()
    )


def moving(model: LUT) -> list[Any]:
    """Weights, teacher, statistics and optimizer, but not what counts or scales the steps."""
    slots = [v for v in model.optimizer.variables if v.name not in ("dynamic_scale", "step_counter")]
    return [*model.variables, *slots]


def numbers(model: LUT) -> list[np.ndarray]:
    return [v.numpy() for v in moving(model)]


@cache
def infonce(replicas: int) -> tuple[LUT, list[np.ndarray]]:
    """A LUT that needs all replicas' images and skips a bad step, compiled once for several tests, and its start."""
    keras.utils.set_random_seed(1)
    with strategy_of(replicas).scope():
        model = lut(context_distance="infonce")
        # SGD: AdamW would hide a scaled gradient
        model.compile(keras.optimizers.SGD(0.1, momentum=0.5), max_bad_steps=1)
    return model, numbers(model)


def fresh(replicas: int) -> LUT:
    """Return `infonce`, put back to where it began."""
    model, began = infonce(replicas)
    for variable, value in zip(moving(model), began, strict=True):
        variable.assign(value)
    return model


def losses(model: LUT, steps: int = STEPS) -> list[dict[str, float]]:
    """Train, and return what each step reports."""
    record = Steps()
    model.fit(dataset(BATCH * steps, model), verbose=0, shuffle=False, callbacks=[record])
    return record.logs


def other(replicas: int, accumulate: int = 1, eagerly: bool = False, **settings: Any) -> LUT:
    keras.utils.set_random_seed(1)
    with strategy_of(replicas).scope():
        model = lut(**settings)
        model.compile(keras.optimizers.SGD(0.1), accumulate=accumulate, run_eagerly=eagerly)
    return model


def assert_trained_alike(one: LUT, two: LUT) -> None:
    """Relative 1e-5 on every metric of every step; weights, statistics and teacher to 1e-5 absolute."""
    for a, b in zip(losses(one), losses(two), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    for v1, v2 in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(v1.numpy(), v2.numpy(), atol=1e-5, err_msg=v1.path)


@pytest.mark.medium
def test_two_replicas_train_as_one_device_does() -> None:
    """With InfoNCE, whose negatives are the other replica's images too; `l2` is in test_hosts.py."""
    assert_trained_alike(fresh(1), fresh(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"context_distance": "infonce", "accumulate": 2},
        {"symmetric": False, "context_distance": "smooth_l1"},
        {"context_steers": "both", "context_supervision": "both", "context_source": "class_token"},
        {"teacher_mask_ratio": 0.5, "context_steers": "masked", "symmetric": False},
    ],
    ids=["infonce accumulated", "one direction", "all forms", "masked teacher"],
)
def test_two_replicas_train_as_one_device_does_otherwise_too(settings: dict[str, Any]) -> None:
    assert_trained_alike(other(1, **settings), other(2, **settings))


@pytest.mark.medium
@pytest.mark.parametrize("settings", [{}, {"context_supervision": "tokens"}], ids=["pooled", "tokens"])
def test_accumulated_parts_equal_the_whole_batch_where_no_batch_norm_is(settings: dict[str, Any]) -> None:
    model1, model2 = (other(1, accumulate=n, norm="layer", eagerly=True, **settings) for n in (1, 4))
    for a, b in zip(losses(model1, steps=2), losses(model2, steps=2), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    np.testing.assert_allclose(model1.encoder.class_token.numpy(), model2.encoder.class_token.numpy(), atol=1e-6)


@pytest.mark.medium
def test_metrics_have_their_names_and_are_undivided() -> None:
    """The epoch's `loss` is the mean of compute_losses' total over the batches, whatever is done for the gradient."""
    model, data = lut(norm="layer"), dataset(2 * BATCH)
    expected = np.mean([float(model.compute_losses(batch, training=True)["total"]) for batch in data])
    model.compile(keras.optimizers.SGD(0.0), accumulate=2, run_eagerly=True)
    history = model.fit(data, verbose=0, shuffle=False).history
    assert set(history) == {"loss", "reconstruction", "context", "learning_rate", "teacher_momentum"}
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["loss"][0] == pytest.approx(history["reconstruction"][0] + 0.25 * history["context"][0], rel=1e-5)


def test_each_update_moves_the_teacher_by_the_momentum_of_its_step() -> None:
    """One update with momentum m: teacher = m · old + (1 − m) · student, running statistics included; step 0 first."""
    model = lut(momentum=CosineMomentum(0.25, STEPS))
    model.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    before = [teacher.numpy() for teacher, _ in model.teacher_pairs]
    history = model.fit(dataset(BATCH), verbose=0).history
    assert history["teacher_momentum"] == [pytest.approx(0.25)]
    moved = 0
    for old, (teacher, student) in zip(before, model.teacher_pairs, strict=True):
        np.testing.assert_allclose(teacher.numpy(), 0.25 * old + 0.75 * student.numpy(), atol=1e-6)
        moved += not np.allclose(old, teacher.numpy(), atol=1e-4)
    assert moved > 10


@pytest.mark.medium
def test_mae_has_no_teacher_and_reports_no_context() -> None:
    model = tiny_mae()
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    history = model.fit(dataset(2 * BATCH), epochs=3, verbose=0).history
    assert set(history) == {"loss", "reconstruction", "learning_rate"}
    assert history["loss"][-1] < history["loss"][0]


def test_evaluate_measures_and_learns_nothing() -> None:
    model = lut()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = [v.numpy() for v in model.encoder.variables + model.projector.variables]
    results = model.evaluate(dataset(2 * BATCH), verbose=0, return_dict=True)
    assert results["loss"] == pytest.approx(results["reconstruction"] + 0.25 * results["context"], rel=1e-5)
    for old, variable in zip(before, model.encoder.variables + model.projector.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_the_optimizers_own_accumulation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps=4 .* accumulate"):
        lut().compile(keras.optimizers.AdamW(1e-3, gradient_accumulation_steps=4))


@pytest.mark.medium
@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.99, -0.5])
def test_a_mask_that_hides_all_or_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask_ratio"):
        MAE(tiny_encoder(), mask_ratio=ratio)


def test_lut_below_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask_ratio=0.4 .*at least 0.5"):
        lut(mask_ratio=0.4)


def spoiled(step: int, value: float, count: int = BATCH * STEPS, share: slice = slice(0, 1)) -> tf.data.Dataset:
    """The batches, with `value` in the views of some images of one step."""
    data = {name: array.copy() for name, array in images(count).items()}
    for name in ("view1", "view2"):
        data[name][BATCH * step : BATCH * (step + 1)][share] = value
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH, drop_remainder=True)


@pytest.mark.medium
@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_bad_step_that_is_skipped_changes_nothing(replicas: int) -> None:
    """Bit for bit: weights, teacher, BatchNorm, optimizer. A NaN of the last replica's images is seen by all.

    The metrics are those of the good steps, and training goes on.
    """
    model = fresh(replicas)
    steps, known = int(model.optimizer.iterations.numpy()), model.agreed.bad_steps
    good, bad = spoiled(1, 0.0, share=slice(0, 0)), spoiled(0, np.nan, share=slice(BATCH - 1, BATCH))
    first = model.fit(good.take(1), verbose=0, shuffle=False).history["loss"][0]
    before, teachers = numbers(model), len(model.teacher_pairs)
    history = model.fit(good.take(1).concatenate(bad.take(1)), verbose=0, shuffle=False).history
    assert model.agreed.bad_steps == known + 1
    assert not np.isfinite(model.agreed.losses["loss"])
    assert np.isfinite(history["loss"][0])
    after_one = numbers(model)
    model.fit(bad.take(1), verbose=0, shuffle=False)
    assert model.agreed.bad_steps == known + 2
    for a, b in zip(after_one, numbers(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations.numpy()) == steps + 2
    assert teachers and any((a != b).any() for a, b in zip(before, after_one, strict=True))
    assert np.isfinite(first)


@pytest.mark.medium
def test_a_run_with_a_skipped_step_equals_the_run_without_it() -> None:
    """One compiled model takes both, put back in between to where it began."""
    runs = []
    for data in (spoiled(2, np.inf), dataset().take(2).concatenate(dataset().skip(3))):
        model = fresh(1)
        began = numbers(model)
        history = model.fit(data, verbose=0, shuffle=False).history
        runs.append((numbers(model), history["loss"]))
    assert any((a != b).any() for a, b in zip(began, runs[0][0], strict=True))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs[0][1] == runs[1][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replicas", "clip_norm"),
    [(2, 0.0), *(pytest.param(*other, marks=pytest.mark.slow) for other in ((1, 0.0), (1, 1.0), (2, 1.0)))],
)
def test_a_float16_gradient_that_overflows_in_one_replica_is_skipped_by_all(replicas: int, clip_norm: float) -> None:
    """One replica's images are loud: its scaled gradient overflows, the other's does not. No replica moves.

    The scale is halved, weights and teacher wait, and the steps that follow are taken by replicas that still agree.
    """
    strategy = strategy_of(replicas)
    with strategy.scope():
        model = lut(momentum=0.9, norm_pix_loss=False, dtype="mixed_float16")
        inner = keras.optimizers.SGD(1e-3)
        scaling = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**18, dynamic_growth_steps=1000)
        model.compile(scaling, clip_norm=clip_norm)
    # The reconstruction's gradient is proportional to the target, which only the last replica's images make large.
    loud = spoiled(0, 1200.0, share=slice(BATCH // 2, BATCH)).take(1)
    model.fit(dataset().take(1), verbose=0, shuffle=False)
    assert int(model.optimizer.iterations.numpy()) == 1  # quiet images do not overflow
    before, scale = numbers(model), float(model.optimizer.dynamic_scale.numpy())
    model.fit(loud, verbose=0, shuffle=False)
    moving = [id(v) for v in model.moved_by_forward()]
    assert int(model.optimizer.iterations.numpy()) == 1
    assert model.agreed.bad_steps == 0
    assert float(model.optimizer.dynamic_scale.numpy()) == scale / 2
    for variable, a, b in zip(model.variables, before, numbers(model), strict=False):
        if id(variable) not in moving:
            np.testing.assert_array_equal(a, b, err_msg=variable.path)
    model.fit(dataset(), verbose=0, shuffle=False)
    assert int(model.optimizer.iterations.numpy()) == 1 + STEPS
    for variable in model.variables:
        assert np.isfinite(variable.numpy()).all(), variable.path
        copies = strategy.experimental_local_results(variable.value)
        assert len(copies) == replicas
        for copy in copies[1:]:
            np.testing.assert_array_equal(copies[0].numpy(), copy.numpy(), err_msg=variable.path)


@pytest.mark.slow
def test_a_scale_that_is_far_too_large_comes_down() -> None:
    """From 2^40 float16's scale is halved step by step, the weights waiting, until the gradients fit."""
    model = lut(momentum=0.9, dtype="mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**40))
    model.fit(dataset().repeat(), steps_per_epoch=40, verbose=0, shuffle=False)
    taken = int(model.optimizer.iterations.numpy())
    assert 5 <= taken <= 35
    assert float(model.optimizer.dynamic_scale.numpy()) == 2.0 ** (40 - (40 - taken))
    assert model.agreed.bad_steps == 0
