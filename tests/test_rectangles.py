"""`encoder.image_size [height, width]`: a whole run, its pictures, its probes and its files."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from matplotlib.image import imread
from runs import lines, small

from lut_tf.config import from_yaml, to_yaml, validate
from lut_tf.export import export_encoder
from lut_tf.tasks.pretrain import pretrain


@pytest.mark.parametrize("size", ["[16,8]", "[8, 16]", "(16, 8)"])
def test_a_rectangle_is_read_and_written(size: str, tmp_path: Path) -> None:
    if size.startswith("("):
        config = small(tmp_path, encoder__image_size=(16, 8))
    else:
        config = from_yaml(f"encoder: {{image_size: {size}, patch_size: 4}}\nviews: {{padding: 2}}\n")
    validate(config)
    assert from_yaml(to_yaml(config)).encoder.image_size == config.encoder.image_size
    height, width = config.encoder.grid
    assert (height, width) in ((8, 4), (4, 2), (2, 4)) and config.encoder.patches == height * width


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((16, 5), r"encoder\.image_size=\[16, 5\] is not a multiple of the patch size 2: give .* \[16,4\]"),
        ((16, 8, 3), r"encoder\.image_size=\[16, 8, 3\] is of the wrong type"),
        ((16, 0), r"encoder\.image_size=\[16, 0\] is out of range"),
        ((16, 4), r"views\.padding=2 cannot be reflected in an image of encoder\.image_size=\[16, 4\]"),
    ],
)
def test_a_wrong_rectangle_is_refused(size: tuple[int, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        validate(small(tmp_path, encoder__image_size=size, views__padding=2))


@pytest.mark.slow
def test_a_run_on_rectangles(tmp_path: Path) -> None:
    """Trained, probed, drawn and exported; served files take the rectangle and no other."""
    less = {"probe__before_and_after": False, "logging__tensorboard": False}
    pretrain(small(tmp_path / "run", epochs=1, encoder__image_size=(16, 8), views__padding=2, **less))
    (line,) = lines(tmp_path / "run")
    assert {"reconstruction", "context", "probe_knn"} <= line.keys()
    assert imread(next((tmp_path / "run" / "pictures").glob("*.png"))).ndim == 3
    encoder = keras.saving.load_model(tmp_path / "run" / "encoder.keras")
    assert encoder.image_size == (16, 8)
    (report,) = export_encoder(tmp_path / "run", "onnx", tmp_path)
    session = onnxruntime.InferenceSession(report.path)
    images = np.random.default_rng(0).normal(size=(3, 16, 8, 3)).astype("float32")
    (pooled,) = session.run(["pooled"], {"pixel_values": images})
    np.testing.assert_allclose(pooled, encoder.features(images), atol=1e-4)
    with pytest.raises(Exception, match="pixel_values"):
        session.run(["pooled"], {"pixel_values": images.transpose(0, 2, 1, 3)})
