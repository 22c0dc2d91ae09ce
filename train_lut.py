"""Pre-train an encoder: `python train_lut.py --config configs/digits.yaml [--any.setting value]`."""

import sys

from lut_tf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
