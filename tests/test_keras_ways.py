"""Keras' own ways with our models: a clear sentence or the right thing. Guards what would be wrong in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_batch, tiny_decoder, tiny_encoder, tiny_head, tiny_lut, tiny_mae, tiny_simmim

from lut_tf import LUT, ViTEncoder
from lut_tf.config import HeadConfig, MaskingConfig
from lut_tf.data import batches_for
from lut_tf.models.preprocess import normalise
from lut_tf.training.optimizer import adamw
from lut_tf.training.schedules import warmup_cosine


@pytest.fixture(scope="module")
def encoder() -> ViTEncoder:
    return tiny_encoder()


WRONG = {
    "twice as high and wide": (
        np.zeros((1, 32, 32, 3), "float32"),
        r"images of shape \(1, 32, 32, 3\).*encoder.resized",
    ),
    "as many values": (np.zeros((1, 8, 32, 3), "float32"), r"images of shape \(1, 8, 32, 3\).*encoder.resized"),
    "channels first": (np.zeros((1, 3, 16, 16), "float32"), r"images of shape \(1, 3, 16, 16\)"),
    "one channel": (np.zeros((3, 16, 16, 1), "float32"), r"images of shape \(3, 16, 16, 1\)"),
    "no batch": (np.zeros((16, 16, 3), "float32"), r"images of shape \(16, 16, 3\)"),
    "bytes": (np.zeros((1, 16, 16, 3), "uint8"), r"images of dtype uint8.*normalise"),
}
WAYS: dict[str, Callable[[ViTEncoder, Any], Any]] = {
    "call": lambda encoder, images: encoder(images),
    "features": lambda encoder, images: encoder.features(images),
    "predict": lambda encoder, images: encoder.predict(images, verbose=0),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", WRONG)
def test_an_encoder_refuses_other_images_by_name(encoder: ViTEncoder, name: str, way: str) -> None:
    images, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence):
        WAYS[way](encoder, images)


@pytest.mark.slow
def test_bytes_are_prepared_wherever_a_method_is_called() -> None:
    """`model(batch)` and `predict` on bytes are those on the prepared batch."""
    for model in (tiny_lut(), tiny_mae(), tiny_simmim(), tiny_mae(mask_ratio=0.4, masking=MaskingConfig("attention"))):
        random, batch = np.random.default_rng(0), tiny_batch(model)
        for name in ("view1", "view2")[: model.view_count]:
            batch[name] = random.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
        expected = model({**batch, **{name: normalise(batch[name]) for name in batch if "view" in name}})["prediction"]
        np.testing.assert_array_equal(model(batch)["prediction"], expected)
        np.testing.assert_allclose(model.predict(batch, verbose=0)["prediction"], expected, atol=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((np.zeros((4, 16, 16, 3), "uint8"),), r"the batch is no dict, and LUT takes a dict with noise, view1, view2"),
        ((np.zeros((4, 16, 16, 3), "uint8"), np.zeros(4)), r"the batch is no dict.*batches_for"),
        (({"view1": np.zeros((4, 16, 16, 3), "uint8")},), r"a dict of view1, and LUT takes .* noise, view1, view2"),
    ],
    ids=["images", "images and labels", "no noise"],
)
def test_what_is_no_batch_is_refused_by_fit_in_a_sentence(arguments: tuple[Any, ...], sentence: str) -> None:
    model = tiny_lut()
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=sentence):
        model.fit(*arguments, verbose=0)


@pytest.mark.slow
def test_a_loaded_method_trains_on_as_if_it_had_not_been_saved(tmp_path: Path) -> None:
    """Compilation, optimizer's state, schedule and what does not decay come back: the next step is the same."""
    model = tiny_mae()  # half of the time to trace
    model.compile(adamw(warmup_cosine(1e-2, 2, 10), 0.5, model=model), accumulate=2, clip_norm=1.0, max_bad_steps=3)
    data = tf.data.Dataset.from_tensors(tiny_batch(model))
    model.fit(data, verbose=0)
    model.save(tmp_path / "mae.keras")
    again = keras.saving.load_model(tmp_path / "mae.keras")
    assert (again.micro_batches, again.clip_norm, again.max_bad_steps) == (2, 1.0, 3)
    for one in (model, again):
        one.fit(data, verbose=0)
    for expected, found in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(expected.numpy(), found.numpy(), err_msg=expected.path)


@pytest.mark.slow
def test_a_file_loads_in_a_new_process_that_imports_the_package(encoder: ViTEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "encoder.keras")
    code = f"import keras, lut_tf; print(type(keras.saving.load_model({str(tmp_path / 'encoder.keras')!r})).__name__)"
    root = str(Path(__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert ended.stdout.strip() == "ViTEncoder"


@pytest.mark.medium
def test_images_become_batches_in_one_line() -> None:
    """`fit` learns from an array; each epoch shows other views, and the whole is `pretraining_dataset`'s."""
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    model = tiny_mae()
    model.compile(keras.optimizers.SGD(0.1))
    batches = batches_for(model, images, 8, epochs=2)
    found = list(batches.as_numpy_iterator())
    assert len(found) == 4 and found[0]["view1"].shape == (8, 16, 16, 3) and "view2" not in found[0]
    assert not np.array_equal(found[0]["noise"], found[2]["noise"])
    history = model.fit(batches, epochs=2, steps_per_epoch=2, verbose=0).history
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()


def test_the_summary_has_names_and_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    tiny_lut().summary(expand_nested=False, line_length=110)
    text = capsys.readouterr().out
    assert "vi_t" not in text and "?" not in text
    for shape in ("(None, 17, 16)", "(None, 16, 48)", "(None, 16)"):  # tokens, pixels of patches, pooled tokens
        assert shape in text
    tiny_encoder().summary(line_length=110)
    text = capsys.readouterr().out
    assert "?" not in text and "vi_t" not in text


@pytest.mark.medium
def test_a_preset_takes_a_name() -> None:
    assert ViTEncoder.from_preset("vit_tiny_patch16", image_size=32, name="mine").name == "mine"
    assert ViTEncoder.from_preset("vit_tiny_patch16", image_size=32).name == "encoder"


@pytest.mark.slow
def test_a_smaller_last_batch_weighs_its_images_alike() -> None:
    """Five images in two micro-batches: the update is that of the five at once; one image in two is refused.

    Whether the batch's size is known as the step is traced, or only as it runs.
    """
    batch = tiny_batch(tiny_mae(), 5)

    def step(accumulate: int, count: int, sizes: str = "known") -> list[np.ndarray]:
        keras.utils.set_random_seed(3)
        model = tiny_mae()
        model.compile(keras.optimizers.SGD(0.1), accumulate=accumulate, run_eagerly=sizes == "known")
        part = {name: tf.constant(value[:count]) for name, value in batch.items()}
        data = tf.data.Dataset.from_tensors(part)
        if sizes == "unknown":
            data = data.unbatch().batch(8)
        logs = model.fit(data, verbose=0).history
        return [*logs["loss"], *(variable.numpy() for variable in model.trainable_variables)]

    whole = step(1, 5)
    for sizes in ("known", "unknown"):
        for together, parts in zip(whole, step(2, 5, sizes), strict=True):
            np.testing.assert_allclose(parts, together, rtol=0, atol=2e-6)
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="fewer images than its accumulate=2"):
            step(2, 1, sizes)


def test_a_picture_under_xla_compiles_nothing() -> None:
    model = tiny_mae()
    model.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    batch = tiny_batch(model)
    assert model.network(lambda: tf.executing_eagerly()) is True
    np.testing.assert_allclose(model.reconstruct(batch)["reconstruction"].shape, batch["view1"].shape)


@pytest.mark.medium
def test_keras_export_needs_no_call_before_it(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.export(tmp_path / "model", verbose=False)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    model = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(model.serve(images), encoder(images), atol=1e-5)


@pytest.mark.slow
def test_a_float16_gradient_that_stays_infinite_ends_as_a_bad_step() -> None:
    """The scale is halved down to 1 while it may be to blame; from there the step is bad, and nothing is learned."""
    model = tiny_lut(dtype="mixed_float16", momentum=0.9)
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=4.0)
    model.compile(scaling, max_bad_steps=100)
    before = [variable.numpy() for variable in model.trainable_variables]
    batch = tiny_batch(model)
    batch["view1"] = batch["view1"] * np.float32(1e38)  # its losses are infinite from the first step on
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(6), verbose=0)
    assert model.agreed.bad_steps >= 3
    assert int(model.optimizer.iterations.numpy()) == 0
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)


def test_the_momentum_is_in_one_place() -> None:
    assert tiny_lut(momentum=0.9).settings.momentum == 0.9
    again = LUT.from_config(tiny_lut(momentum=0.9).get_config())
    assert again.momentum == again.settings.momentum == 0.9


@pytest.mark.slow
@pytest.mark.parametrize("policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"])
def test_one_precision_for_all_parts_wherever_it_is_given(policy: str, tmp_path: Path) -> None:
    """On the encoder, on the preset, or in a file: all parts compute in it, and float16 gets its loss scaling."""
    made = {
        "encoder": LUT(tiny_encoder(dtype=policy), head=HeadConfig(hidden=8)),
        "preset": LUT.from_preset("vit_tiny_patch16", image_size=32, dtype=policy, head=HeadConfig(hidden=8)),
    }
    made["encoder"].save(tmp_path / "lut.keras")
    made["file"] = keras.saving.load_model(tmp_path / "lut.keras")
    for name, model in made.items():
        model.compile(keras.optimizers.SGD(0.1))
        parts = [model, model.encoder, model.decoder, model.projector, model.predictor, model.teacher_encoder]
        assert {part.dtype_policy.name for part in parts} == {policy}, name
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16"), name


@pytest.mark.parametrize("part", ["encoder", "decoder", "projector"])
def test_parts_of_different_precision_are_refused(part: str) -> None:
    made = {"encoder": tiny_encoder(), "decoder": tiny_decoder(tiny_encoder()), "projector": tiny_head()}
    made[part] = {
        "encoder": lambda: tiny_encoder(dtype="mixed_bfloat16"),
        "decoder": lambda: tiny_decoder(tiny_encoder(), dtype="mixed_bfloat16"),
        "projector": lambda: tiny_head(dtype="mixed_bfloat16"),
    }[part]()
    with pytest.raises(ValueError, match=r"computes in (float32|mixed_bfloat16): give all parts the same dtype"):
        LUT(**made)
