"""The encoder: positions, sizes, and what it can show."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest

from lut_tf import LUT, MAE, ViTEncoder
from lut_tf.config.presets import ENCODER_SIZES
from lut_tf.models.layers import sincos_positions
from lut_tf.models.positions import resize_positions

Golden = Callable[[str], dict[str, np.ndarray]]

# Trainable parameters at 224×224: timm's counts of its headless models less their positions, which are constants here.
PARAMETERS = {
    "vit_tiny_patch16": 5_486_592,
    "vit_small_patch16": 21_590_016,
    "vit_medium_patch16": 38_223_872,
    "vit_base_patch16": 85_647_360,
    "vit_large_patch16": 303_099_904,
    "vit_huge_patch14": 630_435_840,
}


def tiny(**settings: object) -> ViTEncoder:
    return ViTEncoder(**{"image_size": 32, "patch_size": 8, "width": 16, "depth": 3, "heads": 2, **settings})


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def counted(patch: int, width: int, depth: int) -> int:
    """Parameters by arithmetic: blocks, patch embedding, class token, final norm."""
    block = 12 * width**2 + 13 * width
    return depth * block + (3 * patch**2 + 1) * width + width + 2 * width


@pytest.mark.parametrize(("name", "grid", "width"), [("sincos_48_4x4", 4, 48), ("sincos_64_7x7", 7, 64)])
def test_positions(golden: Golden, name: str, grid: int, width: int) -> None:
    """1e-6 of the reference's tables."""
    np.testing.assert_allclose(sincos_positions((grid, grid), width), golden("schedules")[name], rtol=0, atol=1e-6)


def test_positions_of_a_rectangle() -> None:
    """Exact: the first half says the column, the second the row."""
    table = sincos_positions((2, 5), 8, class_token=False).reshape(2, 5, 8)
    square = sincos_positions((5, 5), 8, class_token=False).reshape(5, 5, 8)
    np.testing.assert_array_equal(table, square[:2])
    assert (table[0, :, 4:] == table[0, :1, 4:]).all()
    assert (table[:, 0, :4] == table[:1, 0, :4]).all()


def test_resized_positions(golden: Golden) -> None:
    """1e-5 of PyTorch's bicubic: TensorFlow's misses by 1.6e-2."""
    arrays = golden("positions_resized")
    found = resize_positions(arrays["source"][0], (4, 4), (6, 6))
    np.testing.assert_allclose(found, arrays["resized"][0], rtol=0, atol=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize("target", [(48, 48), (16, 72), (40, 24)])
@pytest.mark.parametrize("class_token", [True, False])
def test_resized_encoder(target: tuple[int, int], class_token: bool) -> None:
    """1e-5 of PyTorch's own interpolation, rectangles and downwards too; everything else is the same."""
    torch = pytest.importorskip("torch")
    encoder = tiny(class_token=class_token, positions="learned")
    other = encoder.resized(target)
    table = encoder.positions.numpy()
    grid = torch.tensor(table[int(class_token) :]).reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    size = (target[0] // 8, target[1] // 8)
    resized = torch.nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    expected = resized.permute(0, 2, 3, 1).reshape(-1, 16).numpy()
    found = other.positions.numpy()
    np.testing.assert_allclose(found[int(class_token) :], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[: int(class_token)], table[: int(class_token)])
    assert other(images(1, *target, 3)).shape == (1, int(class_token) + size[0] * size[1], 16)


def parameters(model: keras.Model) -> int:
    return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.parametrize(("patch", "width", "depth"), [(8, 16, 1), (4, 24, 3)])
def test_parameters_by_arithmetic(patch: int, width: int, depth: int) -> None:
    """What the next test relies on."""
    assert parameters(tiny(patch_size=patch, width=width, depth=depth)) == counted(patch, width, depth)


@pytest.mark.parametrize("name", ENCODER_SIZES)
def test_parameters_of_all_presets(name: str) -> None:
    size = ENCODER_SIZES[name]
    assert counted(size.patch_size, size.width, size.depth) == PARAMETERS[name]


@pytest.mark.parametrize("name", [n if "tiny" in n else pytest.param(n, marks=pytest.mark.slow) for n in ENCODER_SIZES])
def test_parameters_of_all_presets_as_built(name: str) -> None:
    assert parameters(ViTEncoder.from_preset(name)) == PARAMETERS[name]


BASE_MODELS = [(LUT, 124_254_976), (MAE, 111_655_680)]  # MAE has not the two heads of 768·4096·2 + 2·4096


@pytest.mark.medium
@pytest.mark.parametrize(("method", "expected"), BASE_MODELS)
def test_parameters_of_a_base_model(method: type, expected: int) -> None:
    """LUT's as published: one block of the encoder is built, eleven are counted."""
    model = method(ViTEncoder(width=768, depth=1, heads=12))
    assert parameters(model) + counted(16, 768, 12) - counted(16, 768, 1) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("method", "expected"), BASE_MODELS)
def test_parameters_of_a_base_model_as_built(method: type, expected: int) -> None:
    assert parameters(method.from_preset("vit_base_patch16")) == expected


def test_without_class_token() -> None:
    """The tokens are the patches; the class token's vector cannot be had, and pre-training wants one."""
    encoder = tiny(class_token=False)
    x = images(2, 32, 32, 3)
    assert encoder(x).shape == (2, 16, 16)
    np.testing.assert_allclose(encoder.features(x), np.mean(encoder(x), axis=1), atol=1e-6)
    with pytest.raises(ValueError, match="needs a class token"):
        encoder.features(x, pooling="cls")
    with pytest.raises(ValueError, match="class_token=False"):
        MAE(encoder)


def test_learned_positions_are_trained() -> None:
    fixed, learned = tiny(depth=1), tiny(depth=1, positions="learned")
    assert len(learned.trainable_variables) == len(fixed.trainable_variables) + 1
    assert 0 < np.std(learned.positions.numpy()) < 0.03


def test_chosen_patches_are_those_of_the_whole() -> None:
    """1e-6: embedding after choosing is choosing after embedding."""
    encoder, x = tiny(), images(2, 32, 32, 3)
    ids = np.array([[3, 0, 15], [7, 8, 2]], "int32")
    np.testing.assert_allclose(
        encoder.embed(x, ids), np.take_along_axis(np.asarray(encoder.embed(x)), ids[..., None], axis=1), atol=1e-6
    )
    whole = np.asarray(encoder.add_positions(encoder.embed(x)))
    chosen = np.asarray(encoder.add_positions(encoder.embed(x, ids), ids))
    np.testing.assert_allclose(chosen[:, 1:], np.take_along_axis(whole[:, 1:], ids[..., None], axis=1), atol=1e-6)


def test_traces() -> None:
    """The last layer's tokens are what the final norm gets, and attention rows sum to 1."""
    encoder, x = tiny(), images(2, 32, 32, 3)
    tokens = encoder.add_positions(encoder.embed(x))
    trace = encoder.blocks(tokens, layers=(0, -1), attention=(1,))
    np.testing.assert_allclose(encoder.norm(trace.layers[1]), trace.tokens, atol=1e-6)
    np.testing.assert_allclose(encoder.blocks(tokens), trace.tokens, atol=1e-6)
    assert trace.attention[0].shape == (2, 2, 17, 17)
    np.testing.assert_allclose(np.sum(trace.attention[0], axis=-1), 1.0, atol=1e-5)
    assert encoder.blocks(tokens, layers=(0,)).attention == []
    with pytest.raises(IndexError):
        encoder.blocks(tokens, layers=(3,))


def test_asking_for_attention_changes_no_token() -> None:
    """Bitwise, and each map is that of the block asked for, in the order asked."""
    encoder, x = tiny(), images(2, 32, 32, 3)
    tokens = encoder.add_positions(encoder.embed(x))
    trace = encoder.blocks(tokens, attention=(-1, 0))
    np.testing.assert_array_equal(trace.tokens, encoder.blocks(tokens))
    first = encoder.block_layers[0]
    np.testing.assert_array_equal(first(tokens), first(tokens, return_attention=True)[0])
    np.testing.assert_array_equal(trace.attention[1], first(tokens, return_attention=True)[1])
    assert not np.array_equal(trace.attention[0], trace.attention[1])


@pytest.mark.parametrize(
    "settings", [{"image_size": 30}, {"width": 18}, {"heads": 3}, {"positions": "rotary"}, {"image_size": 4}]
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is not a multiple|not known"):
        tiny(**settings)
