"""What a verb of the command line is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import NamedTuple


class Verb(NamedTuple):
    """One word of the command line.

    Attributes:
        summary: what it does.
        add_arguments: gives a parser its options.
        run: does it; imports its module itself, so that `--help` and a typo answer without TensorFlow.
        usage: a line on its use; the list of options says them once, with their meanings.
        example: what follows `lut-tf` in a call as it is typed.
        complete: the words as they are parsed, made from those that were typed.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    usage: str
    example: str
    complete: Callable[[list[str]], list[str]] = list
