"""What AdamW decays, and where its epsilon is."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_encoder, tiny_lut, tiny_mae

from lut_tf import ViTClassifier
from lut_tf.training.optimizer import adamw, layer_of, layerwise_adamw


def decayed(model: keras.Model) -> list[str]:
    """Return the paths of what a step without any gradient makes smaller."""
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    adamw(1e-3, model=model).apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    return [variable.path for variable in variables if (variable.numpy() < 1).all()]


@pytest.mark.medium
def test_matrices_and_tokens_are_decayed_and_counted() -> None:
    """A block has 4 matrices, each part its embedding, and there are two tokens; nothing else."""
    names = decayed(tiny_lut(tiny_encoder(depth=2)))
    assert len(names) == (1 + 1 + 2 * 4) + (1 + 1 + 1 * 4 + 1) + 2 * 2
    assert sum(name.endswith("class_token") for name in names) == 1
    assert sum(name.endswith("mask_token") for name in names) == 1
    assert all(name.endswith(("kernel", "_token")) for name in names)
    assert len(decayed(tiny_mae(tiny_encoder(depth=2)))) == (1 + 1 + 2 * 4) + (1 + 1 + 1 * 4 + 1)


def test_learned_positions_are_not_decayed() -> None:
    assert not any(name.endswith("positions") for name in decayed(tiny_encoder(positions="learned")))


def test_nothing_to_train_is_refused() -> None:
    model = tiny_encoder()
    model.trainable = False
    with pytest.raises(ValueError, match="nothing to train"):
        adamw(1e-3, model=model)


def test_epsilon_is_outside_the_bias_correction() -> None:
    """1e-5 relative to NumPy, for gradients of epsilon's own size (at 1e-8 Keras' own step is 0.18 for 0.5)."""
    model = tiny_encoder()
    optimizer = adamw(0.1, 0.0, (0.9, 0.95), model=model)
    variable = keras.Variable(np.zeros(4, "float32"))
    optimizer.build([variable])
    gradients = [np.array([1e-9, 1e-8, 1e-7, 1.0]), np.array([-2e-9, 3e-8, 1e-7, -0.5])]
    first = second = expected = np.zeros(4)
    for step, gradient in enumerate(gradients, start=1):
        optimizer.apply([keras.ops.array(gradient, "float32")], [variable])
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        deviation = np.sqrt(second / (1 - 0.95**step)) + 1e-8
        expected = expected - 0.1 * first / (1 - 0.9**step) / deviation
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def test_it_survives_saving() -> None:
    optimizer = adamw(1e-3, 0.1, (0.8, 0.9), model=tiny_encoder())
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert (again.beta_1, again.beta_2, again.weight_decay) == (0.8, 0.9, 0.1)


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("encoder/patch_embedding/kernel", 0),
        ("encoder/class_token", 0),
        ("encoder/register_tokens", 0),
        ("encoder/positions", 0),
        ("encoder/block0/norm1/gamma", 1),
        ("wrapper/encoder/block11/mlp/fc1/kernel", 12),
        ("encoder/norm/gamma", 13),
        ("classifier/norm/gamma", 13),
        ("classifier/head/kernel", 13),
        ("block3/head/bias", 13),
        ("another_encoder/positions", 13),
    ],
)
def test_layers_are_counted_from_the_images_on(path: str, layer: int) -> None:
    assert layer_of(path, "encoder", 12) == layer


def test_layers_need_one_encoder_that_trains() -> None:
    model = ViTClassifier.from_encoder(tiny_encoder(), 3)
    for layer_decay in (0.0, 1.1):
        with pytest.raises(
            ValueError, match=f"^layer_decay={layer_decay:g} is out of range: give a number above 0 to 1"
        ):
            layerwise_adamw(1e-3, layer_decay=layer_decay, model=model)
    with pytest.raises(ValueError, match="^model='head' has 0 encoders to train.*give a ViTClassifier"):
        layerwise_adamw(1e-3, model=tiny_head_model())
    model.trainable = False
    with pytest.raises(ValueError, match="nothing to train"):
        layerwise_adamw(1e-3, model=model)


def tiny_head_model() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="head")


@pytest.mark.slow
def test_layers_have_their_rates_on_several_replicas() -> None:
    """Each replica's own copy of a weight of 1 is decayed by the rate of its layer."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = ViTClassifier.from_encoder(tiny_encoder(), 3)
        variables = model.trainable_variables
        optimizer = layerwise_adamw(1.0, 0.5, layer_decay=0.5, model=model)
        optimizer.build(variables)
    for variable in variables:
        variable.assign(np.ones(variable.shape))

    @tf.function
    def step() -> None:
        strategy.run(lambda: optimizer.apply([tf.zeros(variable.shape) for variable in variables], variables))

    step()
    for variable in variables:
        decayed = variable.name == "kernel"  # of one dimension, or a token or position, are all others
        for copy in strategy.experimental_local_results(variable.value):
            expected = 1 - 0.5 * decayed * optimizer.scale(variable)
            np.testing.assert_allclose(copy.numpy(), expected, atol=1e-6, err_msg=variable.path)
