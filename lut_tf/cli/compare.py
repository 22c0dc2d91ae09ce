"""`lut-tf compare`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the results."""
    parser.add_argument(
        "results",
        metavar="RESULT",
        nargs="+",
        help="a result's .json file, or a run directory (or a folder of results) for all that it has",
    )


def run(arguments: Namespace) -> None:
    """Print the results side by side."""
    from lut_tf.evaluate.results import find_results, read_result, table

    print(table([read_result(path) for path in find_results(arguments.results)]))


VERB = Verb(
    "set results side by side, and say which differences their intervals do not bear out",
    add_arguments,
    run,
    "RESULT...",
    "compare runs/lut runs/mae runs/lut/results/knn_digits_1a2b3c4d.json",
)
