"""`model.fit`: names and values of the metrics, replicas, accumulation, the teacher. Guards the custom train step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lut_tf import LUT, MAE, CosineMomentum, MLPHead, PixelDecoder, ViTEncoder

BATCH, STEPS = 8, 6


def images(count: int = BATCH * STEPS) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    views = {name: random.normal(size=(count, 16, 16, 3)).astype("float32") for name in ("view1", "view2")}
    return {**views, "noise": random.random((count, 16), dtype="float32")}


def dataset(count: int = BATCH * STEPS) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(images(count)).batch(BATCH, drop_remainder=True)


def lut(**settings: Any) -> LUT:
    norm = settings.pop("norm", "batch")
    encoder = ViTEncoder(16, 4, 32, 2, 4)
    decoder = PixelDecoder(encoder.grid, 4, 32, 24, 1, 4)
    heads = {name: MLPHead(32, 48, norm=norm, name=name) for name in ("projector", "predictor")}
    return LUT(encoder, decoder, **{"momentum": CosineMomentum(0.9, STEPS), **heads, **settings})


class Steps(keras.callbacks.Callback):
    """Keeps what every step reports."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.logs.append({name: float(value) for name, value in (logs or {}).items()})


def losses(replicas: int, accumulate: int = 1, **settings: Any) -> tuple[list[dict[str, float]], LUT]:
    strategy = (
        tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)], tf.distribute.ReductionToOneDevice())
        if replicas > 1
        else tf.distribute.get_strategy()
    )
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = lut(**settings)
        model.compile(keras.optimizers.SGD(0.1), accumulate=accumulate)  # SGD: AdamW would hide a scaled gradient
    steps = Steps()
    model.fit(dataset(), verbose=0, shuffle=False, callbacks=[steps])
    return steps.logs, model


@pytest.mark.medium
@pytest.mark.parametrize(
    "settings",
    [{}, {"context_distance": "infonce"}, {"accumulate": 2}, {"symmetric": False, "context_distance": "smooth_l1"}],
    ids=["l2", "infonce", "accumulated", "one direction"],
)
def test_two_replicas_train_as_one_device_does(settings: dict[str, Any]) -> None:
    """Relative 1e-5 on every metric of every step; weights, statistics and teacher to 1e-5 absolute."""
    one, model1 = losses(1, **settings)
    two, model2 = losses(2, **settings)
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    for v1, v2 in zip(model1.variables, model2.variables, strict=True):
        np.testing.assert_allclose(v1.numpy(), v2.numpy(), atol=1e-5, err_msg=v1.path)


@pytest.mark.medium
def test_accumulated_parts_equal_the_whole_batch_where_no_batch_norm_is() -> None:
    whole, model1 = losses(1, norm="layer")
    parts, model2 = losses(1, accumulate=4, norm="layer")
    for a, b in zip(whole, parts, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    np.testing.assert_allclose(model1.encoder.class_token.numpy(), model2.encoder.class_token.numpy(), atol=1e-6)


def test_metrics_have_their_names_and_are_undivided() -> None:
    """The epoch's `loss` is the mean of compute_losses' total over the batches, whatever is done for the gradient."""
    model = lut(norm="layer")
    expected = np.mean([float(model.compute_losses(batch, training=True)["total"]) for batch in dataset()])
    model.compile(keras.optimizers.SGD(0.0), accumulate=2)
    history = model.fit(dataset(), verbose=0, shuffle=False).history
    assert set(history) == {"loss", "reconstruction", "context", "learning_rate", "teacher_momentum"}
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert history["loss"][0] == pytest.approx(history["reconstruction"][0] + 0.25 * history["context"][0], rel=1e-5)


def test_each_update_moves_the_teacher_by_the_momentum_of_its_step() -> None:
    """One update with momentum m: teacher = m · old + (1 − m) · student, running statistics included; step 0 first."""
    model = lut(momentum=CosineMomentum(0.25, STEPS))
    model.compile(keras.optimizers.SGD(0.5))
    before = [teacher.numpy() for teacher, _ in model.teacher_pairs]
    history = model.fit(dataset(BATCH), verbose=0).history
    assert history["teacher_momentum"] == [pytest.approx(0.25)]
    moved = 0
    for old, (teacher, student) in zip(before, model.teacher_pairs, strict=True):
        np.testing.assert_allclose(teacher.numpy(), 0.25 * old + 0.75 * student.numpy(), atol=1e-6)
        moved += not np.allclose(old, teacher.numpy(), atol=1e-4)
    assert moved > 10


def test_mae_has_no_teacher_and_reports_no_context() -> None:
    encoder = ViTEncoder(16, 4, 32, 1, 4)
    model = MAE(encoder, PixelDecoder(encoder.grid, 4, 32, 24, 1, 4))
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(dataset(), epochs=3, verbose=0).history
    assert set(history) == {"loss", "reconstruction", "learning_rate"}
    assert history["loss"][-1] < history["loss"][0]


def test_evaluate_measures_and_learns_nothing() -> None:
    model = lut()
    model.compile(keras.optimizers.SGD(0.1))
    before = [v.numpy() for v in model.encoder.variables + model.projector.variables]
    results = model.evaluate(dataset(), verbose=0, return_dict=True)
    assert results["loss"] == pytest.approx(results["reconstruction"] + 0.25 * results["context"], rel=1e-5)
    for old, variable in zip(before, model.encoder.variables + model.projector.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_the_optimizers_own_accumulation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps=4 .* accumulate"):
        lut().compile(keras.optimizers.AdamW(1e-3, gradient_accumulation_steps=4))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.99, -0.5])
def test_a_mask_that_hides_all_or_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask_ratio"):
        MAE(ViTEncoder(16, 4, 32, 1, 4), mask_ratio=ratio)


def test_lut_below_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask_ratio=0.4 .*at least 0.5"):
        lut(mask_ratio=0.4)


def test_the_whole_method_survives_a_keras_file(tmp_path: Any) -> None:
    """A saved and loaded LUT computes the same losses: configuration, weights, teacher, statistics."""
    model = lut(context_distance="smooth_l1", symmetric=False)
    batch = {name: tf.constant(x[:BATCH]) for name, x in images().items()}
    model.compute_losses(batch, training=True)  # moves the running statistics
    model.save(tmp_path / "lut.keras")
    again = keras.saving.load_model(tmp_path / "lut.keras")
    expected, found = (m.compute_losses(batch, training=False) for m in (model, again))
    for name, value in expected.items():
        assert float(value) == pytest.approx(float(found[name]), rel=1e-6), name
    assert float(again.momentum_at(3)) == pytest.approx(float(model.momentum_at(3)))


def numbers(model: LUT) -> list[np.ndarray]:
    """Weights, teacher, statistics and optimizer, but not what counts or scales the steps."""
    slots = [v for v in model.optimizer.variables if v.name not in ("dynamic_scale", "step_counter")]
    return [v.numpy() for v in [*model.variables, *slots]]


def spoiled(step: int, value: float, count: int = BATCH * STEPS, share: slice = slice(0, 1)) -> tf.data.Dataset:
    """The batches, with `value` in the views of some images of one step."""
    data = images(count)
    for name in ("view1", "view2"):
        data[name][BATCH * step : BATCH * (step + 1)][share] = value
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH, drop_remainder=True)


def strategy_of(replicas: int) -> tf.distribute.Strategy:
    devices = [f"CPU:{i}" for i in range(replicas)]
    return (
        tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
        if replicas > 1
        else tf.distribute.get_strategy()
    )


@pytest.mark.medium
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_bad_step_that_is_skipped_changes_nothing(replicas: int) -> None:
    """Bit for bit: weights, teacher, BatchNorm, optimizer. A NaN of the last replica's images is seen by all.

    The metrics are those of the good steps, and training goes on.
    """
    with strategy_of(replicas).scope():
        model = lut()
        model.compile(keras.optimizers.Adam(1e-3), max_bad_steps=1)
    good, bad = spoiled(1, 0.0, share=slice(0, 0)), spoiled(0, np.nan, share=slice(BATCH - 1, BATCH))
    first = model.fit(good.take(1), verbose=0, shuffle=False).history["loss"][0]
    before, teachers = numbers(model), len(model.teacher_pairs)
    history = model.fit(good.take(1).concatenate(bad.take(1)), verbose=0, shuffle=False).history
    assert model.agreed.bad_steps == 1
    assert not np.isfinite(model.agreed.losses["loss"])
    assert np.isfinite(history["loss"][0])
    after_one = numbers(model)
    model.fit(bad.take(1), verbose=0, shuffle=False)
    assert model.agreed.bad_steps == 2
    for a, b in zip(after_one, numbers(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations.numpy()) == 2
    assert teachers and any((a != b).any() for a, b in zip(before, after_one, strict=True))
    assert np.isfinite(first)


@pytest.mark.medium
def test_a_run_with_a_skipped_step_equals_the_run_without_it() -> None:
    runs = []
    for data in (spoiled(2, np.inf), dataset().take(2).concatenate(dataset().skip(3))):
        keras.utils.set_random_seed(1)
        model = lut()
        model.compile(keras.optimizers.SGD(0.1), max_bad_steps=1)
        history = model.fit(data, verbose=0, shuffle=False).history
        runs.append((numbers(model), history["loss"]))
    for a, b in zip(runs[0][0], runs[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs[0][1] == runs[1][1]


@pytest.mark.medium
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_float16_gradient_that_overflows_in_one_replica_is_skipped_by_all(replicas: int, clip_norm: float) -> None:
    """One replica's images are loud: its scaled gradient overflows, the other's does not. No replica moves.

    The scale is halved, weights and teacher wait, and the steps that follow are taken by replicas that still agree.
    """
    strategy = strategy_of(replicas)
    policy = "mixed_float16"
    with strategy.scope():
        encoder = ViTEncoder(16, 4, 32, 1, 4, dtype=policy)
        decoder = PixelDecoder(encoder.grid, 4, 32, 24, 1, 4, dtype=policy)
        heads = {name: MLPHead(32, 48, name=name, dtype=policy) for name in ("projector", "predictor")}
        model = LUT(encoder, decoder, momentum=0.9, norm_pix_loss=False, dtype=policy, **heads)
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


def test_a_scale_that_is_far_too_large_comes_down() -> None:
    """From 2^40 float16's scale is halved step by step, the weights waiting, until the gradients fit."""
    policy = "mixed_float16"
    encoder = ViTEncoder(16, 4, 32, 1, 4, dtype=policy)
    model = LUT(
        encoder,
        PixelDecoder(encoder.grid, 4, 32, 24, 1, 4, dtype=policy),
        momentum=0.9,
        dtype=policy,
        **{name: MLPHead(32, 48, name=name, dtype=policy) for name in ("projector", "predictor")},
    )
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**40))
    model.fit(dataset().repeat(), steps_per_epoch=40, verbose=0, shuffle=False)
    taken = int(model.optimizer.iterations.numpy())
    assert 5 <= taken <= 35
    assert float(model.optimizer.dynamic_scale.numpy()) == 2.0 ** (40 - (40 - taken))
    assert model.agreed.bad_steps == 0
