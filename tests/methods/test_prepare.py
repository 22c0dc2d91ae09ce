"""`prepare`, and what a model refuses. Guards which view is coloured, and that parts which do not fit say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lut_tf import LUT, MAE, MLPHead, PixelDecoder, ViTEncoder
from lut_tf.models.colour import Colour, apply_colour
from lut_tf.models.preprocess import normalise


def parts() -> dict[str, Any]:
    encoder = ViTEncoder(8, 4, 16, 1, 2)
    heads = {name: MLPHead(16, 16, name=name) for name in ("projector", "predictor")}
    return {"encoder": encoder, "decoder": PixelDecoder(encoder.grid, 4, 16, 16, 1, 2), **heads}


def batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    views = {name: random.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8) for name in ("view1", "view2")}
    colour = np.array([Colour(brightness=0.5), Colour(hue=0.1, choice=1.0)], "float32")
    return {**views, "colour": colour, "noise": random.random((2, 4), dtype="float32")}


def test_view_2_is_coloured_and_view_1_is_not() -> None:
    given = batch()
    prepared = LUT(**parts(), mask_ratio=0.5).prepare(given)
    np.testing.assert_array_equal(prepared["view1"], normalise(given["view1"]))
    np.testing.assert_array_equal(prepared["view2"], normalise(apply_colour(given["view2"], given["colour"])))
    assert np.abs(np.asarray(prepared["view2"]) - np.asarray(normalise(given["view2"]))).max() > 0.1


def test_float_views_stay_as_they_are() -> None:
    given = {**batch(), "view1": np.ones((2, 8, 8, 3), "float32"), "view2": np.zeros((2, 8, 8, 3), "float32")}
    prepared = LUT(**parts(), mask_ratio=0.5).prepare(given)
    for name in given:
        assert prepared[name] is given[name]


def test_noise_for_another_number_of_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise of 3 numbers .* needs 4: give noise_length"):
        LUT(**parts(), mask_ratio=0.5).compute_losses({**batch(), "noise": np.zeros((2, 3), "float32")})


@pytest.mark.parametrize("grid, patch, width", [((4, 4), 4, 16), ((2, 2), 2, 16), ((2, 2), 4, 32)])
def test_a_decoder_for_another_encoder_is_refused(grid: tuple[int, int], patch: int, width: int) -> None:
    with pytest.raises(ValueError, match="decoder made for"):
        MAE(ViTEncoder(8, 4, 16, 1, 2), PixelDecoder(grid, patch, width, 16, 1, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"projector": MLPHead(32, 16, name="projector")},
        {"momentum": 1.5},
        {"temperature": 0.0},
        {"context_weight": -1.0},
        {"context_distance": "cosine"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_do_not_fit_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LUT(**{**parts(), "mask_ratio": 0.5, **wrong})


@pytest.mark.parametrize("wrong", [{"heads": 0}, {"patch_size": 0}, {"depth": -1}, {"image_size": (8, 8, 8)}])
def test_an_encoder_of_impossible_size_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ViTEncoder(**{"image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, **wrong})


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean vit_small_patch16"):
        ViTEncoder.from_preset("vit_smal_patch16")


def test_the_remedy_for_a_mask_ratio_is_accepted() -> None:
    encoder = ViTEncoder(12, 4, 16, 1, 2)
    with pytest.raises(ValueError, match="up to 0.88"):
        MAE(encoder, mask_ratio=0.9)
    assert MAE(encoder, mask_ratio=0.88).visible == 1
