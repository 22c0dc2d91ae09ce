from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_helpers import small_encoder

from lut_tf.export import ExportError, Report, verify
from lut_tf.export.verify import sample_images
from lut_tf.models.encoder import ViTEncoder


@pytest.fixture
def files(onnx_report: Report, saved_model_report: Report) -> list[Path]:
    return [onnx_report.path, saved_model_report.path]


def test_the_photographs_are_seven_different_ones() -> None:
    images = sample_images((32, 48))
    assert images.shape == (7, 32, 48, 3) and images.dtype == np.float32
    assert -2.2 < images.min() < -1 and 1 < images.max() < 2.7  # black and white, normalised
    assert all(np.abs(images[i] - images[j]).mean() > 0.1 for i in range(7) for j in range(i))


@pytest.mark.medium
@pytest.mark.parametrize("count", [1, 9])
def test_own_images_all_count(files: list[Path], encoder: ViTEncoder, count: int) -> None:
    images = np.random.default_rng(2).normal(size=(count, 32, 32, 3))
    for file in files:
        report = verify(file, encoder, images)
        assert max(report.differences.values()) < 1e-5
        assert report.tolerances["tokens"] == pytest.approx(1e-4 * np.sqrt(np.mean(encoder(images) ** 2)), rel=0.01)


def test_another_encoders_weights_are_noticed(files: list[Path], encoder: ViTEncoder) -> None:
    other = ViTEncoder.from_config(encoder.get_config())
    for target, source in zip(other.variables, encoder.variables, strict=True):
        target.assign(source)
    kernel = other.block_layers[1].mlp.fc1.kernel
    kernel.assign(kernel * 1.01)
    for file in files:
        with pytest.raises(ExportError, match=r"tokens differs by .*, allowed are 0\.0001"):
            verify(file, other)


@pytest.mark.medium
def test_another_size_and_a_missing_output_are_noticed(files: list[Path], rectangle: ViTEncoder) -> None:
    bare = small_encoder(class_token=False, depth=1)
    for file in files:
        with pytest.raises(ExportError, match="inputs .*32, 32, 3.* and the encoder .*32, 48, 3"):
            verify(file, rectangle)
        with pytest.raises(ExportError, match="outputs .*cls.* and the encoder"):
            verify(file, bare)


def fixed_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


def other_name(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "unk__1"


def unknown_operator(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.op_type == "Erf").op_type = "Erfc"


@pytest.mark.parametrize("damage", [fixed_batch, other_name, unknown_operator])
def test_damaged_graphs_are_noticed(
    files: list[Path], encoder: ViTEncoder, tmp_path: Path, damage: Callable[[onnx.GraphProto], None]
) -> None:
    model = onnx.load(files[0])
    damage(model.graph)
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(ExportError, match="damaged.onnx"):
        verify(tmp_path / "damaged.onnx", encoder)


def test_unreadable_files_are_noticed(files: list[Path], encoder: ViTEncoder, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(files[0].read_bytes()[:-1000])
    with pytest.raises(ExportError, match="cut.onnx is not a valid file"):
        verify(tmp_path / "cut.onnx", encoder)
    shutil.copytree(files[1], tmp_path / "model")
    (tmp_path / "model" / "variables" / "variables.index").unlink()
    with pytest.raises(ExportError, match="model is not a valid file"):
        verify(tmp_path / "model", encoder)


def test_mistakes_are_refused(files: list[Path], encoder: ViTEncoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        verify(tmp_path / "none.onnx", encoder)
    with pytest.raises(ValueError, match="without saved_model.pb"):
        verify(tmp_path, encoder)
    with pytest.raises(ValueError, match="does not end in .onnx"):
        verify(Path(__file__), encoder)
    for images in (np.zeros((2, 32, 32, 3), "uint8"), np.zeros((0, 32, 32, 3)), np.zeros((2, 3, 32, 32))):
        with pytest.raises(ValueError, match=r"give \(N, 32, 32, 3\) float32, normalised"):
            verify(files[0], encoder, images)
