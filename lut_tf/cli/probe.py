"""`lut-tf probe`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from lut_tf.cli.measuring import add_encoder_of_run, config_of_encoder
from lut_tf.cli.train import with_own_settings
from lut_tf.cli.verb import Verb
from lut_tf.config import LinearProbeConfig, add_config_arguments
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the encoder, an option for each setting, and one for a file of them."""
    add_encoder_of_run(parser)
    add_config_arguments(parser, LinearProbeConfig)


def run(arguments: Namespace) -> None:
    """Probe, and print what came of it."""
    from lut_tf.tasks.preflight import preflight_probe

    config = config_of_encoder(arguments)
    listing = preflight_probe(config)
    import_tensorflow()
    from lut_tf.tasks.linear_probe import linear_probe

    print(linear_probe(config, listing).summary())


VERB = Verb(
    "train linear layers on a frozen encoder's features; started again on its run_dir, a run goes on",
    add_arguments,
    run,
    "ENCODER [--solver lars|logistic] [--config FILE] [--setting value] ...",
    "probe runs/digits --optimizer.batch_size 256",
    complete=partial(with_own_settings, tree=LinearProbeConfig),
)
