"""What the verbs that measure a frozen encoder share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from lut_tf.config import DataConfig, add_config_arguments, config_from, differences
from lut_tf.config.measuring import FrozenConfig

ENCODER = "ENCODER"
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


def with_own_data(arguments: Namespace) -> Any:
    """Return the configuration that was given; settings of `data` that were not are those of the encoder's own run.

    They are left alone where another `data.source` is given, which reads other settings.

    Raises:
        SystemExit: the command line asked for nothing but to see it.
        FileNotFoundError, ValueError: mistakes, or there is no encoder.
    """
    from lut_tf.interop.sources import data_of

    given = arguments.given
    own = data_of(arguments.source, arguments.step, ENCODER)
    if given.values.get("data.source", own.source) == own.source:
        # The protocol's own defaults stay where the run has settled nothing else.
        settled = {f"data.{name}": getattr(own, name) for name in differences(DataConfig(), own)}
        given.values = {**settled, **given.values}
    return config_from(arguments)


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
