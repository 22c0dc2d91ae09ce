"""`lut-tf doctor`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lut_tf.cli.verb import Verb
from lut_tf.errors import Stopped
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """It takes no options."""


def run(arguments: Namespace) -> None:
    """Print the report and the verdict."""
    import_tensorflow()
    from lut_tf.tasks.doctor import check_replicas, report

    print(report(), flush=True)
    verdict = check_replicas()
    print(verdict)
    if "FAILED" in verdict:
        raise Stopped("this machine's devices do not compute alike: send the lines above with your report")


VERB = Verb("say what a bug report should, and check that all devices compute alike", add_arguments, run, "", "doctor")
