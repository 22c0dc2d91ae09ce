"""Reconstructions and curves: what the pictures show is what was computed. Guards `lut_tf.analysis`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from networks import tiny_batch, tiny_encoder, tiny_lut
from PIL import Image

from lut_tf import LUT
from lut_tf.analysis.curves import draw_curves
from lut_tf.analysis.reconstruction import HIDDEN, draw_reconstructions
from lut_tf.models.layers import patchify


def model_and_batch(norm_pix_loss: bool) -> tuple[LUT, dict[str, np.ndarray]]:
    model = tiny_lut(tiny_encoder(image_size=(8, 12)), mask_ratio=0.5, norm_pix_loss=norm_pix_loss)
    return model, tiny_batch(model, 3)


def test_reconstructions_keep_the_visible_patches_and_paint_the_masked_ones() -> None:
    """Visible patches are the input's to the bit; masked ones are the prediction, at its place in the image."""
    for norm_pix_loss in (False, True):
        model, batch = model_and_batch(norm_pix_loss)
        pictures = {name: np.asarray(x) for name, x in model.reconstruct(batch).items()}
        outputs = model(model.prepare(batch), training=False)
        patches, original = (np.asarray(patchify(pictures[name], 4)) for name in ("reconstruction", "view1"))
        for b in range(3):
            visible = np.asarray(outputs["plan1"].visible[b])
            masked = np.asarray(outputs["plan1"].masked[b])
            assert pictures["mask"][b][visible].sum() == 0
            assert pictures["mask"][b][masked].all()
            np.testing.assert_array_equal(patches[b][visible], original[b][visible])
            seen = np.zeros(6)
            seen[np.asarray(outputs["plan2"].visible[b])] = 1
            np.testing.assert_array_equal(pictures["mask2"][b], 1 - seen)
            predicted = np.asarray(outputs["prediction"][b, len(visible) :])
            assert ("unaided" in pictures) == norm_pix_loss
            if norm_pix_loss:
                known = original[b][visible]
                spread = np.sqrt(known.var(axis=1, ddof=1) + 1e-6).mean()
                unaided = np.asarray(patchify(pictures["unaided"], 4))[b]
                np.testing.assert_allclose(unaided[masked], predicted * spread + known.mean(), atol=1e-5)
                np.testing.assert_array_equal(unaided[visible], known)
                own = original[b][masked]
                deviation = np.sqrt(own.var(axis=1, ddof=1, keepdims=True) + 1e-6)
                predicted = predicted * deviation + own.mean(axis=1, keepdims=True)
            np.testing.assert_allclose(patches[b][masked], predicted, atol=1e-5)


@pytest.mark.medium
def test_gray_images_are_painted_gray(tmp_path: Path) -> None:
    model, batch = model_and_batch(False)
    gray = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 1), dtype=np.uint8).repeat(3, axis=3)
    for images, expected in ((gray, True), (gray + np.array([0, 0, 3], np.uint8), False)):
        draw_reconstructions(model, {"view1": images, "view2": gray, "noise": batch["noise"]}, tmp_path / "drawn.png")
        colours = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
        slate = np.abs(colours - np.round(255 * HIDDEN)).max(axis=-1) <= 60  # its edges are smoothed
        assert (np.ptp(colours, axis=-1)[~slate].max() <= 1) == expected


def test_pictures_are_files_of_a_sensible_size(tmp_path: Path) -> None:
    model, batch = model_and_batch(True)
    drawn = tmp_path / "new" / "reconstruction.png"
    draw_reconstructions(model, batch, drawn, "three images")
    colours = np.asarray(Image.open(drawn).convert("RGB"))
    slate = np.all(np.abs(colours - np.round(255 * HIDDEN)) <= 1, axis=-1).mean()
    assert 0.05 < slate < 0.5  # two columns of six are half hidden
    lines = [{"epoch": i, "loss": 1 / i, "reconstruction": 0.5 / i} for i in range(1, 4)]
    lines[1]["probe_knn"] = 0.5
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", {"random encoder": {"knn": 0.4, "linear": 0.6}})
    for name, least in (("new/reconstruction.png", (400, 500)), ("curves.png", (300, 800))):
        height, width, _ = tf.io.decode_png((tmp_path / name).read_bytes()).shape
        assert height >= least[0]
        assert width >= least[1]
