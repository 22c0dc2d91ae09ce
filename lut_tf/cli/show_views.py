"""`lut-tf show-views`."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lut_tf.cli import train
from lut_tf.cli.verb import Verb
from lut_tf.config import config_from, validate
from lut_tf.paths import check_path, spelled_out
from lut_tf.startup import import_tensorflow
from lut_tf.writing import nearest_existing


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the settings of `train`, and what to draw where."""
    train.add_arguments(parser)
    parser.add_argument(
        "--output", metavar="PNG", default="views.png", help="the picture to write (default: %(default)s)"
    )
    parser.add_argument("--images", metavar="N", type=int, default=8, help="rows of the picture (default: %(default)s)")
    parser.add_argument(
        "--step", metavar="N", type=int, default=0, help="the optimizer step to show (default: %(default)s)"
    )


def run(arguments: Namespace) -> None:
    """Draw, and print the picture's name."""
    images, step = arguments.images, arguments.step
    for name, number, least in (("images", images, 1), ("step", step, 0)):
        if number < least:
            raise ValueError(f"--{name}={number} is out of range: give a number from {least} up")
    output = check_output(arguments.output)
    from lut_tf.data.reading.listing import list_data

    config = config_from(arguments)
    validate(config)
    listing = list_data(config.data)
    import_tensorflow()
    from lut_tf.analysis.views import show_views

    show_views(config, Path(output), images, step, listing)
    print(f"wrote {output}")


def check_output(path: str) -> str:
    """Return where a picture is to be written, spelled out.

    Raises:
        ValueError, FileExistsError, PermissionError: it cannot be, or is no PNG.
    """
    output = spelled_out(path)
    check_path("output", output)
    if Path(output).suffix != ".png":
        raise ValueError(f"output={output} does not end in .png: give {output}.png")
    if Path(output).is_dir():
        raise FileExistsError(f"output={output} is a folder: give the path of a picture")
    existing = nearest_existing(Path(output).parent)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"output={output} cannot be written in {existing}: give another --output")
    return output


VERB = Verb(
    "draw what a run is fed: views, colours and masks",
    add_arguments,
    run,
    "[--output PNG] [--images N] [--step N] [--config FILE] [--setting value] ...",
    "show-views --config configs/digits.yaml --output views.png",
    complete=train.with_own_settings,
)
