"""SimMIM against the numbers of the published reference program (float64 there, float32 here), and its own laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from helpers import golden_config, gradients, group
from networks import tiny_batch, tiny_decoder, tiny_encoder, tiny_simmim

from lut_tf import SimMIM, ViTEncoder
from lut_tf.config import MethodConfig
from lut_tf.interop import load_encoder, load_reference, to_reference
from lut_tf.methods.masking import plan_mask, unit_plan
from lut_tf.training.optimizer import adamw

Golden = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def arrays(golden: Golden) -> dict[str, np.ndarray]:
    return golden("simmim_tiny")


def golden_simmim(arrays: dict[str, np.ndarray], **settings: Any) -> SimMIM:
    config = golden_config(arrays)
    settings = {"mask_unit": config["mask_unit"], "mask_ratio": config["mask_ratio"], **settings}
    return load_reference(group(arrays, "init/"), method="simmim", num_heads=config["num_heads"], **settings)


def golden_batch(arrays: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Noise whose ten smallest numbers are the file's masked units."""
    units = arrays["mask"][:, ::2, ::2].reshape(len(arrays["mask"]), -1)
    noise = np.random.default_rng(0).random(units.shape) * 0.5 + 0.5 * (1 - units)
    return {"view1": tf.constant(arrays["image"]), "noise": tf.constant(noise.astype("float32"))}


def test_loss_and_gradients(arrays: dict[str, np.ndarray]) -> None:
    """1e-5 relative, and every gradient within 1e-4 of its norm: guards masking, token, positions, order of pixels."""
    model, batch = golden_simmim(arrays), golden_batch(arrays)
    losses, found = gradients(model, batch)
    np.testing.assert_allclose(losses["total"], arrays["loss"], rtol=1e-5)
    expected = group(arrays, "grad/")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.linalg.norm(found[name] - value) <= 1e-4 * np.linalg.norm(value), name
    (plan,) = model.plans(batch["noise"], model.places)
    np.testing.assert_array_equal(np.asarray(plan_mask(plan)), arrays["mask"].reshape(4, -1))


def test_the_reference_goes_in_and_out(arrays: dict[str, np.ndarray]) -> None:
    """Bitwise, names and shapes included; and its encoder alone is an encoder."""
    weights = group(arrays, "init/")
    found = to_reference(golden_simmim(arrays))
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    alone = load_encoder(weights, num_heads=4)
    np.testing.assert_array_equal(alone.norm.gamma, weights["encoder.norm.weight"])


def test_an_encoder_alone_says_what_stays_fresh(arrays: dict[str, np.ndarray]) -> None:
    weights = {name: x for name, x in group(arrays, "init/").items() if "decoder" not in name and "mask" not in name}
    with pytest.warns(UserWarning, match="does not hold the decoder: they stay"):
        load_reference(weights, method="simmim", num_heads=4, mask_unit=8)


@pytest.mark.parametrize(
    ("size", "patch", "unit", "ratio", "masked"),
    [(224, 16, 32, 0.6, 30), (224, 16, 32, 0.44, 22), ((32, 64), 4, 16, 0.5, 4), (32, 8, 8, 0.01, 1)],
)
def test_whole_units_are_masked(size: Any, patch: int, unit: int, ratio: float, masked: int) -> None:
    """ceil(units · ratio) squares; rectangles too."""
    places = MethodConfig(name="simmim", mask_ratio=ratio, mask_unit=unit).places(size, patch)
    plan = unit_plan(np.random.default_rng(1).random((2, places.total)).astype("float32"), places)
    side, (rows, columns) = unit // patch, (places.rows, places.columns)
    mask = np.asarray(plan_mask(plan)).reshape(2, rows, side, columns, side)
    units = mask.mean(axis=(2, 4))
    assert set(np.unique(units)) <= {0.0, 1.0}
    assert (units.sum(axis=(1, 2)) == masked).all()


def test_a_masked_patch_is_not_seen() -> None:
    """Exact: what lies under the mask changes no prediction, and what is visible changes them."""
    model = tiny_simmim()
    batch = tiny_batch(model)
    outputs = model(batch)
    mask = np.asarray(plan_mask(outputs["plan1"])).reshape(-1, 4, 1, 4, 1, 1)
    pixels = np.broadcast_to(mask, (4, 4, 4, 4, 4, 3)).reshape(4, 16, 16, 3)
    same = model({**batch, "view1": np.where(pixels > 0, 7.0, batch["view1"]).astype("float32")})
    np.testing.assert_array_equal(outputs["prediction"], same["prediction"])
    other = model({**batch, "view1": np.where(pixels > 0, batch["view1"], 7.0).astype("float32")})
    assert np.abs(outputs["prediction"] - other["prediction"]).max() > 1e-3


def test_drop_path_is_the_batchs() -> None:
    """In training what the noise behind the masks' says is left out, the same each time; elsewhere nothing is."""
    encoder = tiny_encoder(positions="learned", depth=2)
    dropping, whole = tiny_simmim(encoder, drop_path=0.9), tiny_simmim(encoder)
    whole.decoder.set_weights(dropping.decoder.get_weights())
    assert (whole.noise_length, dropping.noise_length) == (4, 8)
    batch = tiny_batch(dropping)
    batch["noise"][:, 4:] = [[0.0, 0.0, 0.0, 0.95]] * 2 + [[0.0, 0.0, 0.95, 0.0]] * 2
    expected = whole({**batch, "noise": batch["noise"][:, :4]}, training=True)["prediction"]
    np.testing.assert_array_equal(dropping(batch, training=False)["prediction"], expected)
    found = dropping(batch, training=True)["prediction"]
    np.testing.assert_array_equal(found, dropping(batch, training=True)["prediction"])
    assert (np.abs(found - expected).max(axis=(1, 2)) > 1e-4).all()
    batch["noise"][:2, 4:] = batch["noise"][2:, 4:]
    moved = dropping(batch, training=True)["prediction"]
    np.testing.assert_array_equal(moved[2:], found[2:])
    assert (np.abs(moved - found)[:2].max(axis=(1, 2)) > 1e-5).all()


def test_what_is_decayed() -> None:
    """Matrices and the mask token; neither positions nor class token. It survives saving."""
    model = tiny_simmim()
    optimizer = adamw(1e-3, model=model)
    decayed = {v.name for v in model.trainable_variables} - {
        v.name for v in optimizer.undecayed(model.trainable_variables)
    }
    assert decayed == {"kernel", "mask_token"}
    assert type(optimizer).from_config(optimizer.get_config()).undecayed_names == model.undecayed_names


def test_first_weights() -> None:
    """Truncated normal, 0.02; what a block adds is divided by √(2 · its number); biases 0; no two matrices alike."""
    encoder = SimMIM.make_encoder(image_size=32, patch_size=4, width=96, depth=3, heads=4)
    assert isinstance(encoder, ViTEncoder) and encoder.position_kind == "learned"
    kernels = {v.path.partition("/")[2]: v.numpy() for v in encoder.variables if v.name in ("kernel", "positions")}
    for path, kernel in kernels.items():
        layer = int(path[5]) + 1 if path.startswith("block") else 0
        added = path.endswith(("projection/kernel", "fc2/kernel"))
        scale = 1 / np.sqrt(2 * layer) if added else 1.0
        np.testing.assert_allclose(
            kernel.std(), 0.0176 * scale, rtol=0.1, err_msg=path
        )  # of what is left at 2 deviations
        assert np.abs(kernel).max() <= 0.0401 * scale, path
    assert len({kernel.ravel()[0] for kernel in kernels.values()}) == len(kernels)
    assert not any(v.numpy().any() for v in encoder.variables if v.name == "bias")


def test_a_decoder_of_another_kind_is_refused() -> None:
    encoder = tiny_encoder(positions="learned")
    with pytest.raises(
        ValueError, match="decoder is a PixelDecoder, and SimMIM has a LinearDecoder: give one, or none"
    ):
        tiny_simmim(encoder, decoder=tiny_decoder(encoder))


def test_a_picture_is_pasted_of_pixels() -> None:
    """Visible patches are the input's; masked ones the prediction as it is."""
    model = tiny_simmim()
    batch = tiny_batch(model)
    pictures = {name: np.asarray(x) for name, x in model.reconstruct(batch).items()}
    assert "unaided" not in pictures
    mask = pictures["mask"].reshape(-1, 4, 1, 4, 1, 1).repeat(4, 2).repeat(4, 4).reshape(4, 16, 16, 1) > 0
    np.testing.assert_array_equal(np.where(mask, 0, pictures["reconstruction"]), np.where(mask, 0, batch["view1"]))
    loss = np.abs(np.where(mask, pictures["reconstruction"] - batch["view1"], 0)).sum() / mask.sum() / 3
    np.testing.assert_allclose(loss, float(model.compute_losses(batch)["total"]), rtol=1e-5)
