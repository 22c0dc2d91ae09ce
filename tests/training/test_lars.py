"""LARS is the published rule, and goes on from what was saved as if nothing had happened."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from lut_tf.training.lars import LARS
from lut_tf.training.schedules import warmup_cosine

SHAPES = {"kernel": (5, 3), "bias": (3,), "zero": (4, 2)}
CASES: dict[str, dict[str, Any]] = {
    "as the probe has it": {},
    "with decay": {"weight_decay": 0.1},
    "other constants": {"momentum": 0.5, "trust_coefficient": 0.1},
}


def variables() -> list[keras.Variable]:
    random = np.random.default_rng(0)
    values = {name: random.normal(size=shape) * (name != "zero") for name, shape in SHAPES.items()}
    return [keras.Variable(value.astype("float32"), name=name) for name, value in values.items()]


def gradients(step: int) -> list[np.ndarray]:
    """The third step's gradients are zero."""
    random = np.random.default_rng(step + 1)
    return [(random.normal(size=shape) * (step != 2)).astype("float32") for shape in SHAPES.values()]


def published(weights: list[np.ndarray], rates: list[float], **constants: float) -> list[np.ndarray]:
    """The rule in float64, weight by weight (arXiv 1708.03888 as MoCo v3 and MAE have it)."""
    decay, momentum = constants.get("weight_decay", 0.0), constants.get("momentum", 0.9)
    trust = constants.get("trust_coefficient", 0.001)
    weights = [weight.astype("float64") for weight in weights]
    moved = [np.zeros_like(weight) for weight in weights]
    for step, rate in enumerate(rates):
        for i, gradient in enumerate(gradients(step)):
            update = gradient.astype("float64")
            if weights[i].ndim > 1:
                update = update + decay * weights[i]
                norms = np.linalg.norm(weights[i]), np.linalg.norm(update)
                if min(norms) > 0:
                    update = update * trust * norms[0] / norms[1]
            moved[i] = momentum * moved[i] + update
            weights[i] = weights[i] - rate * moved[i]
    return weights


@pytest.mark.parametrize("case", CASES)
def test_several_steps_are_the_published_rule(case: str) -> None:
    ours, schedule = variables(), warmup_cosine(0.5, 2, 8)
    expected = published([v.numpy() for v in ours], [float(schedule(step)) for step in range(8)], **CASES[case])
    optimizer = LARS(schedule, **CASES[case])
    optimizer.build(ours)
    for step in range(8):
        optimizer.apply(gradients(step), ours)
    for variable, value in zip(ours, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)


def test_a_saved_one_goes_on_exactly() -> None:
    ours, whole = variables(), LARS(warmup_cosine(0.5, 2, 8), 0.1)
    whole.build(ours)
    for step in range(4):
        whole.apply(gradients(step), ours)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(whole))
    theirs = variables()
    restored.build(theirs)
    for own, other in zip([*theirs, *restored.variables], [*ours, *whole.variables], strict=True):
        own.assign(other)
    for step in range(4, 8):
        whole.apply(gradients(step), ours)
        restored.apply(gradients(step), theirs)
    assert [v.numpy().tobytes() for v in theirs] == [v.numpy().tobytes() for v in ours]


def test_layers_have_their_shares_of_the_rate() -> None:
    """A share of the rate is the rate itself, and a layer that is not named has all of it."""

    def trained(optimizer: LARS, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        layers = [
            keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=1), name=n) for n in names
        ]
        for layer in layers:
            layer.build((None, 5))
        kernels = [layer.kernel for layer in layers]
        optimizer.build(kernels)
        for step in range(3):
            optimizer.apply([gradients(step)[0]] * len(kernels), kernels)
        return {name: kernel.numpy() for name, kernel in zip(names, kernels, strict=True)}

    together = trained(LARS(2.0, shares={"slow": 0.25}), ("slow", "fast"))
    for name, rate in (("slow", 0.5), ("fast", 2.0)):
        np.testing.assert_allclose(together[name], trained(LARS(rate), (name,))[name], rtol=1e-6)
