"""Compare a file with its encoder: `python export/verify.py FILE RUN_DIR_OR_ENCODER.keras`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works in a checkout, installed or not

from lut_tf.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
