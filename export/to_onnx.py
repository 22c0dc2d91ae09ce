"""Write an encoder as ONNX, verified: `python export/to_onnx.py RUN_DIR_OR_ENCODER.keras [OUTPUT]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout, installed or not

from lut_tf.export.command import export_script  # noqa: E402

if __name__ == "__main__":
    sys.exit(export_script("onnx"))
