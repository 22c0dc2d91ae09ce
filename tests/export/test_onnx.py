from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export_helpers import small_encoder

from lut_tf.export import ExportError, Report, to_onnx
from lut_tf.export.onnx import OPSET
from lut_tf.export.signature import float32_copy
from lut_tf.models.encoder import ViTEncoder


@pytest.fixture
def file(onnx_report: Report) -> Path:
    return onnx_report.path


def batch(encoder: ViTEncoder, size: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(size, *encoder.image_size, 3)).astype("float32")


@pytest.mark.medium
def test_the_report_is_the_files(onnx_report: Report) -> None:
    assert [path.name for path in onnx_report.path.parent.iterdir()] == ["encoder.onnx"]
    assert onnx_report.size == onnx_report.path.stat().st_size and onnx_report.batch_sizes == (1, 2, 7)
    assert list(onnx_report.differences) == ["tokens", "cls", "pooled"]
    assert all(difference < 1e-5 for difference in onnx_report.differences.values())


@pytest.mark.parametrize("size", [1, 2, 7])
def test_onnxruntime_gives_the_encoders_outputs(file: Path, encoder: ViTEncoder, size: int) -> None:
    images = batch(encoder, size)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    tokens, cls, pooled = session.run(["tokens", "cls", "pooled"], {"pixel_values": images})
    np.testing.assert_allclose(tokens, encoder(images), atol=1e-5)
    np.testing.assert_allclose(cls, encoder.features(images, "cls"), atol=1e-5)
    np.testing.assert_allclose(pooled, encoder.features(images, "mean"), atol=1e-5)


def test_names_shapes_and_the_note_inside(file: Path) -> None:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("pixel_values", ["batch", 32, 32, 3])]
    outputs = [(value.name, value.shape) for value in session.get_outputs()]
    assert outputs == [("tokens", ["batch", 17, 48]), ("cls", ["batch", 48]), ("pooled", ["batch", 48])]
    note = session.get_modelmeta().custom_metadata_map
    assert json.loads(note["image_size"]) == [32, 32] and json.loads(note["mean"]) == [0.485, 0.456, 0.406]
    assert onnx.load(file).opset_import[0].version == OPSET


def test_onnxruntime_fuses_every_norm_and_gelu(file: Path, encoder: ViTEncoder, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["LayerNormalization"] == 2 * encoder.depth + 1
    assert kinds["Gelu"] == encoder.depth
    assert not kinds["Erf"] and not kinds["Sqrt"]


def test_openvino_runs_it(file: Path, encoder: ViTEncoder) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in (1, 2, 7):
        images = batch(encoder, size)
        np.testing.assert_allclose(compiled({"pixel_values": images})["tokens"], encoder(images), atol=1e-4)


@pytest.mark.medium
def test_a_rectangle_without_class_token(tmp_path: Path) -> None:
    bare = small_encoder(class_token=False, depth=1, image_size=(32, 48))
    assert list(to_onnx(bare, tmp_path / "bare.onnx").differences) == ["tokens", "pooled"]


@pytest.mark.medium
def test_register_tokens_layer_scale_and_a_small_epsilon(tmp_path: Path) -> None:
    """A class token is `cls` with register tokens behind it; without one there is none, though they come first."""
    settings = {"depth": 1, "register_tokens": 2, "layer_scale": True, "layer_norm_eps": 1e-12}
    for class_token, outputs in ((True, ["tokens", "cls", "pooled"]), (False, ["tokens", "pooled"])):
        encoder = small_encoder(class_token=class_token, **settings)
        assert list(to_onnx(encoder, tmp_path / "encoder.onnx").differences) == outputs


@pytest.mark.medium
def test_mixed_precision_is_exported_in_float32(tmp_path: Path) -> None:
    mixed = small_encoder(dtype="mixed_bfloat16", depth=1)
    (tmp_path / "encoder.onnx").write_text("an earlier one, to be replaced")
    assert to_onnx(mixed, tmp_path / "encoder.onnx", opset=13).differences["tokens"] < 1e-5
    assert mixed.compute_dtype == "bfloat16"
    assert {tensor.data_type for tensor in onnx.load(tmp_path / "encoder.onnx").graph.initializer} <= {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT32,
        onnx.TensorProto.INT64,
    }


@pytest.mark.medium
def test_a_wrong_file_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(encoder: ViTEncoder) -> ViTEncoder:
        copy = float32_copy(encoder)
        copy.norm.beta.assign_add(np.full(copy.width, 2e-3, "float32"))
        return copy

    monkeypatch.setattr("lut_tf.export.onnx.float32_copy", wrong)
    (tmp_path / "encoder.onnx").write_text("an earlier one")
    with pytest.raises(ExportError, match="tokens differs by 0.002"):
        to_onnx(small_encoder(depth=1), tmp_path / "encoder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    assert (tmp_path / "encoder.onnx").read_text() == "an earlier one"


def test_mistakes_are_refused(encoder: ViTEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="opset=19 .* give 13 to 18"):
        to_onnx(encoder, tmp_path / "encoder.onnx", opset=19)
    with pytest.raises(ValueError, match="does not end in .onnx"):
        to_onnx(encoder, tmp_path / "thesis.pdf")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(FileExistsError, match="is a directory"):
        to_onnx(encoder, tmp_path / "folder.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        to_onnx(encoder, tmp_path / "file" / "encoder.onnx")
    monkeypatch.setattr("lut_tf.export.onnx.LARGEST", 1000)
    with pytest.raises(ValueError, match="use saved_model"):
        to_onnx(encoder, tmp_path / "encoder.onnx")
