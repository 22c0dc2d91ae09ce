"""What the verbs that measure a frozen encoder share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from lut_tf.config import DataConfig, add_config_arguments, config_from, differences, settings
from lut_tf.config.measuring import FrozenConfig

ENCODER = "ENCODER"
OTHER_IMAGES = ("data.source", "data.path", "data.name")
"""Settings that name other images than those of the run that a network is from."""
USAGE = "ENCODER [--step N] [--config FILE] [--setting value] ..."


def adds_arguments(tree: type[FrozenConfig]) -> Callable[[ArgumentParser], None]:
    """Return what gives a parser the encoder and the settings of a protocol."""

    def add_arguments(parser: ArgumentParser) -> None:
        parser.add_argument(
            "source",
            metavar=ENCODER,
            help="a pre-training run's directory, an encoder's .keras file, or weights that lut-tf convert reads; of a "
            "run, settings of data that are not given are the run's own",
        )
        parser.add_argument(
            "--step",
            metavar="N",
            type=int,
            help="the checkpoint of a run (default: its finished encoder, or the newest)",
        )
        add_config_arguments(parser, tree)

    return add_arguments


def with_own_data(arguments: Namespace, setting: str = ENCODER) -> Any:
    """Return the configuration that was given; settings of `data` that were not are those of the encoder's own run.

    Where another `data.source` is named, as recipes do, nothing is taken; of other training images alone
    (`data.path`, `data.name`) the run's evaluation images are none.

    Raises:
        SystemExit: the command line asked for nothing but to see it.
        FileNotFoundError, ValueError: mistakes, or there is no encoder.
    """
    from lut_tf.interop.sources import data_of

    given, own = arguments.given, data_of(arguments.source, arguments.step, setting)
    if "data.source" not in given.values:
        # The protocol's own defaults stay where the run has settled nothing else.
        settled = {f"data.{name}": getattr(own, name) for name in differences(DataConfig(), own)}
        if any(name in given.values for name in OTHER_IMAGES):
            settled = {name: value for name, value in settled.items() if not name.startswith("data.evaluation_")}
        given.values = {**settled, **given.values}
    return config_from(arguments)


def add_encoder_of_run(parser: ArgumentParser) -> None:
    """Give the parser of a run that begins with an encoder a place for it, beside `--init_from`."""
    parser.add_argument(
        "source",
        metavar=ENCODER,
        nargs="?",
        help="the same as --init_from; of a pre-training run, settings of data that are not given are the run's own",
    )


def config_of_encoder(arguments: Namespace) -> Any:
    """Return the configuration of a run that begins with an encoder; see `add_encoder_of_run`.

    Raises:
        SystemExit: the command line asked for nothing but to see it.
        FileNotFoundError, ValueError: mistakes, or there is no encoder.
    """
    given, known = arguments.given, settings(arguments.given.tree)
    setting = "init_from" if arguments.source is None else ENCODER  # as the encoder was given
    if arguments.source is not None:
        given.take("init_from", arguments.source, known["init_from"])
    arguments.source, arguments.step = given.values.get("init_from"), None
    # A run's own configuration names its images, and may go on without the encoder that it began with.
    if "data.source" in given.values or not arguments.source:
        return config_from(arguments)
    return with_own_data(arguments, setting)


def runs(name: str) -> Callable[[Namespace], None]:
    """Return what measures by the function of that name in `lut_tf.evaluate`, writes the result and prints it."""

    def run(arguments: Namespace) -> None:
        config = with_own_data(arguments)
        import lut_tf.evaluate
        from lut_tf.evaluate.results import save_result, table

        measure = getattr(lut_tf.evaluate, name)
        result = measure(arguments.source, config, arguments.step, say=print, setting=ENCODER)
        path = save_result(result, arguments.source)
        print(f"{table([result])}\nwritten: {path}")

    return run
