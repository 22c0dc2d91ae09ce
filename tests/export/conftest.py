"""An encoder and its files, made once: exporting takes seconds and leaves the encoder as it was."""

from __future__ import annotations

import pytest
from export_helpers import small_encoder

from lut_tf.export import Report, to_onnx, to_saved_model
from lut_tf.models.encoder import ViTEncoder


@pytest.fixture(scope="session")
def encoder() -> ViTEncoder:
    return small_encoder()


@pytest.fixture(scope="session")
def rectangle(encoder: ViTEncoder) -> ViTEncoder:
    return encoder.resized((32, 48))


@pytest.fixture(scope="session")
def onnx_report(encoder: ViTEncoder, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return to_onnx(encoder, tmp_path_factory.mktemp("onnx") / "new" / "encoder.onnx")


@pytest.fixture(scope="session")
def saved_model_report(encoder: ViTEncoder, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return to_saved_model(encoder, tmp_path_factory.mktemp("saved_model") / "new" / "model")
