"""What the command line says of a mistake in its own words: one line with the setting, the value and the remedy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from lut_tf.config.reading import unknown_option
from lut_tf.config.types import WORDS


class Parser(argparse.ArgumentParser):
    """Raises its messages, in our words, instead of writing them and ending the process.

    Args:
        verb: of `lut-tf`.
        words: a line on its use.
    """

    def __init__(self, verb: str, words: str, **options: Any) -> None:
        super().__init__(prog=f"lut-tf {verb}", usage=f"%(prog)s {words}".strip(), allow_abbrev=False, **options)
        self.words, self.more = words, f"lut-tf {verb} --help lists the settings"

    def understood(self, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the arguments in `words`, and what is left over.

        Raises:
            ValueError: an option has no value, or one of a wrong type; the first of them.
        """
        for word in words:
            if word.startswith("-") and word.endswith("=--"):  # argparse would drop the dashes and give a list
                self.error(f"argument {word.partition('=')[0]}: expected one argument")
        return self.parse_known_args(words)

    def error(self, message: str) -> NoReturn:
        """Raise a message of argparse.

        Raises:
            ValueError: always.
        """
        if found := re.match(r"argument (\S+?): expected .*", message):
            raise ValueError(f"{found[1]} has no value: give {found[1]}=VALUE; {self.more}")
        if found := re.match(r"argument (\S+?): invalid (int|float) value: '(.*)'", message):
            kind = WORDS[{"int": int, "float": float}[found[2]]]
            raise ValueError(f"{found[1]}={found[3]} is of the wrong type: give {kind}")
        if found := re.match(r"argument (\S+?): invalid choice: '(.*?)' \(choose from (.*)\)", message):
            raise ValueError(f"{found[1]}={found[2]} is not known: give one of {found[3].replace(chr(39), '')}")
        if found := re.match(r"the following arguments are required: (.*)", message):
            raise ValueError(f"{found[1]} is missing: {self.prog} takes {self.words}")
        raise ValueError(f"{message}; {self.more}")

    def unknown(self, words: list[str], tree: Any = None) -> Iterator[str]:
        """Yield a line for each option, and each word that belongs to none, that was not understood.

        Args:
            words: what `understood` left over.
            tree: of the settings that the verb takes, if it does.
        """
        names = (option.lstrip("-") for action in self._actions for option in action.option_strings)
        options = sorted(names, key=lambda option: option.count("."))  # the top-level settings first
        left = list(words)
        while left:
            word = left.pop(0)
            if not word.startswith("-"):
                remedy = "give --name value" if tree is not None else f"{self.prog} takes {self.words}"
                yield f"argument {word!r} stands alone: {remedy}; {self.more}"
                continue
            name, equals, value = word.lstrip("-").partition("=")
            given = value if equals else left.pop(0) if left and not left[0].startswith("-") else None
            yield f"{unknown_option(name, given, tree, options)}; {self.more}"
