"""The paper's ablations of LUT's context loss: each against the sentence that defines it, and what they leave alone."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_batch, tiny_encoder, tiny_lut

from lut_tf import LUT
from lut_tf.config import ViewsConfig
from lut_tf.data import digits, pretraining_dataset
from lut_tf.interop import load_reference, to_reference
from lut_tf.methods.context import distance_of_places, l2_distance, smooth_l1_distance
from lut_tf.methods.locations import locations_of, tokens_at
from lut_tf.methods.masking import disjoint_plans, random_plan
from lut_tf.models.layers import mean_tokens
from lut_tf.tasks.initial import Initial

FORMS: dict[str, dict[str, Any]] = {
    "class token": {"context_source": "class_token"},
    "masked": {"context_steers": "masked"},
    "both steered": {"context_steers": "both", "symmetric": False},
    "tokens": {"context_supervision": "tokens"},
    "masked tokens": {"context_supervision": "tokens", "context_steers": "masked", "context_distance": "smooth_l1"},
    "both supervisions": {"context_supervision": "both", "context_source": "class_token"},
    "all": {"context_supervision": "both", "context_steers": "both"},
    "masked teacher": {"teacher_mask_ratio": 0.5},
    "masked teacher, one direction": {"teacher_mask_ratio": 0.25, "symmetric": False, "context_source": "class_token"},
}


# All together, and the two that it leaves out; the rest are its parts.
NORMALLY = [
    name if name in ("all", "class token", "masked teacher") else pytest.param(name, marks=pytest.mark.slow)
    for name in FORMS
]


def headed(model: LUT, x: Any) -> Any:
    return model.predictor(model.projector(x, training=False), training=False)


def first_term(model: LUT, batch: dict[str, Any]) -> Any:
    """The context loss of one direction as the paper has it, d(q1, k2), out of the model's parts."""
    plan = random_plan(batch["noise"], model.visible)
    query = mean_tokens(model.encoder.encode(batch["view1"], plan.visible)[:, 1:])
    key = model.teacher_projector(model.teacher_encoder.features(batch["view2"]), training=False)
    return l2_distance(headed(model, query), key)


def test_the_default_is_the_papers_bit_for_bit() -> None:
    model = tiny_lut(symmetric=False)
    batch = tiny_batch(model)
    explicit = tiny_lut(
        model.encoder, projector=model.projector, predictor=model.predictor, decoder=model.decoder, symmetric=False,
        context_source="patches", context_steers="visible", context_supervision="pooled", teacher_mask_ratio=0.0,
    )  # fmt: skip
    for one in (model, explicit):
        losses = one.compute_losses(batch, training=False)
        assert float(losses["context"]) == float(first_term(one, batch))
        assert float(losses["total"]) == float(losses["reconstruction"] + 0.25 * losses["context"])
        assert len(one.variables) == len(model.variables) and one.noise_length == one.encoder.patches


@cache
def model_of(form: str) -> LUT:
    return tiny_lut(mask_ratio=0.5, reconstruction_weight=0.0, **FORMS[form])


def expected_term(model: LUT, batch: dict[str, Any], student: int, teacher: int, steered: str, supervision: str) -> Any:
    """One distance of the context loss, out of the model's parts, image by image where tokens are compared."""
    settings, grid, patches = model.settings, model.encoder.grid, model.encoder.patches
    plan = disjoint_plans(batch["noise"][:, :patches], model.visible)[student - 1]
    distance = {"l2": l2_distance, "smooth_l1": smooth_l1_distance}[settings.context_distance]

    def pooled(tokens: Any) -> Any:
        return tokens[:, 0] if settings.context_source == "class_token" else mean_tokens(tokens[:, 1:])

    def target(tokens: Any) -> Any:
        return model.teacher_projector(tokens, training=False)

    seen = None
    if settings.teacher_mask_ratio:  # the numbers after the student's, view by view
        first = patches * (teacher if settings.symmetric else 1)
        order = tf.argsort(batch["noise"][:, first : first + patches], axis=1)
        seen = order[:, : int(patches * (1 - settings.teacher_mask_ratio))]
    whole = model.teacher_encoder.encode(batch[f"view{teacher}"], seen)
    tokens = model.encoder.encode(batch[f"view{student}"], plan.visible)
    ids, each, mean = plan.visible, tokens[:, 1:], pooled(tokens)
    if steered == "masked":
        decoded = model.decoder.decode(tokens, plan.visible, plan.masked)[:, model.visible :]
        ids, each, mean = plan.masked, model.masked_map(decoded), mean_tokens(model.masked_map(decoded))
    if supervision == "pooled":
        return distance(headed(model, mean), target(pooled(whole)))
    locations = locations_of(ids, batch[f"geometry{student}"], batch[f"geometry{teacher}"], grid)
    found, inside = tokens_at(whole[:, 1:], locations, grid), np.array(locations.inside)
    assert inside.any() and not inside.all()
    rows = zip(each, found, inside, strict=True)
    return np.mean([distance(headed(model, q[i]), target(k[i])) if i.any() else 0.0 for q, k, i in rows])


@pytest.mark.medium
@pytest.mark.parametrize("form", NORMALLY)
def test_a_form_is_what_its_sentence_says(form: str) -> None:
    """1e-5: the mean over directions, steered tokens and supervisions of the distances, computed one by one."""
    model = model_of(form)
    batch = {name: tf.constant(value) for name, value in tiny_batch(model).items()}
    steered, supervisions = (
        pair if value == "both" else (value,)
        for value, pair in (
            (model.settings.context_steers, ("visible", "masked")),
            (model.settings.context_supervision, ("pooled", "tokens")),
        )
    )
    pairs = ((1, 2), (2, 1)) if model.settings.symmetric else ((1, 2),)
    terms = [expected_term(model, batch, *pair, *kind) for pair in pairs for kind in product(steered, supervisions)]
    losses = model.compute_losses(batch, training=False)
    assert set(losses) == {"total", "reconstruction", "context"}
    assert float(losses["context"]) == pytest.approx(float(np.mean(terms)), rel=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize("form", NORMALLY)
def test_gradients_of_a_form_are_finite_and_reach_what_it_steers(form: str) -> None:
    """The context loss alone teaches encoder and heads; decoder and map where masked tokens are steered, only there."""
    model = model_of(form)
    with tf.GradientTape() as tape:
        total = model.compute_losses(tiny_batch(model), training=True)["total"]
    variables = model.trainable_variables
    found = tape.gradient(total, [v.value for v in variables], unconnected_gradients="zero")
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in found)
    learned = {id(v) for v, g in zip(variables, found, strict=True) if np.any(tf.convert_to_tensor(g))}
    parts = [model.encoder, model.projector, model.predictor]
    if model.settings.context_steers == "visible":
        assert not learned & {id(v) for v in model.decoder.trainable_variables} and not hasattr(model, "masked_map")
    else:
        parts += [model.decoder.block_layers[0], model.masked_map]
    for part in parts:
        assert id(part.trainable_variables[0]) in learned, part.name


def test_tokens_of_a_view_have_no_distance_from_themselves() -> None:
    """1e-6, with nothing masked: two equal views, and a teacher that is the student."""
    encoder = tiny_encoder()
    batch = tiny_batch(tiny_lut(encoder))
    ids = np.argsort(batch["noise"], axis=1)
    geometry = batch["geometry1"]
    locations = locations_of(ids, geometry, geometry, encoder.grid)
    key = tokens_at(encoder.encode(batch["view1"])[:, 1:], locations, encoder.grid)
    query = encoder.encode(batch["view1"], ids)[:, 1:]
    for distance in ("l2", "smooth_l1"):
        found = distance_of_places(query, key, tf.cast(locations.inside, "float32"), distance)
        assert 0 <= float(found) + 1e-6 < 2e-6
    wrong = distance_of_places(query, tf.reverse(key, [1]), tf.cast(locations.inside, "float32"), "l2")
    assert float(wrong) > 0.1


@pytest.mark.parametrize("steered", ["visible", "masked"])
def test_equal_views_have_no_distance_in_a_model_whose_tokens_do_not_see_each_other(steered: str) -> None:
    """1e-5, with masks: where blocks add nothing, a token is the same for the student and for the teacher."""
    model = tiny_lut(
        context_supervision="tokens", context_steers=steered, projector_depth=0, predictor_depth=0, mask_ratio=0.5
    )
    for network in (model.encoder, model.decoder):
        for block in network.block_layers:
            for layer in (block.attention.projection, block.mlp.fc2):
                layer.kernel.assign(tf.zeros_like(layer.kernel))
                layer.bias.assign(tf.zeros_like(layer.bias))
    model.reset_teacher()
    batch = tiny_batch(model)
    batch |= {"view2": batch["view1"], "geometry2": batch["geometry1"]}
    context = float(model.compute_losses(batch, training=False)["context"])
    if steered == "visible":
        assert 0 <= context + 1e-5 < 2e-5
    else:  # the decoder was not shown what the teacher sees there
        assert context > 0.1


def test_what_lies_outside_the_other_view_does_not_count() -> None:
    """Exact: neither queries nor keys there; each image counts alike, and one that is all outside counts nothing."""
    random = np.random.default_rng(0)
    query, key = random.normal(size=(2, 3, 4, 8)).astype("float32")
    inside = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], "float32")
    far = np.where(inside[..., None] > 0, query, 5.0).astype("float32")
    for distance, one in (("l2", l2_distance), ("smooth_l1", smooth_l1_distance)):
        found = distance_of_places(query, key, inside, distance)
        np.testing.assert_array_equal(found, distance_of_places(far, key, inside, distance))
        expected = (one(query[0, ::2], key[0, ::2]) + one(query[1], key[1])) / 3
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_teachers_masks_come_with_the_batch_and_leave_the_students_alone() -> None:
    model, whole = tiny_lut(teacher_mask_ratio=0.5), tiny_lut()
    patches = model.encoder.patches
    assert (model.noise_length, whole.noise_length) == (3 * patches, patches)
    assert tiny_lut(teacher_mask_ratio=0.5, symmetric=False).noise_length == 2 * patches
    batch = tiny_batch(model)
    other = {**batch, "noise": batch["noise"].copy()}
    other["noise"][:, patches : 2 * patches] = (
        1.0 - other["noise"][:, patches : 2 * patches]
    )  # view 1's for the teacher
    before, after = model(batch, training=False), model(other, training=False)
    for name in ("prediction", "student1", "student2", "teacher2"):
        np.testing.assert_array_equal(before[name], after[name])
    assert np.abs(before["teacher1"] - after["teacher1"]).max() > 1e-4
    with pytest.raises(ValueError, match="noise of 16 numbers an image, but the mask needs 48"):
        model.compute_losses(tiny_batch(whole))


def test_a_masked_teacher_does_not_see_what_is_masked() -> None:
    """Exact: with half of view 2 masked, other pixels there change no target."""
    model = tiny_lut(teacher_mask_ratio=0.5)
    batch = tiny_batch(model)
    patches = model.encoder.patches
    hidden = random_plan(batch["noise"][:, 2 * patches :], patches // 2).masked
    pixels = np.zeros((4, patches), bool)
    np.put_along_axis(pixels, np.array(hidden), True, axis=1)
    mask = pixels.reshape(4, 4, 4).repeat(4, axis=1).repeat(4, axis=2)[..., None]
    changed = {**batch, "view2": np.where(mask, 7.0, batch["view2"]).astype("float32")}
    one, other = model(batch, training=False), model(changed, training=False)
    np.testing.assert_array_equal(one["teacher2"], other["teacher2"])
    assert np.abs(one["student2"] - other["student2"]).max() > 1e-4


@pytest.mark.medium
def test_more_noise_changes_nothing_else_of_the_batches() -> None:
    """Exact: a run with a masked teacher has the views, and the student's masks, of one without."""
    options: dict[str, Any] = {"batch_size": 8, "image_size": 16, "views": ViewsConfig(), "seed": 5, "steps": 1}
    one, other = (
        next(pretraining_dataset(digits("train"), noise_length=length, **options).as_numpy_iterator())
        for length in (16, 48)
    )
    other["noise"] = other["noise"][:, :16]
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.medium
def test_a_batch_that_does_not_say_where_its_views_lie_is_refused() -> None:
    model = tiny_lut(context_supervision="tokens")
    batch = {name: value for name, value in tiny_batch(model).items() if name != "geometry2"}
    with pytest.raises(ValueError, match=r"no geometry2, and context_supervision=tokens .*: give batches of"):
        model.compute_losses(batch)
    tiny_lut().compute_losses({name: value for name, value in batch.items() if "geometry" not in name})


def test_rectangles_and_register_tokens_have_places_too() -> None:
    encoder = tiny_encoder(image_size=(16, 24), register_tokens=2)
    model = tiny_lut(encoder, context_supervision="both", context_steers="both", context_source="class_token")
    losses = model.compute_losses(tiny_batch(model), training=True)
    assert np.isfinite([float(value) for value in losses.values()]).all()
    assert model(tiny_batch(model))["student1_masked_tokens"].shape == (4, 18, 16)


def test_a_model_described_before_these_settings_is_the_papers() -> None:
    config = tiny_lut(mask_ratio=0.6).get_config()
    for name in ("context_source", "context_steers", "context_supervision", "teacher_mask_ratio"):
        del config["settings"][name]
    assert LUT.from_config(config).settings == tiny_lut(mask_ratio=0.6).settings


def test_a_reference_file_has_no_map_of_masked_tokens_and_loading_says_so() -> None:
    model = tiny_lut(context_steers="masked")
    with pytest.warns(UserWarning, match=r"does not hold masked_map: they stay freshly initialised"):
        again = load_reference(to_reference(model), num_heads=2, decoder_num_heads=2, context_steers="masked")
    np.testing.assert_array_equal(model.decoder.mask_token, again.decoder.mask_token)


def test_a_run_starts_from_the_map_of_masked_tokens_too() -> None:
    keras.utils.set_random_seed(0)
    source, target, plain = (tiny_lut(**settings) for settings in [{"context_steers": "masked"}] * 2 + [{}])
    names = ("encoder", "decoder", "masked_map", "projector", "predictor")
    said = Initial("there", {name: getattr(source, name) for name in names}).give(target)
    assert "decoder, masked_map, projector" in said and said.endswith("fresh: optimizer")
    np.testing.assert_array_equal(source.masked_map.kernel, target.masked_map.kernel)
    parts = {name: getattr(plain, name) for name in names if hasattr(plain, name)}
    assert "fresh: masked_map, optimizer" in Initial("there", parts).give(target)
