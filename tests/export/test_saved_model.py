from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_helpers import small_encoder

from lut_tf.export import ExportError, Report, to_saved_model
from lut_tf.export.signature import float32_copy
from lut_tf.models.encoder import ViTEncoder

# What a server does: TensorFlow and the directory, nothing of Keras or of this package.
FOREIGN = """
import sys

for name in ("keras", "tf_keras", "lut_tf"):
    sys.modules[name] = None  # importing it raises ImportError

import numpy as np
import tensorflow as tf

folder, images = sys.argv[1], np.load("images.npy")
model = tf.saved_model.load(folder)
(signature,) = model.signatures.values()
for size in (1, 2, 7):
    outputs = signature(pixel_values=tf.constant(images[:size]))
    np.savez(f"{size}.npz", **{name: value.numpy() for name, value in outputs.items()})
"""


@pytest.mark.medium
def test_a_process_with_tensorflow_alone_serves_it(
    encoder: ViTEncoder, saved_model_report: Report, tmp_path: Path
) -> None:
    images = np.random.default_rng(1).normal(size=(7, 32, 32, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", FOREIGN, str(saved_model_report.path)], check=True, cwd=tmp_path)
    for size in (1, 2, 7):
        batch = images[:size]
        with np.load(tmp_path / f"{size}.npz") as outputs:
            assert set(outputs) == {"tokens", "cls", "pooled"}
            np.testing.assert_allclose(outputs["tokens"], encoder(batch), atol=1e-5)
            np.testing.assert_allclose(outputs["cls"], encoder.features(batch, "cls"), atol=1e-5)
            np.testing.assert_allclose(outputs["pooled"], encoder.features(batch), atol=1e-5)


def test_the_report_and_what_lies_in_the_directory(encoder: ViTEncoder, saved_model_report: Report) -> None:
    """Every weight once, and a note for those who have the directory alone."""
    folder = saved_model_report.path
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert list(saved_model_report.differences) == ["tokens", "cls", "pooled"]
    assert max(saved_model_report.differences.values()) < 1e-5
    weights = sum(variable.value.shape.num_elements() for variable in encoder.variables) * 4
    assert weights < (folder / "variables" / "variables.data-00000-of-00001").stat().st_size < 1.1 * weights
    note = json.loads((folder / "assets.extra" / "lut_tf.json").read_text())
    assert note["image_size"] == [32, 32] and note["std"] == [0.229, 0.224, 0.225]


# Its fusion of LayerNorm wants the axis of a mean as a list, and the models give a number.
def test_openvino_converts_it(encoder: ViTEncoder, saved_model_report: Report) -> None:
    openvino = pytest.importorskip("openvino")
    converted = openvino.convert_model(str(saved_model_report.path))
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(compiled({"pixel_values": images})["tokens"], encoder(images), atol=1e-4)


@pytest.mark.medium
def test_a_rectangle_in_mixed_precision_without_class_token(tmp_path: Path) -> None:
    encoder = small_encoder(dtype="mixed_float16", class_token=False, depth=1, image_size=(32, 48))
    report = to_saved_model(encoder, tmp_path / "model")
    assert list(report.differences) == ["tokens", "pooled"] and max(report.differences.values()) < 1e-5


@pytest.mark.medium
def test_only_an_empty_directory_or_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    encoder, target = small_encoder(depth=1), tmp_path / "model"
    target.mkdir()
    before = target.stat().st_ino
    for _ in range(2):
        to_saved_model(encoder, target)
        assert (target / "saved_model.pb").is_file() and target.stat().st_ino != before
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        before = target.stat().st_ino

    (target / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        to_saved_model(encoder, target)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        to_saved_model(encoder, tmp_path / "file")
    assert (target / "thesis.tex").exists()


@pytest.mark.medium
def test_a_wrong_file_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(encoder: ViTEncoder) -> ViTEncoder:
        copy = float32_copy(encoder)
        copy.norm.beta.assign_add(np.full(copy.width, np.nan, "float32"))
        return copy

    monkeypatch.setattr("lut_tf.export.saved_model.float32_copy", wrong)
    with pytest.raises(ExportError, match="tokens differs by nan"):
        to_saved_model(small_encoder(depth=1), tmp_path / "model")
    assert not list(tmp_path.iterdir())
