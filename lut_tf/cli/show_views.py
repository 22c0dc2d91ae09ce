"""`lut-tf show-views`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lut_tf.cli import train
from lut_tf.cli.verb import Verb
from lut_tf.config import config_from, validate
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the settings of `train`, and what to draw where."""
    train.add_arguments(parser)
    parser.add_argument("--output", default="views.png", help="the picture to write (default: %(default)s)")
    parser.add_argument("--images", type=int, default=8, help="rows of the picture (default: %(default)s)")
    parser.add_argument("--step", type=int, default=0, help="the optimizer step to show (default: %(default)s)")


def run(parser: ArgumentParser, arguments: Namespace) -> None:
    """Draw, and print the picture's name."""
    output, images, step = (arguments.pop(name) for name in ("output", "images", "step"))
    for name, number, least in (("images", images, 1), ("step", step, 0)):
        if number < least:
            raise ValueError(f"--{name}={number} is out of range: give a number from {least} up")
    from lut_tf.data.reading.listing import list_data

    config = config_from(parser, arguments)
    validate(config)
    listing = list_data(config.data)
    import_tensorflow()
    from lut_tf.analysis.views import show_views

    show_views(config, Path(output), images, step, listing)
    print(f"wrote {output}")


VERB = Verb(
    "draw what a run is fed: views, colours and masks",
    add_arguments,
    run,
    "[--output PNG] [--images N] [--step N] [--setting value] ...",
)
