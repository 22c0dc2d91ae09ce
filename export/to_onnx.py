"""Write an encoder as ONNX: `python export/to_onnx.py RUN_DIR_OR_ENCODER.keras [--output DIR]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout, installed or not

from lut_tf.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:], "--to", "onnx"]))
