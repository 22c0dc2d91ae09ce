"""What every network and method keeps: it is described and built again, saved, computed in each precision, trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from networks import tiny_batch, tiny_decoder, tiny_encoder, tiny_head, tiny_lut, tiny_mae, tiny_simmim

from lut_tf import CosineMomentum
from lut_tf.config import HeadConfig, MaskingConfig
from lut_tf.methods.base import MaskedImageModel


class Contract(NamedTuple):
    """A network or method, and its outputs by name for inputs that are the same each time."""

    make: Callable[..., Any]
    outputs: Callable[[Any], dict[str, Any]]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def tokens(encoder: Any) -> dict[str, Any]:
    return {"tokens": encoder(random(2, *encoder.image_size, 3))}


def pixels(decoder: Any) -> dict[str, Any]:
    ids = np.tile(np.arange(16, dtype="int32"), (2, 1))
    return {"pixels": decoder(random(2, 5, 16), ids[:, :4], ids[:, 4:])}


def features(head: Any) -> dict[str, Any]:
    return {"features": head(random(4, 16), training=False)}


def losses(model: Any) -> dict[str, Any]:
    return model.compute_losses(tiny_batch(model), training=False)


def decoder_of_tiny(**changes: Any) -> Any:
    return tiny_decoder(tiny_encoder(), **{"dtype": None, **changes})


def changed_head(**changes: Any) -> Callable[..., Any]:
    return lambda **more: tiny_head(**changes, **more)


def changed_lut(**changes: Any) -> Any:
    """As little of it as the default has."""
    other = {"context_distance": "smooth_l1", "symmetric": False, "momentum": CosineMomentum(0.9, 5), "norm": "layer"}
    return tiny_lut(**other, activation="gelu", mask_ratio=0.5, **changes)


ATTENTION = MaskingConfig("attention", throw_ratio=0.2)


def guided(throw_ratio: float) -> MaskingConfig:
    return MaskingConfig("attention", throw_ratio, "teacher")


CONTRACTS = {
    "encoder": Contract(tiny_encoder, tokens),
    "encoder, learned positions": Contract(lambda **more: tiny_encoder(positions="learned", **more), tokens),
    "encoder without class token": Contract(lambda **more: tiny_encoder(class_token=False, **more), tokens),
    "encoder with register tokens and LayerScale": Contract(
        lambda **more: tiny_encoder(register_tokens=3, layer_scale=True, layer_norm_eps=1e-12, **more), tokens
    ),
    "encoder of rectangles": Contract(lambda **more: tiny_encoder(image_size=(16, 40), **more), tokens),
    "resized encoder": Contract(lambda **more: tiny_encoder(positions="learned", **more).resized((24, 48)), tokens),
    "decoder": Contract(decoder_of_tiny, pixels),
    "head with BatchNorm": Contract(changed_head(norm="batch"), features),
    "head with LayerNorm, GELU": Contract(changed_head(norm="layer", activation="gelu", depth=3), features),
    "head without norm": Contract(changed_head(norm=None), features),
    "LUT": Contract(tiny_lut, losses),
    "LUT of other settings": Contract(changed_lut, losses),
    "LUT of masked tokens, by place": Contract(
        lambda **more: tiny_lut(context_steers="both", context_supervision="both", **more), losses
    ),
    "LUT of class tokens, a masked teacher": Contract(
        lambda **more: tiny_lut(context_source="class_token", teacher_mask_ratio=0.5, **more), losses
    ),
    "MAE": Contract(tiny_mae, losses),
    "MAE with register tokens": Contract(
        lambda **more: tiny_mae(tiny_encoder(register_tokens=2, layer_scale=True, **more)), losses
    ),
    "LUT guided by its teacher": Contract(lambda **more: tiny_lut(masking=guided(0.2), mask_ratio=0.4, **more), losses),
    "MAE guided by weights": Contract(lambda **more: tiny_mae(masking=ATTENTION, mask_ratio=0.4, **more), losses),
    "SimMIM guided by weights": Contract(lambda **more: tiny_simmim(masking=ATTENTION, **more), losses),
    "SimMIM": Contract(lambda **more: tiny_simmim(drop_path=0.5, **more), losses),
}
METHODS = [
    "LUT",
    "LUT of other settings",
    "LUT of masked tokens, by place",
    "LUT of class tokens, a masked teacher",
    "MAE",
    "SimMIM",
    "LUT guided by its teacher",
    "MAE guided by weights",
    "SimMIM guided by weights",
]


# What these hold is in the others too, each by itself.
SECOND = {
    "encoder of rectangles", "head without norm", "LUT of class tokens, a masked teacher", "MAE with register tokens",
    "LUT guided by its teacher", "SimMIM guided by weights",
}  # fmt: skip


def normally(names: Iterable[str]) -> list[Any]:
    """The names, those of `SECOND` for the slow run."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SECOND else name for name in names]


@pytest.fixture(params=normally(CONTRACTS))
def contract(request: pytest.FixtureRequest) -> Contract:
    return CONTRACTS[request.param]


def shapes(network: Any) -> list[tuple[str, tuple[int, ...], bool]]:
    return [(v.path.partition("/")[2], tuple(v.shape), v.trainable) for v in network.variables]


def disturbed(network: Any) -> Any:
    """Give every weight, and every statistic, a value that no initialisation has."""
    for number, variable in enumerate(network.variables):
        noise = np.random.default_rng(number).normal(size=variable.shape)
        variable.assign(variable.numpy() + 0.1 * np.abs(noise))
    return network


@pytest.mark.medium
def test_its_configuration_builds_it_again(contract: Contract) -> None:
    """Through JSON: the same configuration, the same weights by name and shape, the same of them trained."""
    network = contract.make()
    described = json.loads(json.dumps(keras.saving.serialize_keras_object(network)))
    again = keras.saving.deserialize_keras_object(described)
    if not again.built:
        again.build((None, again.width))
    assert type(again) is type(network)
    assert json.dumps(again.get_config()) == json.dumps(network.get_config())
    assert shapes(again) == shapes(network)


@pytest.mark.medium
def test_saved_and_loaded_it_computes_the_same(contract: Contract, tmp_path: Path) -> None:
    """Bit for bit, teacher and running statistics included. A head is no model of its own: Keras saves it in one."""
    network = disturbed(contract.make())
    expected = contract.outputs(network)
    if isinstance(network, keras.Model):
        network.save(tmp_path / "network.keras")
        again = keras.saving.load_model(tmp_path / "network.keras")
    else:
        model = keras.Sequential([keras.Input((network.width,)), network])
        model.save(tmp_path / "network.keras")
        again = keras.saving.load_model(tmp_path / "network.keras").layers[-1]
    for one, other in zip(network.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
    for name, value in contract.outputs(again).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    if getattr(network, "momentum", None) is not None and isinstance(network, MaskedImageModel):
        assert float(again.momentum_at(3)) == float(network.momentum_at(3))


@pytest.mark.medium
@pytest.mark.parametrize(
    "precision", ["float32", "mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_each_precision_keeps_float32_where_it_counts(contract: Contract, precision: str) -> None:
    """Weights float32; losses float32 and finite; a network's output in the precision's compute type."""
    network = contract.make(dtype=precision)
    assert {variable.dtype for variable in network.variables} == {"float32"}
    computed = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}[precision]
    for name, value in contract.outputs(network).items():
        expected = "float32" if isinstance(network, MaskedImageModel) else computed
        assert keras.backend.standardize_dtype(value.dtype) == expected, name
        assert np.isfinite(np.asarray(value, "float32")).all(), name
    if isinstance(network, MaskedImageModel):
        assert {network.encoder.compute_dtype, network.decoder.compute_dtype} == {computed}


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("LUT", "mixed_bfloat16"),
        ("LUT", "mixed_float16"),
        *(pytest.param(name, "float32", marks=pytest.mark.slow if name in SECOND else ()) for name in METHODS),
    ],
)
def test_a_method_takes_a_step(name: str, precision: str) -> None:
    """The loss is finite, everything that can be trained has moved, and the teacher follows."""
    model = CONTRACTS[name].make(dtype=precision)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    before = [variable.numpy() for variable in model.trainable_variables]
    teachers = [teacher.numpy() for teacher, _ in model.teacher_pairs]
    logs = model.train_on_batch(tiny_batch(model), return_dict=True)
    assert np.isfinite(logs["loss"])
    assert int(model.optimizer.iterations.numpy()) == 1
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != value).any(), variable.path
    followed = [(t.numpy() != old).any() for (t, _), old in zip(model.teacher_pairs, teachers, strict=True)]
    assert any(followed) == model.has_teacher


def test_a_method_takes_heads_and_settings_by_either_name() -> None:
    """A projector that is given, and one that the settings describe, are the same network."""
    head = {"hidden": 20, "norm": "layer", "activation": "gelu"}
    given = tiny_lut(projector=tiny_head(depth=3, name="projector", **head), **head)
    described = tiny_lut(head=HeadConfig(projector_depth=3, **head))
    assert shapes(given.projector) == shapes(described.projector)
    assert shapes(given.predictor) == shapes(described.predictor)
