"""`lut-tf export`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the encoder, formats and output."""
    parser.add_argument(
        "source", metavar="RUN_DIR_OR_ENCODER", help="a run directory, or the .keras file of an encoder"
    )
    parser.add_argument(
        "--to", default="saved_model,onnx", help="formats, with commas: saved_model, onnx (default: %(default)s)"
    )
    parser.add_argument("--output", help="directory of the files (default: export/ next to the encoder)")
    parser.add_argument(
        "--step", type=int, help="the checkpoint of a run (default: its finished encoder, or the newest)"
    )


def run(parser: ArgumentParser, arguments: Namespace) -> None:
    """Export, and print how far each file is from the encoder."""
    from lut_tf.export import export_encoder, table

    print(table(export_encoder(arguments.source, arguments.to, arguments.output, arguments.step)))


VERB = Verb(
    "write an encoder as SavedModel and ONNX, verified",
    add_arguments,
    run,
    "RUN_DIR_OR_ENCODER [--to saved_model,onnx] [--output DIR] [--step N]",
)
