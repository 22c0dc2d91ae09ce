"""The command line, `lut-tf <verb>`: a file a verb, each with its options and the function that it calls."""

from lut_tf.cli.program import console, main

__all__ = ["console", "main"]
