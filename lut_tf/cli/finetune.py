"""`lut-tf finetune`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

from lut_tf.cli.measuring import add_encoder_of_run, config_of_encoder
from lut_tf.cli.train import with_own_settings
from lut_tf.cli.verb import Verb
from lut_tf.config import FinetuneConfig, add_config_arguments
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the encoder, an option for each setting, and one for a file of them."""
    add_encoder_of_run(parser)
    add_config_arguments(parser, FinetuneConfig)


def run(arguments: Namespace) -> None:
    """Fine-tune, and print what came of it."""
    from lut_tf.tasks.preflight import preflight_finetuning

    config = config_of_encoder(arguments)
    listing = preflight_finetuning(config)
    import_tensorflow()
    from lut_tf.tasks.finetune import finetune

    print(finetune(config, listing).summary())


VERB = Verb(
    "train an encoder and a linear layer to tell classes apart; started again on its run_dir, a run goes on",
    add_arguments,
    run,
    "ENCODER [--config FILE] [--setting value] ...",
    "finetune runs/digits --data.source image_folder --data.path photos --run_dir runs/photos",
    complete=partial(with_own_settings, tree=FinetuneConfig),
)
