"""A file refuses other images than its encoder's by name, whatever their number of values."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from lut_tf.export import Report
from lut_tf.models.encoder import ViTEncoder

OTHERS = {
    "twice as high and wide": lambda h, w: (1, 2 * h, 2 * w, 3),
    "as many values": lambda h, w: (1, h // 2, 2 * w, 3),
    "channels first": lambda h, w: (1, 3, h, w),
    "one channel": lambda h, w: (3, h, w, 1),
}


@pytest.mark.medium
@pytest.mark.parametrize("name", OTHERS)
def test_a_saved_model_refuses_them(encoder: ViTEncoder, saved_model_report: Report, name: str) -> None:
    serve = tf.saved_model.load(str(saved_model_report.path)).signatures["serving_default"]
    images = tf.zeros(OTHERS[name](*encoder.image_size))
    with pytest.raises(tf.errors.InvalidArgumentError, match="pixel_values .* is not compatible with expected shape"):
        serve(pixel_values=images)


@pytest.mark.medium
@pytest.mark.parametrize("name", OTHERS)
def test_an_onnx_file_refuses_them(encoder: ViTEncoder, onnx_report: Report, name: str) -> None:
    session = onnxruntime.InferenceSession(str(onnx_report.path), providers=["CPUExecutionProvider"])
    images = np.zeros(OTHERS[name](*encoder.image_size), "float32")
    with pytest.raises(Exception, match="invalid dimensions for input: pixel_values"):
        session.run(None, {"pixel_values": images})
