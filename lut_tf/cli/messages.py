"""What the command line says of a mistake: one line with the setting, the value and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from jsonargparse import ArgumentParser

from lut_tf.config import Config, describe, settings


def options(parser: ArgumentParser) -> list[str]:
    """Every option's name without its dashes, shorter ones (the top-level settings) first."""
    names = (option.lstrip("-") for action in parser._actions for option in action.option_strings)
    return sorted(names, key=lambda option: option.count("."))


def explain(message: str, parser: ArgumentParser, verb: str, usage: str) -> str:
    """Turn jsonargparse's message into one line that names the setting, the value and the remedy."""
    more = f"lut-tf {verb} --help lists the settings"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        if not found[1].startswith("-"):
            remedy = "give --name value" if usage.startswith("[") else f"lut-tf {verb} takes {usage}"
            return f"argument {found[1]!r} stands alone: {remedy}; {more}"
        name = found[1].lstrip("-").split("=")[0]
        return f"unknown setting --{name}{nearest(name, options(parser), '--')}; {more}"
    if found := re.match(r"(?:Group '(.+)' does not accept option|Option) '(.+?)'(?: is not accepted)?$", message):
        name = ".".join(filter(None, found.groups()))
        return f"unknown setting {name}{nearest(name, options(parser))}; {more}"
    if found := re.match(r'Parser key "(.+?)":.*(?:Got|Given) value: (.*)', message, re.DOTALL):
        hint = settings(getattr(parser.formatter_class, "tree", Config)).get(found[1])
        remedy = "another value" if hint is None else describe(hint, ranges=False)
        return f"{found[1]}={found[2].strip()} is of the wrong type: give {remedy}"
    if found := re.match(r'Parser key "(.+?)":\s+Unable to load config (.*)', message):
        return f"{found[1]}={found[2].strip()} is no group of settings: give --{found[1]}.NAME value; {more}"
    return f"{' '.join(message.split())}; {more}"


def nearest(name: str, known: Iterable[str], dashes: str = "") -> str:
    """Return `, did you mean X?` for the known name that is most like `name`, or nothing."""
    candidates = list(known)
    name = name.replace("-", "_")
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [candidate for candidate in candidates if candidate.rsplit(".", 1)[-1] == leaf]
    close = difflib.get_close_matches(name, same_leaf or candidates, n=1, cutoff=0 if same_leaf else 0.6)
    return f", did you mean {dashes}{close[0]}?" if close else ""
