"""`lut-tf prepare`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the images, and where and how they are to be written."""
    parser.add_argument("source", metavar="SOURCE", help="a folder of images, or the name of a public data set")
    parser.add_argument(
        "--to",
        default="array_record",
        help="format: array_record, or tfrecord (folders: always) (default: %(default)s)",
    )
    parser.add_argument("--output", help="folder to write to (public data sets: default ~/tensorflow_datasets)")
    parser.add_argument("--shards", type=int, default=0, help="files for a folder; 0: one for 1,000 images")
    parser.add_argument("--workers", type=int, default=0, help="processes for a folder; 0: one for every core")


def run(parser: ArgumentParser, arguments: Namespace) -> None:
    """Prepare, and print how to use what is ready."""
    from lut_tf.data.preparing.prepare import prepare

    wanted = arguments
    print(prepare(wanted.source, wanted.to, wanted.output, wanted.shards, wanted.workers))


VERB = Verb(
    "make a public data set ready, or put a folder into TFRecord files",
    add_arguments,
    run,
    "SOURCE [--to array_record|tfrecord] [--output DIR] [--shards N] [--workers N]",
)
