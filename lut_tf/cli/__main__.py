"""`python -m lut_tf.cli`: the same as `lut-tf`."""

from lut_tf.cli.program import console

console()
