"""`lut-tf probe`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from lut_tf.cli.measuring import ENCODER, with_own_data
from lut_tf.cli.train import with_own_settings
from lut_tf.cli.verb import Verb
from lut_tf.config import LinearProbeConfig, add_config_arguments, config_from, hints_of
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the encoder, an option for each setting, and one for a file of them."""
    parser.add_argument(
        "source",
        metavar=ENCODER,
        nargs="?",
        help="the same as --init_from; of a pre-training run, settings of data that are not given are the run's own",
    )
    add_config_arguments(parser, LinearProbeConfig)


def run(arguments: Namespace) -> None:
    """Probe, and print what came of it."""
    from lut_tf.tasks.preflight import preflight_probe

    config = _config(arguments)
    listing = preflight_probe(config)
    import_tensorflow()
    from lut_tf.tasks.linear_probe import linear_probe

    print(linear_probe(config, listing).summary())


def _config(arguments: Namespace) -> LinearProbeConfig:
    given = arguments.given
    if arguments.source is not None:
        given.take("init_from", arguments.source, hints_of(LinearProbeConfig)["init_from"])
    arguments.source, arguments.step = given.values.get("init_from"), None
    return with_own_data(arguments) if arguments.source else config_from(arguments)


VERB = Verb(
    "train linear layers on a frozen encoder's features; started again on its run_dir, a run goes on",
    add_arguments,
    run,
    "ENCODER [--solver lars|logistic] [--config FILE] [--setting value] ...",
    "probe runs/digits --optimizer.batch_size 256",
    complete=partial(with_own_settings, tree=LinearProbeConfig),
)
