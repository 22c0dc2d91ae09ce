"""Encoder files that others can serve: SavedModel and ONNX, each read back and compared before it appears.

Importing this package loads neither TensorFlow nor onnxruntime; its functions do. The names are bound here, at import,
because the function `verify` would otherwise be hidden by the module of the same name.
"""

from __future__ import annotations

from lut_tf.export.command import export_encoder, verify_file
from lut_tf.export.onnx import to_onnx
from lut_tf.export.report import ExportError, Report, table
from lut_tf.export.saved_model import to_saved_model
from lut_tf.export.verify import verify

__all__ = ["ExportError", "Report", "export_encoder", "table", "to_onnx", "to_saved_model", "verify", "verify_file"]
