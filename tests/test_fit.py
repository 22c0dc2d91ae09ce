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
