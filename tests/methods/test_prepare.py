"""`prepare`, and what a model refuses. Guards which view is coloured, and that parts which do not fit say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from networks import tiny_encoder, tiny_head, tiny_lut, tiny_mae

from lut_tf import LUT, PixelDecoder, ViTEncoder
from lut_tf.models.colour import Colour, apply_colour
from lut_tf.models.preprocess import normalise


@pytest.fixture(scope="module")
def model() -> LUT:
    return tiny_lut()


def batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    views = {name: random.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8) for name in ("view1", "view2")}
    colour = np.array([Colour(brightness=0.5), Colour(hue=0.1, choice=1.0)], "float32")
    return {**views, "colour": colour, "noise": random.random((2, 16), dtype="float32")}


def test_view_2_is_coloured_and_view_1_is_not(model: LUT) -> None:
    given = batch()
    prepared = model.prepare(given)
    np.testing.assert_array_equal(prepared["view1"], normalise(given["view1"]))
    np.testing.assert_array_equal(prepared["view2"], normalise(apply_colour(given["view2"], given["colour"])))
    assert np.abs(np.asarray(prepared["view2"]) - np.asarray(normalise(given["view2"]))).max() > 0.1


def test_float_views_stay_as_they_are(model: LUT) -> None:
    given = {**batch(), "view1": np.ones((2, 16, 16, 3), "float32"), "view2": np.zeros((2, 16, 16, 3), "float32")}
    prepared = model.prepare(given)
    for name in given:
        assert prepared[name] is given[name]


def test_noise_for_another_number_of_patches_is_refused(model: LUT) -> None:
    with pytest.raises(ValueError, match=r"noise of 3 numbers .* needs 16: give noise_length"):
        model.compute_losses({**batch(), "noise": np.zeros((2, 3), "float32")})


@pytest.mark.parametrize("grid, patch, width", [((2, 2), 4, 16), ((4, 4), 2, 16), ((4, 4), 4, 32)])
def test_a_decoder_for_another_encoder_is_refused(grid: tuple[int, int], patch: int, width: int) -> None:
    with pytest.raises(ValueError, match="decoder made for"):
        tiny_mae(decoder=PixelDecoder(grid, patch, width, 16, 1, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"projector": tiny_head(width=32, name="projector")},
        {"momentum": 1.5},
        {"temperature": 0.0},
        {"context_weight": -1.0},
        {"context_distance": "cosine"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_do_not_fit_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tiny_lut(**wrong)


@pytest.mark.parametrize("wrong", [{"heads": 0}, {"patch_size": 0}, {"depth": -1}, {"image_size": (8, 8, 8)}])
def test_an_encoder_of_impossible_size_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tiny_encoder(**wrong)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean vit_small_patch16"):
        ViTEncoder.from_preset("vit_smal_patch16")


def test_the_remedy_for_a_mask_ratio_is_accepted() -> None:
    encoder = tiny_encoder(image_size=12)
    with pytest.raises(ValueError, match=r"mask_ratio=0.9 leaves none of 9 patches visible: give a smaller mask_ratio"):
        tiny_mae(encoder, mask_ratio=0.9)
    assert tiny_mae(encoder, mask_ratio=0.88).visible == 1
