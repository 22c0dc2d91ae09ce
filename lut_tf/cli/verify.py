"""`lut-tf verify`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the file and the encoder."""
    parser.add_argument("file", metavar="FILE", help="an .onnx file, or a SavedModel's directory")
    parser.add_argument("source", metavar="ENCODER", help="the encoder's .keras file, or its run directory")
    parser.add_argument(
        "--step", type=int, help="the checkpoint of a run (default: its finished encoder, or the newest)"
    )


def run(parser: ArgumentParser, arguments: Namespace) -> None:
    """Compare, and print how far the file is from the encoder."""
    from lut_tf.export import verify_file

    print(verify_file(arguments.file, arguments.source, arguments.step))


VERB = Verb("compare an exported file with the encoder it came from", add_arguments, run, "FILE ENCODER [--step N]")
