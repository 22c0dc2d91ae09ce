"""`lut-tf prepare`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb
from lut_tf.errors import told_together
from lut_tf.paths import check_path, spelled_out


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the images, and where and how they are to be written."""
    parser.add_argument("source", metavar="SOURCE", help="a folder of images, or the name of a public data set")
    parser.add_argument(
        "--to",
        default="array_record",
        metavar="FORMAT",
        help="array_record, or tfrecord, which a folder needs (default: %(default)s)",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder to write to (default, of public data sets only: ~/tensorflow_datasets)"
    )
    parser.add_argument(
        "--shards", metavar="N", type=int, default=0, help="files for a folder (default: one for each 1,000 images)"
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=0, help="processes for a folder (default: one for every core)"
    )


def run(arguments: Namespace) -> None:
    """Prepare, and print how to use what is ready."""
    from lut_tf.data.preparing.prepare import prepare

    source = spelled_out(arguments.source)
    output = None if arguments.output is None else spelled_out(arguments.output)
    told_together(lambda: check_path("SOURCE", source), lambda: check_path("output", output or ""))
    print(prepare(source, arguments.to, output, arguments.shards, arguments.workers))


VERB = Verb(
    "make a public data set ready, or put a folder into TFRecord files",
    add_arguments,
    run,
    "SOURCE [--to array_record|tfrecord] [--output DIR] [--shards N] [--workers N]",
    "prepare photos --to tfrecord --output records",
)
