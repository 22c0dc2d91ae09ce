"""The classifier: the reference's numbers, drop path, and Keras' own ways with it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_encoder
from published import HEADS, classifier_state, logits

from lut_tf import ViTClassifier, ViTEncoder
from lut_tf.interop import load_classifier, to_reference
from lut_tf.models.layers import drop_path_factors
from lut_tf.models.positions import resize_positions
from lut_tf.models.preprocess import HALF
from lut_tf.training.optimizer import layerwise_adamw
from lut_tf.training.schedules import warmup_cosine

Arrays = dict[str, np.ndarray]


class Golden:
    """The reference's classifier and what it computes; see `of` for a part by its tensors' names."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.config = ast.literal_eval(str(arrays["config"]))

    def of(self, part: str) -> Arrays:
        return {k.removeprefix(f"{part}/"): x for k, x in self.arrays.items() if k.startswith(f"{part}/")}

    def classifier(self) -> ViTClassifier:
        return load_classifier(self.of("init"), num_heads=self.config["num_heads"])

    def optimizer(self, classifier: keras.Model, rate: float | None = None) -> Any:
        c = self.config
        optimizer = layerwise_adamw(rate or c["lr"], c["weight_decay"], c["betas"], c["layer_decay"], model=classifier)
        optimizer.build(classifier.trainable_variables)
        return optimizer

    def gradients(self, classifier: ViTClassifier) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            logits = classifier(self.arrays["image"])
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)(self.arrays["soft_target"], logits)
        return loss, tape.gradient(loss, classifier.trainable_variables)


@pytest.fixture
def reference(golden: Callable[[str], Arrays]) -> Golden:
    return Golden(golden("classifier_tiny"))


def written(classifier: ViTClassifier, values: list[Any]) -> Arrays:
    """Return values of the trainable weights by the reference's names and in its forms; the weights are lost."""
    for variable, value in zip(classifier.trainable_variables, values, strict=True):
        variable.assign(np.broadcast_to(value, variable.shape))
    return to_reference(classifier)


def agree(found: Arrays, expected: Arrays, atol: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], np.broadcast_to(value, found[name].shape), 0, atol, err_msg=name)


def test_logits_loss_and_gradients_are_the_references(reference: Golden) -> None:
    """1e-5."""
    classifier = reference.classifier()
    np.testing.assert_allclose(classifier(reference.arrays["image"]), reference.arrays["logits"], rtol=0, atol=1e-5)
    loss, gradients = reference.gradients(classifier)
    np.testing.assert_allclose(loss, reference.arrays["loss"], rtol=0, atol=1e-5)
    agree(written(classifier, gradients), reference.of("grad"))


def test_the_weights_after_a_layerwise_step_are_the_references(reference: Golden) -> None:
    """1e-6 with the reference's gradients; 1e-5 with our own, where these are above 1e-7.

    AdamW's first step is the gradient's sign, and of one as small as epsilon, 1e-8, float32 does not know it well.
    """
    expected, gradients = reference.of("after_step"), reference.of("grad")
    classifier, as_weights = reference.classifier(), load_classifier(gradients, num_heads=reference.config["num_heads"])
    given = [keras.ops.convert_to_tensor(variable) for variable in as_weights.trainable_variables]
    reference.optimizer(classifier).apply(given, classifier.trainable_variables)
    agree(to_reference(classifier), expected, atol=1e-6)
    classifier = reference.classifier()
    reference.optimizer(classifier).apply(reference.gradients(classifier)[1], classifier.trainable_variables)
    found, clear = to_reference(classifier), {name: np.abs(x) > 1e-7 for name, x in gradients.items()}
    agree({name: x[clear[name]] for name, x in found.items()}, {name: x[clear[name]] for name, x in expected.items()})
    assert np.mean(np.concatenate([x.ravel() for x in clear.values()])) > 0.99
    assert min(np.abs(expected[name] - x).max() for name, x in reference.of("init").items()) > 1e-4


def test_rates_and_decays_of_the_layers_are_the_references(reference: Golden) -> None:
    """Exact: what a weight of 1 loses in a step of rate 1 without a gradient is the rate's scale times the decay."""
    classifier = reference.classifier()
    optimizer = reference.optimizer(classifier, rate=1.0)
    variables = classifier.trainable_variables
    scales = written(classifier, [optimizer.scale(variable) for variable in variables])
    agree(scales, reference.of("lr_scale"), atol=1e-7)
    written(classifier, [1.0] * len(variables))
    optimizer.apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    decays = {name: (1 - x) / scales[name] for name, x in to_reference(classifier).items()}
    agree(decays, reference.of("weight_decay"), atol=1e-6)


def test_positions_are_resized_as_the_references(reference: Golden) -> None:
    """1e-5, and the encoder that was given stays as it was."""
    source, resized = reference.arrays["pos_embed_source"][0], reference.arrays["pos_embed_resized"][0]
    encoder = ViTEncoder(32, 8, 48, 1, 3, positions="learned")
    encoder.positions.assign(source)
    classifier = ViTClassifier.from_encoder(encoder, 10, image_size=reference.config["resized_to"])
    np.testing.assert_allclose(classifier.encoder.positions, resized, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(encoder.positions, source)
    assert classifier.image_size == (48, 48) and classifier(np.zeros((1, 48, 48, 3), "float32")).shape == (1, 10)


@pytest.mark.medium
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("settings", [{}, {"register_tokens": 2, "layer_scale": True}], ids=["plain", "DINOv2"])
def test_a_classifier_of_an_encoder_sees_its_tokens(pooling: str, settings: dict[str, Any]) -> None:
    """Weights are copied, positions become trainable, and features are of the patches, or of the class token, alone."""
    encoder = tiny_encoder(depth=2, **settings)
    for variable in encoder.trainable_variables:
        variable.assign(0.2 * np.random.default_rng(0).normal(size=variable.shape))
    classifier = ViTClassifier.from_encoder(encoder, 3, pooling)
    assert classifier.encoder.positions.trainable and not encoder.positions.trainable and encoder.norm.trainable
    x = images(4)
    tokens = encoder.blocks(encoder.add_positions(encoder.embed(x)), final_norm=pooling == "cls").numpy()
    found = classifier.features(x).numpy()
    if pooling == "cls":
        np.testing.assert_allclose(found, tokens[:, 0], atol=1e-6)
        assert classifier.norm is None and classifier.encoder.norm.trainable
    else:
        mean = tokens[:, encoder.prefix_tokens :].mean(1)
        normal = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(found, normal, atol=1e-5)
    assert len(classifier.trainable_variables) == len(tape_of(classifier, x))


def tape_of(classifier: ViTClassifier, x: np.ndarray) -> list[Any]:
    """Return the gradients that there are: nothing is trained that nothing reads."""
    with tf.GradientTape() as tape:
        total = keras.ops.sum(classifier(x) ** 2)
    return [g for g in tape.gradient(total, classifier.trainable_variables) if g is not None]


def images(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, side, side, 3)).astype("float32")


def classifier_of(depth: int = 2, **settings: Any) -> ViTClassifier:
    return ViTClassifier(tiny_encoder(positions="learned", depth=depth), **{"classes": 3, **settings})


def test_a_new_head_says_nearly_nothing() -> None:
    """Truncated normal of 2e-5, bias 0."""
    kernel, bias = classifier_of(classes=1000).head.get_weights()
    assert 1.5e-5 < kernel.std() < 2e-5 and np.abs(kernel).max() <= 4e-5 and not bias.any()


def test_drop_path_keeps_the_mean_and_rises_from_zero() -> None:
    """Over draws of equal distances every path counts 1 in the mean, 1e-3; the last block drops `rate` of them."""
    draws = np.repeat(((np.arange(2000) + 0.5) / 2000)[:, None], 8, axis=1).astype("float32")
    factors = np.asarray(drop_path_factors(draws, 0.3))
    np.testing.assert_allclose(factors.mean(0), 1.0, atol=1e-3)
    np.testing.assert_allclose((factors == 0).mean(0), [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3], atol=1e-3)
    assert np.isclose(factors.max(), 1 / 0.7)
    assert (np.asarray(drop_path_factors(draws[:, :2], 0.3)) == 1).all()


def test_dropped_paths_are_those_of_numpy() -> None:
    """1e-5 of a forward pass in plain NumPy with the same factors, written out."""
    state, depth, x = classifier_state(depth=3), 3, images(4, 32)
    classifier = load_classifier(state, num_heads=HEADS)
    dropping = ViTClassifier(classifier.encoder, 5, drop_path=0.6)
    dropping.set_weights(classifier.get_weights())
    draws = np.random.default_rng(3).random((4, 2 * depth), dtype="float32")
    rates = [0.0, 0.0, 0.3, 0.3, 0.6, 0.6]
    factors = [[0.0 if draw < rate else 1 / (1 - rate) for draw, rate in zip(row, rates, strict=True)] for row in draws]
    kept = np.array(factors)
    assert 0 < (kept == 0).sum() < kept.size
    found = dropping(x, training=True, drop_path_draws=draws)
    np.testing.assert_allclose(found, logits(state, x, kept=kept), atol=1e-5)
    assert np.abs(found - classifier(x)).max() > 1e-2


def test_without_drop_path_nothing_is_drawn_and_nothing_differs() -> None:
    classifier, x = classifier_of(), images(4)
    assert classifier.seed_generator is None
    draws = np.zeros((4, 4), "float32")
    expected = classifier(x).numpy()
    np.testing.assert_array_equal(classifier(x, training=True), expected)
    np.testing.assert_array_equal(classifier(x, training=True, drop_path_draws=draws), expected)
    dropping = classifier_of(drop_path=0.5)
    dropping.set_weights(classifier.get_weights())
    np.testing.assert_array_equal(dropping(x), expected)
    np.testing.assert_array_equal(dropping(x, training=False, drop_path_draws=draws), expected)


def test_drop_path_draws_its_own_where_none_are_given() -> None:
    """Another example is another draw, and so is another call."""
    classifier = classifier_of(drop_path=0.5)
    classifier.head.kernel.assign(np.random.default_rng(0).normal(size=(16, 3)))
    same = np.repeat(images(1), 32, axis=0)
    first, second = (np.round(classifier(same, training=True).numpy(), 3) for _ in range(2))
    assert len(np.unique(first, axis=0)) > 1
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_and_draws_are_float32_in_any_precision(policy: str) -> None:
    """A draw just below the rate, which bfloat16 would round up to it, drops."""
    encoder = tiny_encoder(positions="learned", depth=2, dtype=policy)
    classifier = ViTClassifier(encoder, 3, drop_path=0.5)
    classifier.head.kernel.assign(np.random.default_rng(0).normal(size=(16, 3)))
    assert classifier.dtype_policy.name == policy
    x = images(4)
    assert classifier(x).dtype == tf.float32 == classifier.features(x).dtype
    below, at = (np.full((4, 4), draw, "float32") for draw in (0.49999, 0.5))
    dropped, none, kept = (classifier(x, training=True, drop_path_draws=d) for d in (below, 0 * below, at))
    np.testing.assert_array_equal(dropped, none)
    assert np.abs(dropped - kept).max() > 1e-3


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no class": ({"classes": 0}, "classes=0 is out of range: give a whole number from 1 up"),
    "half a class": ({"classes": 2.5}, "classes=2.5 is of the wrong type: give a whole number"),
    "pooling": ({"pooling": "max"}, 'pooling=\'max\' is not known: choose "mean" or "cls"'),
    "rate": ({"drop_path": 1.0}, "drop_path=1 is out of range: give a number from 0 to just under 1"),
    "too few names": ({"class_names": ["a", "b"]}, "class_names: 2 for classes=3: give one for each class"),
    "one text": ({"class_names": "abc"}, "class_names='abc' are not names"),
    "numbers": ({"class_names": [1, 2, 3]}, r"class_names=\[1, 2, 3\] are not names"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_classifier_can_have_is_refused_in_a_line(name: str) -> None:
    settings, message = BAD[name]
    for make in (ViTClassifier.from_encoder, ViTClassifier):
        with pytest.raises(ValueError, match=f"^{message}.*$"):
            make(tiny_encoder(positions="learned"), **{"classes": 3, **settings})


def test_an_encoder_that_does_not_fit_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"^positions='sincos' of the encoder are fixed.*ViTClassifier\.from_encoder"):
        ViTClassifier(tiny_encoder(), 3)
    with pytest.raises(ValueError, match='^pooling="cls" needs a class token'):
        ViTClassifier.from_encoder(tiny_encoder(class_token=False), 3, "cls")
    with pytest.raises(ValueError, match=r"^image_size=\[17, 17\] is not a multiple of the patch size 4"):
        ViTClassifier.from_encoder(tiny_encoder(), 3, image_size=17)
    with pytest.raises(ValueError, match=r"images of shape \(1, 32, 32, 3\)"):
        classifier_of()(images(1, 32))


def test_a_larger_input_keeps_head_and_settings() -> None:
    classifier = classifier_of(drop_path=0.1, class_names=["a", "b", "c"])
    larger = classifier.resized((24, 16))
    assert (larger.image_size, larger.drop_path, larger.class_names) == ((24, 16), 0.1, ("a", "b", "c"))
    np.testing.assert_array_equal(larger.head.kernel, classifier.head.kernel)
    resized = resize_positions(classifier.encoder.positions.numpy(), (4, 4), (6, 4))
    np.testing.assert_array_equal(larger.encoder.positions, resized)


def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Twelve images whose brightness says the class."""
    labels = np.arange(12) % 3
    return (images(12) * 0.1 + labels[:, None, None, None] - 1).astype("float32"), labels


@pytest.mark.medium
def test_a_compiled_classifier_learns_is_saved_and_trains_on_alike(tmp_path: Path) -> None:
    """Plain compile and fit; file and optimizer come back in full, layers and all: the next step is the same."""
    model = classifier_of()
    model.compile(
        layerwise_adamw(warmup_cosine(3e-2, 1, 60), layer_decay=0.9, model=model),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        jit_compile=False,  # takes several seconds on a CPU, and saves none here
    )
    x, y = labelled()
    history = model.fit(x, y, epochs=20, batch_size=12, verbose=0, shuffle=False).history
    assert history["accuracy"][-1] == 1.0 == history["top2"][-1] and history["loss"][-1] < 0.3
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, again):
        one.fit(x, y, batch_size=12, verbose=0, shuffle=False)
    for expected, found in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(expected.numpy(), found.numpy(), err_msg=expected.path)


@pytest.mark.medium
def test_a_functional_model_contains_a_classifier(tmp_path: Path) -> None:
    """The same numbers, in a file too, and the same rates of its layers."""
    classifier, x = classifier_of(), images(2)
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Softmax()(classifier(inputs)))
    np.testing.assert_allclose(model(x), keras.ops.softmax(classifier(x)), atol=1e-6)
    model.compile(layerwise_adamw(1e-3, layer_decay=0.5, model=model), "categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    again: Any = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(x), again(x))
    again.optimizer.build(again.trainable_variables)
    alone = layerwise_adamw(1e-3, layer_decay=0.5, model=classifier)
    expected = {variable.path: alone.scale(variable) for variable in classifier.trainable_variables}
    found = {v.path: scale for v, scale in zip(again.trainable_variables, again.optimizer.scales, strict=True)}
    assert found == expected and set(found.values()) == {0.125, 0.25, 0.5, 1.0}


def test_settings_come_back_from_a_file(tmp_path: Path) -> None:
    """All of them, those of the encoder too, and the precision; a file of another name is the same."""
    encoder = tiny_encoder(
        positions="learned", depth=2, register_tokens=2, preprocessing=HALF, layer_norm_eps=1e-5, dtype="mixed_bfloat16"
    )
    classifier = ViTClassifier(encoder, 3, "cls", drop_path=0.1, class_names=["a", "b", "c"], name="mine")
    classifier.save(tmp_path / "classifier.keras")
    again = keras.saving.load_model(tmp_path / "classifier.keras")
    assert again.get_config() == classifier.get_config() and again.class_names == ("a", "b", "c")
    assert again.preprocessing == HALF and again.encoder.dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_array_equal(again(images(2)), classifier(images(2)))


@pytest.mark.slow
def test_a_compiled_file_loads_in_a_new_process_that_imports_the_package(tmp_path: Path) -> None:
    """By Keras and by us, which looks at what a file names first."""
    classifier = classifier_of(depth=1)
    classifier.compile(layerwise_adamw(1e-3, model=classifier), "categorical_crossentropy")
    classifier.save(tmp_path / "classifier.keras")
    path = str(tmp_path / "classifier.keras")
    code = (
        f"import keras, lut_tf; one = keras.saving.load_model({path!r}); print(type(one.optimizer).__name__);"
        f"from lut_tf.interop import load_classifier; print(load_classifier({path!r}).classes)"
    )
    root = str(Path(__file__).parents[2])
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["LayerwiseAdamW", "3"]


@pytest.mark.medium
def test_keras_exports_the_logits(tmp_path: Path) -> None:
    classifier, x = classifier_of(drop_path=0.2), images(2)
    classifier.head.kernel.assign(np.random.default_rng(0).normal(size=(16, 3)))
    classifier.export(tmp_path / "model", verbose=False)
    model = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(model.serve(x), classifier(x), atol=1e-5)


def test_the_summary_has_names_and_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    classifier_of().summary(line_length=110)
    text = capsys.readouterr().out
    assert "?" not in text and "vi_t" not in text
    assert re.search(r"head \(Dense\).*\(None, 3\)", text)
