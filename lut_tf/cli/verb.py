"""What a verb of the command line is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jsonargparse import ArgumentParser, Namespace


class Verb(NamedTuple):
    """One word of the command line.

    Attributes:
        summary: what it does.
        add_arguments: gives a parser its options.
        run: does it; imports its module itself, so that `--help` and a typo answer without TensorFlow.
        usage: a line on its use; the list of options says them once, with their meanings.
        complete: the words as they are parsed, made from those that were typed.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[ArgumentParser, Namespace], None]
    usage: str = "[--setting value] ..."
    complete: Callable[[list[str]], list[str]] = list
