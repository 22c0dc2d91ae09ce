"""Layers, decoder and heads: what their callers rely on."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
from networks import tiny_lut

from lut_tf import MLPHead, PixelDecoder, ViTEncoder
from lut_tf.config.presets import encoder_size
from lut_tf.models.layers import LayerNorm, gather_tokens, gelu, patchify


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_gelu_is_the_exact_one() -> None:
    """1e-6 of the error function, where the tanh approximation is off by 4e-4."""
    x = np.linspace(-4, 4, 33).astype("float32")
    expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(gelu(x), expected, rtol=0, atol=1e-6)


def test_layer_norm() -> None:
    """1e-5 of its definition with epsilon 1e-6, which small inputs tell from any other."""
    x = 1e-3 * random(4, 8)
    layer = LayerNorm()
    layer.build((None, 8))
    layer.gamma.assign(random(8))
    layer.beta.assign(random(8) + 1)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer(x), expected * random(8) + random(8) + 1, atol=1e-5)


def test_gather_tokens() -> None:
    """Exact: NumPy's take_along_axis."""
    tokens, ids = random(3, 5, 4), np.array([[4, 0], [1, 1], [2, 3]])
    np.testing.assert_array_equal(gather_tokens(tokens, ids), np.take_along_axis(tokens, ids[..., None], axis=1))


def test_patch_values_are_in_row_column_channel_order() -> None:
    image = np.arange(4 * 4 * 3, dtype="float32").reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(patchify(image, 2)[0, 1], image[0, :2, 2:].ravel())


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("norm", ["batch", "layer", None])
def test_head_depths(depth: int, norm: str | None) -> None:
    """Depth counts linear layers; 0 is the identity and 1 has no hidden layer; the last is followed by nothing."""
    head = MLPHead(6, 10, depth, norm)
    head.build((None, 6))
    widths = [6, *[10] * (depth - 1), 6] if depth else [6]
    assert [tuple(layer.kernel.shape) for layer in head.linears] == list(itertools.pairwise(widths))
    assert all(layer.bias is None for layer in head.linears)
    assert len(head.norms) == (max(depth - 1, 0) if norm else 0)
    x = random(5, 6)
    assert head(x, training=False).shape == (5, 6)
    if depth == 0:
        np.testing.assert_array_equal(head(x), x)


@pytest.mark.parametrize("settings", [{"norm": "group"}, {"activation": "tanh"}, {"depth": -1}])
def test_heads_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="^(norm|activation|depth)="):
        MLPHead(6, 10, **settings)


def test_decoder_does_not_care_about_the_order_of_its_lists() -> None:
    """1e-5: positions, not the order of the sequence, say where a token is."""
    decoder = PixelDecoder((3, 3), 4, 8, 12, depth=2, heads=3)
    tokens, visible, masked = random(2, 4, 8), np.array([[0, 4, 7]] * 2), np.array([[1, 2, 3, 5, 6, 8]] * 2)
    order = [2, 0, 1]
    shuffled = np.concatenate([tokens[:, :1], tokens[:, 1:][:, order]], axis=1)
    one, other = decoder(tokens, visible, masked), decoder(shuffled, visible[:, order], masked[:, ::-1].copy())
    np.testing.assert_allclose(np.asarray(other)[:, :3], np.asarray(one)[:, order], atol=1e-5)
    np.testing.assert_allclose(np.asarray(other)[:, 3:], np.asarray(one)[:, 3:][:, ::-1], atol=1e-5)


BLOCK = [
    "norm1/gamma", "norm1/beta", "attention/qkv/kernel", "attention/qkv/bias", "attention/projection/kernel",
    "attention/projection/bias", "norm2/gamma", "norm2/beta", "mlp/fc1/kernel", "mlp/fc1/bias", "mlp/fc2/kernel",
    "mlp/fc2/bias",
]  # fmt: skip


def test_variables_stand_in_the_order_of_the_checkpoints() -> None:
    """A run's checkpoints number them: in any other order, those of earlier runs could not be read."""

    def names(network: keras.Model) -> list[str]:
        return [variable.path.removeprefix(f"{network.name}/") for variable in network.variables]

    blocks = [f"block{i}/{name}" for i in range(2) for name in BLOCK]
    patches = ["class_token", "positions", "patch_embedding/kernel", "patch_embedding/bias"]
    norm = ["norm/gamma", "norm/beta"]
    assert names(ViTEncoder(16, 8, 8, depth=2, heads=2)) == [*patches, *blocks, *norm]
    tokens = ["mask_token", "positions", "embedding/kernel", "embedding/bias"]
    pixels = ["pixels/kernel", "pixels/bias"]
    assert names(PixelDecoder((2, 2), 8, 8, 8, depth=2, heads=2)) == [*tokens, *blocks, *norm, *pixels]


def test_decoder_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"width=12 is not a multiple of .*heads=5"):
        PixelDecoder((3, 3), 4, 8, 12, heads=5)


def test_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="vit_giant.*vit_base_patch16"):
        encoder_size("vit_giant")


def test_a_seed_is_the_network_that_it_has_been() -> None:
    """Sums of earlier versions' magnitudes: whatever takes one seed more makes all weights after it others."""
    keras.utils.set_random_seed(0)
    model = tiny_lut()
    sums = {"encoder": 619.3102, "decoder": 665.8481, "projector": 170.1886, "predictor": 172.8985}
    for part, expected in sums.items():
        weights = getattr(model, part).trainable_variables
        assert sum(np.abs(v.numpy()).sum(dtype="float64") for v in weights) == pytest.approx(expected, abs=1e-2), part
