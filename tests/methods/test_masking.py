"""Attention-driven masking and throwing: the reference program's numbers, exact probabilities, and who sees what."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import golden_config, gradients, group
from networks import tiny_batch, tiny_lut, tiny_mae, tiny_simmim
from scipy import stats

from lut_tf import MAE
from lut_tf.config import MaskingConfig, MethodConfig, Places
from lut_tf.interop import load_reference
from lut_tf.methods.masking import attention_weights, guided_plan, plan_flags, second_plan, weighted_order
from lut_tf.models.layers import unpatchify

Golden = Callable[[str], dict[str, np.ndarray]]
Arrays = dict[str, np.ndarray]
BY_WEIGHTS = MaskingConfig("attention", throw_ratio=0.25)
BY_TEACHER = MaskingConfig("attention", throw_ratio=0.25, guide="teacher")


@pytest.fixture(scope="module")
def arrays(golden: Golden) -> Arrays:
    return golden("amt_mae_tiny")


@pytest.fixture(scope="module")
def mae(arrays: Arrays) -> MAE:
    config = golden_config(arrays)
    heads = {"num_heads": config["num_heads"], "decoder_num_heads": config["decoder_num_heads"]}
    ratios = {name: config[name] for name in ("mask_ratio", "throw_ratio", "norm_pix_loss")}
    return load_reference(group(arrays, "init/"), method="mae", masking="attention", **heads, **ratios)


def golden_batch(arrays: Arrays) -> dict[str, tf.Tensor]:
    """Noise that, with the attention as weights, makes the keys fall along the file's shuffle."""
    weights, shuffle = arrays["attention_weights"], arrays["shuffle"]
    keys = np.empty(shuffle.shape)
    np.put_along_axis(keys, shuffle, np.linspace(2.0, -3.0, shuffle.shape[1])[None], axis=1)
    noise = np.exp(-np.exp(-(keys - np.log(weights))))
    names = {"view1": arrays["image"], "weights": weights, "noise": noise.astype("float32")}
    return {name: tf.constant(value) for name, value in names.items()}


def test_permutation_flags_and_predictions(arrays: Arrays, mae: MAE) -> None:
    """The plan exactly; predictions of the 38 patches that are left 1e-5 of the largest."""
    batch = golden_batch(arrays)
    np.testing.assert_array_equal(weighted_order(batch["noise"], batch["weights"]), arrays["shuffle"])
    outputs = mae(batch)
    plan = outputs["plan1"]
    assert (plan.visible.shape[1], plan.masked.shape[1], plan.thrown.shape[1]) == (10, 28, 26)
    np.testing.assert_array_equal(plan_flags(plan), arrays["flags"])
    order = np.argsort(np.concatenate([plan.visible, plan.masked], axis=1), axis=1)
    found = np.take_along_axis(np.asarray(outputs["prediction"]), order[..., None], axis=1)
    np.testing.assert_allclose(found, arrays["pred"], rtol=0, atol=1e-5 * np.abs(arrays["pred"]).max())


def test_loss_and_gradients(arrays: Arrays, mae: MAE) -> None:
    """1e-5 relative, and every gradient within 1e-4 of its norm, the key bias' (which is rounding) left out."""
    losses, found = gradients(mae, golden_batch(arrays))
    np.testing.assert_allclose(losses["total"], arrays["loss"], rtol=1e-5)
    for name, value in group(arrays, "grad/").items():
        ours = found[name]
        if name.endswith("qkv.bias"):
            ours, value = (np.delete(x, slice(len(x) // 3, 2 * len(x) // 3)) for x in (ours, value))
        assert np.linalg.norm(ours - value) <= 1e-4 * np.linalg.norm(value), name


def test_weights_of_the_whole_image(arrays: Arrays, mae: MAE) -> None:
    """1e-5; and the tokens beside them are those of `encode`."""
    tokens, looked = mae.encoder.encode_and_look(tf.constant(arrays["image"]))
    np.testing.assert_allclose(attention_weights(looked), arrays["attention_weights"], atol=1e-5)
    np.testing.assert_allclose(tokens, mae.encoder(arrays["image"]), atol=1e-6)


def test_an_even_attention_makes_no_undefined_weights() -> None:
    assert not np.asarray(attention_weights(np.full((2, 3, 5), 0.2, "float32"))).any()


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 0.25, 0.2, 0.05), (1000.0, 1.0, 3.0, 100.0)])
def test_draws_are_in_proportion_to_what_is_left(weights: tuple[float, ...]) -> None:
    """Chi-square of the first three of four places against w/W · w'/(W − w) · w''/(W − w − w'), 50,000 draws."""
    draws, w = 50_000, np.array(weights)
    noise = np.random.default_rng(3).random((draws, 4), dtype="float32")
    order = np.asarray(weighted_order(noise, np.tile(w.astype("float32"), (draws, 1))))
    expected, observed = [], []
    for first, second, third in permutations(range(4), 3):
        left = w.sum() - np.array([0, w[first], w[first] + w[second]])
        expected.append(draws * w[first] / left[0] * w[second] / left[1] * w[third] / left[2])
        observed.append((order[:, :3] == (first, second, third)).all(axis=1).sum())
    rare = np.array(expected) < 5  # for which chi-square does not hold: one class of all
    pooled = [np.append(np.array(counts)[~rare], np.array(counts)[rare].sum()) for counts in (observed, expected)]
    if not rare.any():
        pooled = [counts[:-1] for counts in pooled]
    assert stats.chisquare(*pooled).pvalue > 1e-3


def test_extreme_numbers_make_an_order() -> None:
    """Noise of 0 and just below 1; places without weight come last, each order of them as often as another."""
    noise = np.array([[0.0, 1 - 2**-24, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]], "float32")
    order = np.asarray(weighted_order(noise, np.array([[1.0, 0.0, 2.0, 0.0]] * 2, "float32")))
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    assert set(order[0, :2]) == {0, 2}
    noise = np.random.default_rng(0).random((4000, 3), dtype="float32")
    order = np.asarray(weighted_order(noise, np.array([[1.0, 0.0, 0.0]] * 4000, "float32")))
    assert (order[:, 0] == 0).all() and abs((order[:, 1] == 1).mean() - 0.5) < 0.04


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"mask_ratio": 0.45, "throw_ratio": 0.40, "name": "mae"}, (30, 88, 78)),
        ({"mask_ratio": 0.75, "throw_ratio": 0.0, "name": "mae"}, (49, 147, 0)),
        ({"mask_ratio": 0.44, "throw_ratio": 0.26, "name": "simmim"}, (14, 22, 13)),
    ],
)
def test_the_papers_counts(settings: dict[str, Any], expected: tuple[int, int, int]) -> None:
    masking = MaskingConfig("attention", settings.pop("throw_ratio"))
    places = MethodConfig(masking=masking, **settings).places(224, 16)
    assert (places.visible, places.masked, places.thrown) == expected


GUIDED = {"MAE": (tiny_mae, 0.4), "SimMIM": (tiny_simmim, 0.5), "LUT": (tiny_lut, 0.4)}


@pytest.mark.medium
@pytest.mark.parametrize("name", GUIDED)
def test_thrown_patches_are_seen_by_nothing(name: str) -> None:
    """Exact, for each method: what lies there changes neither predictions nor reconstruction."""
    make, ratio = GUIDED[name]
    model = make(mask_ratio=ratio, masking=BY_WEIGHTS)
    batch = tiny_batch(model)
    outputs = model(batch)
    thrown, masked = (np.asarray(plan_flags(outputs["plan1"])) == flag for flag in (-1, 1))
    for hidden, same in ((thrown, True), (masked, False)):
        painted = np.where(hidden[..., None], 7.0, 0.0).repeat(48, axis=2).astype("float32")
        mask = np.asarray(unpatchify(keras.ops.array(painted), (4, 4), 4))
        other = {**batch, "view1": np.where(mask > 0, mask, batch["view1"]).astype("float32")}
        np.testing.assert_array_equal(outputs["prediction"], model(other)["prediction"])
        losses = [float(model.compute_losses(one, training=False)["reconstruction"]) for one in (batch, other)]
        assert (losses[0] == losses[1]) == same


def test_units_have_the_mean_weight_of_their_patches() -> None:
    """All the weight lies in one patch: its unit is masked, whole."""
    places = Places(2, 2, 2, visible=3, masked=1)
    weights = np.zeros((50, 16), "float32")
    weights[:, 6] = 1.0
    plan = guided_plan(np.random.default_rng(0).random((50, 4)).astype("float32"), weights, places)
    assert (np.sort(plan.masked, axis=1) == [2, 3, 6, 7]).all()


def test_a_second_view_sees_other_patches_at_random() -> None:
    """Disjoint, all patches in one of three parts; each that view 1 does not see is as likely as another."""
    places = Places(1, 8, 1, visible=2, masked=4, thrown=2)
    random = np.random.default_rng(5)
    weights = np.tile(np.array([9, 5, 3, 2, 1, 1, 1, 1], "float32"), (8000, 1))
    first = guided_plan(random.random((8000, 8), dtype="float32"), weights, places)
    second = second_plan(random.random((8000, 8), dtype="float32"), first, places)
    assert (np.sort(second.ids, axis=1) == np.arange(8)).all()
    assert [part.shape[1] for part in second] == [2, 4, 2]
    seen, other = (np.asarray(plan_flags(plan)) == 0 for plan in (first, second))
    assert not (seen & other).any()
    assert np.abs(other.sum(axis=0) / (~seen).sum(axis=0) - 1 / 3).max() < 0.03


@pytest.mark.medium
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_teacher_guides_the_student(symmetric: bool) -> None:
    """View 1's plan is that of the teacher's attention to the whole view 1, whichever views the context loss asks."""
    model = tiny_lut(mask_ratio=0.4, masking=BY_TEACHER, symmetric=symmetric)
    for number, variable in enumerate(model.teacher_encoder.trainable_variables or model.teacher_encoder.variables):
        variable.assign(variable + 0.3 * np.random.default_rng(number).normal(size=variable.shape))
    batch = tiny_batch(model)
    outputs = model(batch, training=True)
    _, looked = model.teacher_encoder.encode_and_look(tf.constant(batch["view1"]))
    weights = attention_weights(looked)
    np.testing.assert_allclose(outputs["weights"], weights, atol=1e-6)
    expected = guided_plan(batch["noise"][:, :16], weights, model.places)
    np.testing.assert_array_equal(plan_flags(outputs["plan1"]), plan_flags(expected))
    assert not set(np.asarray(outputs["plan1"].visible)[0]) & set(np.asarray(outputs["plan2"].visible)[0])
    np.testing.assert_allclose(
        outputs["teacher2"],
        model.teacher_projector(model.teacher_encoder.features(tf.constant(batch["view2"])), training=False),
        atol=1e-5,
    )
    pictures = model.reconstruct(batch)
    np.testing.assert_array_equal(pictures["mask"], plan_flags(expected))
    np.testing.assert_allclose(pictures["weights"], weights, atol=1e-6)


def test_of_the_teachers_attention_only_a_row_is_kept() -> None:
    """No (B, heads, T, T) leaves the function that the teacher is computed in."""
    model = tiny_lut(mask_ratio=0.4, masking=BY_TEACHER)
    kept = model._teacher_look(tiny_batch(model))
    assert {name: tuple(value.shape) for name, value in kept.items()} == {"pooled": (8, 16), "weights": (4, 16)}


@pytest.mark.slow
def test_a_guided_step_under_xla_is_the_step() -> None:
    """1e-5: the same losses with and without XLA."""
    logs = []
    for xla in (False, True):
        keras.utils.set_random_seed(0)
        model = tiny_lut(mask_ratio=0.4, masking=BY_TEACHER)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=xla)
        logs.append(model.train_on_batch(tiny_batch(model), return_dict=True))
    for name, value in logs[0].items():
        np.testing.assert_allclose(value, logs[1][name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("weights", "words"), [(None, "weights of 0 numbers .* asks for 16"), (3, "weights of 3")])
def test_a_batch_without_its_weights_is_refused(weights: int | None, words: str) -> None:
    model = tiny_mae(mask_ratio=0.4, masking=BY_WEIGHTS)
    batch = tiny_batch(model)
    batch.pop("weights")
    with pytest.raises(ValueError, match=words):
        model.compute_losses(batch if weights is None else {**batch, "weights": np.ones((4, weights), "float32")})
