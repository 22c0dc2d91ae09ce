"""Reconstructions and curves: what the pictures show is what was computed. Guards `lut_tf.analysis`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from lut_tf import LUT, MLPHead, PixelDecoder, ViTEncoder
from lut_tf.analysis.curves import draw_curves
from lut_tf.analysis.reconstruction import HIDDEN, _hidden, draw_reconstructions
from lut_tf.models.layers import patchify


def model_and_batch(norm_pix_loss: bool) -> tuple[LUT, dict[str, tf.Tensor]]:
    encoder = ViTEncoder((8, 12), 4, 16, 1, 2)
    heads = {name: MLPHead(16, 16, name=name) for name in ("projector", "predictor")}
    model = LUT(encoder, PixelDecoder(encoder.grid, 4, 16, 16, 1, 2), 0.5, norm_pix_loss, **heads)
    random = np.random.default_rng(0)
    views = {name: random.normal(size=(3, 8, 12, 3)).astype("float32") for name in ("view1", "view2")}
    return model, {**views, "noise": random.random((3, 6), dtype="float32")}


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
            if norm_pix_loss:
                own = original[b][masked]
                deviation = np.sqrt(own.var(axis=1, ddof=1, keepdims=True) + 1e-6)
                predicted = predicted * deviation + own.mean(axis=1, keepdims=True)
            np.testing.assert_allclose(patches[b][masked], predicted, atol=1e-5)


def test_masked_patches_are_hidden_in_a_picture() -> None:
    images = np.ones((1, 4, 6, 3))
    hidden = _hidden(images, np.array([[0, 1, 0, 0, 0, 1]]), (2, 3))
    np.testing.assert_array_equal(hidden[0, :2, 2:4], np.broadcast_to(HIDDEN, (2, 2, 3)))
    np.testing.assert_array_equal(hidden[0, 2:, 4:], np.broadcast_to(HIDDEN, (2, 2, 3)))
    assert (hidden[0, :, :2] == 1).all()


def test_pictures_are_files_of_a_sensible_size(tmp_path: Path) -> None:
    model, batch = model_and_batch(True)
    draw_reconstructions(model, batch, tmp_path / "new" / "reconstruction.png", "three images")
    lines = [{"epoch": i, "loss": 1 / i, "reconstruction": 0.5 / i} for i in range(1, 4)]
    lines[1]["probe_knn"] = 0.5
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", {"random encoder": {"knn": 0.4, "linear": 0.6}})
    for name, least in (("new/reconstruction.png", (400, 500)), ("curves.png", (300, 800))):
        height, width, _ = tf.io.decode_png((tmp_path / name).read_bytes()).shape
        assert height >= least[0]
        assert width >= least[1]
