from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_helpers import small_encoder

from lut_tf.export import ExportError, to_saved_model
from lut_tf.export.signature import float32_copy
from lut_tf.models.encoder import ViTEncoder

# What a server does: TensorFlow and the directory, nothing of Keras or of this package.
FOREIGN = """
import sys

for name in ("keras", "tf_keras", "lut_tf"):
    sys.modules[name] = None  # importing it raises ImportError

import numpy as np
import tensorflow as tf

for folder in sys.argv[1:]:
    images = np.load(folder + ".npy")
    model = tf.saved_model.load(folder)
    (signature,) = model.signatures.values()
    for size in (1, 2, 7):
        outputs = signature(pixel_values=tf.constant(images[:size]))
        np.savez(f"{folder}.{size}.npz", **{name: value.numpy() for name, value in outputs.items()})
"""


def test_a_process_with_tensorflow_alone_serves_it(encoder: ViTEncoder, rectangle: ViTEncoder, tmp_path: Path) -> None:
    encoders = {str(tmp_path / "square"): encoder, str(tmp_path / "rectangle"): rectangle}
    images = {}
    for folder, each in encoders.items():
        report = to_saved_model(each, folder)
        assert list(report.differences) == ["tokens", "cls", "pooled"] and max(report.differences.values()) < 1e-5
        images[folder] = np.random.default_rng(1).normal(size=(7, *each.image_size, 3)).astype("float32")
        np.save(f"{folder}.npy", images[folder])
    subprocess.run([sys.executable, "-c", FOREIGN, *encoders], check=True, cwd=tmp_path)
    for folder, each in encoders.items():
        for size in (1, 2, 7):
            batch = images[folder][:size]
            with np.load(f"{folder}.{size}.npz") as outputs:
                assert set(outputs) == {"tokens", "cls", "pooled"}
                np.testing.assert_allclose(outputs["tokens"], each(batch), atol=1e-5)
                np.testing.assert_allclose(outputs["cls"], each.features(batch, "cls"), atol=1e-5)
                np.testing.assert_allclose(outputs["pooled"], each.features(batch), atol=1e-5)


# Its fusion of LayerNorm wants the axis of a mean as a list, and the models give a number.
def test_openvino_converts_it(encoder: ViTEncoder, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    to_saved_model(encoder, tmp_path / "model")
    converted = openvino.convert_model(str(tmp_path / "model"))
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(compiled({"pixel_values": images})["tokens"], encoder(images), atol=1e-4)


def test_mixed_precision_without_class_token(tmp_path: Path) -> None:
    report = to_saved_model(small_encoder(dtype="mixed_float16", class_token=False, depth=1), tmp_path / "model")
    assert list(report.differences) == ["tokens", "pooled"] and max(report.differences.values()) < 1e-5


def test_only_an_earlier_export_is_replaced(encoder: ViTEncoder, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    to_saved_model(encoder, target)
    note = json.loads((target / "assets.extra" / "lut_tf.json").read_text())
    weights = sum(variable.value.shape.num_elements() for variable in encoder.variables) * 4
    assert weights < (target / "variables" / "variables.data-00000-of-00001").stat().st_size < 1.1 * weights
    assert note["image_size"] == [32, 32] and note["std"] == [0.229, 0.224, 0.225]
    before = (target / "variables" / "variables.index").stat().st_ino
    to_saved_model(encoder, target)
    assert (target / "variables" / "variables.index").stat().st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    (target / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        to_saved_model(encoder, target)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        to_saved_model(encoder, tmp_path / "file")
    assert (target / "thesis.tex").exists()


def test_a_wrong_file_never_appears(encoder: ViTEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(encoder: ViTEncoder) -> ViTEncoder:
        copy = float32_copy(encoder)
        copy.norm.beta.assign_add(np.full(copy.width, np.nan, "float32"))
        return copy

    monkeypatch.setattr("lut_tf.export.saved_model.float32_copy", wrong)
    with pytest.raises(ExportError, match="tokens differs by nan"):
        to_saved_model(encoder, tmp_path / "model")
    assert not list(tmp_path.iterdir())
