"""`lut-tf train`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb
from lut_tf.config import add_config_arguments, config_from
from lut_tf.startup import import_tensorflow
from lut_tf.training.run_directory import with_own_settings


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser an option for each setting, and one for a file of them."""
    add_config_arguments(parser)


def run(parser: ArgumentParser, arguments: Namespace) -> None:
    """Pre-train, and print what came of it."""
    from lut_tf.tasks.preflight import preflight

    config = config_from(parser, arguments)
    listing = preflight(config)
    import_tensorflow()
    from lut_tf.tasks.pretrain import pretrain

    print(pretrain(config, listing).summary())


VERB = Verb("pre-train an encoder", add_arguments, run, complete=with_own_settings)
