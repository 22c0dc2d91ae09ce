"""Compare a file with its encoder: `python export/verify.py FILE ENCODER.keras`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout, installed or not

from lut_tf.export.command import verify_script  # noqa: E402

if __name__ == "__main__":
    sys.exit(verify_script())
