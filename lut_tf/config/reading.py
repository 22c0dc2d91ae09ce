"""Configurations in and out: YAML files and the command line, read into a task's tree of settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from lut_tf.config import core_schema
from lut_tf.config.pretraining import Config
from lut_tf.config.run import RunConfig
from lut_tf.config.suggestions import meant_in_group, nearest
from lut_tf.config.tree import build_group, get_setting, hints_of, joined, settings_of
from lut_tf.config.types import base_of, check_value, describe, options_of, show
from lut_tf.errors import Mistakes
from lut_tf.paths import check_path, spelled_out

Tree = TypeVar("Tree", bound=RunConfig)

LARGEST_FILE = 2**18  # characters; all settings with their meanings are a tenth of it


@cache
def settings(tree: Any = Config) -> dict[str, Any]:
    """Return the dotted name and type of every setting of a task's tree, in its order (`{"seed": …, …}`)."""
    return dict(settings_of(tree))


class Given:
    """What files and options give of a task's settings, the later over the earlier, and the mistakes in it.

    Args:
        tree: the task's.
    """

    def __init__(self, tree: type) -> None:
        self.tree = tree
        self.values: dict[str, Any] = {}
        self.mistakes: list[str] = []

    def take(self, name: str, value: Any, hint: Any) -> None:
        """Take a setting's value, put into its type; a wrong one is a mistake."""
        value = fitted(value, hint)
        try:
            check_value(name, value, hint)
        except ValueError as error:
            self.mistakes.append(str(error))
        self.values[name] = value

    def take_yaml(self, text: str, named: str) -> None:
        """Take the settings in a text of YAML.

        Args:
            text: of a mapping; a group of settings is a mapping in it, or its name begins theirs (`views.flip`).
            named: the text, for messages.
        """
        if len(text) > LARGEST_FILE:
            self.mistakes.append(f"{named} has {len(text)} characters, which no settings need: give a smaller file")
            return
        try:
            node = core_schema.compose(text)
        except yaml.YAMLError as error:
            self.mistakes.append(_no_yaml(named, error))
            return
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self.mistakes.append(
                f"{named} holds no settings: write them as `name: value`, as the recipes in configs/ show"
            )
            return
        _Text(self, text, named).take_group(node, self.tree)

    def built(self) -> Any:
        """Return the tree; settings that were not given have their defaults.

        Raises:
            ValueError: there were mistakes.
        """
        if self.mistakes:
            raise Mistakes(self.mistakes)
        nested: dict[str, Any] = {}
        for name, value in self.values.items():
            *groups, leaf = name.split(".")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[leaf] = value
        return build_group(self.tree, nested)


class _Text:
    """Goes through the nodes of a text of YAML: settings into `given`, each once."""

    def __init__(self, given: Given, text: str, named: str) -> None:
        self.given, self.text, self.named = given, text, named
        self.lines: dict[str, int] = {}

    def take_group(self, node: yaml.MappingNode, tree: Any, prefix: str = "") -> None:
        known, groups = settings(self.given.tree), groups_of(self.given.tree)
        for key, value in node.value:
            name = joined(prefix, key.value if isinstance(key, yaml.ScalarNode) else self.shown(key))
            if name in known or name in groups:
                self.once(name, key.start_mark.line + 1)
            if name in known:
                self.take_setting(name, value, known[name])
            elif name not in groups:
                self.given.mistakes.append(_unknown(name, tree, prefix, known))
            elif isinstance(value, yaml.MappingNode):
                self.take_group(value, groups[name], name)
            else:
                self.given.mistakes.append(_no_group(name, self.value(value), known))

    def once(self, name: str, line: int) -> None:
        if name in self.lines:
            self.given.mistakes.append(
                f"{self.named} has {name} twice, in lines {self.lines[name]} and {line}: leave one of them"
            )
        self.lines[name] = line

    def take_setting(self, name: str, node: yaml.Node, hint: Any) -> None:
        try:
            self.given.take(name, core_schema.value_of(node), hint)
        except ValueError:
            self.given.mistakes.append(_wrong_type(name, self.shown(node), hint))

    def value(self, node: yaml.Node) -> Any:
        try:
            return core_schema.value_of(node)
        except ValueError:
            return self.shown(node)

    def shown(self, node: yaml.Node) -> str:
        return " ".join(self.text[node.start_mark.index : node.end_mark.index].split())


def fitted(value: Any, hint: Any) -> Any:
    """Put what YAML or the command line gave for a setting into the setting's type, as far as it fits.

    A text is read where no text is wanted (`1e-3`, `true`, `[0.9, 0.95]`, also without the brackets), a list becomes a
    tuple, a whole number a number, and `1e2` the whole number 100. What does not fit stays as it is.
    """
    options = options_of(hint)
    if value is None:
        return None
    kinds = {base_of(option): option for option in options if option is not None}
    if isinstance(value, str) and str not in kinds:
        bare = tuple in kinds and not value.lstrip().startswith("[") and (len(kinds) == 1 or "," in value)
        value = _read(f"[{value}]" if bare else value)
    wanted = tuple if tuple in kinds and isinstance(value, list) else next(iter(kinds))
    kind = kinds[wanted]
    if wanted is tuple and isinstance(value, list):
        parts = get_args(kind)
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(fitted(item, part) for item, part in zip(value, parts, strict=False)) + tuple(value[len(parts) :])
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if value.bit_length() < 1000 else float("inf")
    return value


def _read(text: str) -> Any:
    """Return what YAML says that a text is, or the text where that is nothing or no value of a setting."""
    try:
        node = core_schema.compose(text[:LARGEST_FILE])
        return text if node is None else core_schema.value_of(node)
    except (yaml.YAMLError, ValueError):
        return text


@cache
def groups_of(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the dotted name and class of every group in a tree, each before those in it."""
    groups: dict[str, Any] = {}
    for name, group in hints_of(tree).items():
        if is_dataclass(group):
            inside: Any = group
            groups |= {joined(prefix, name): inside, **groups_of(inside, joined(prefix, name))}
    return groups


class SettingAction(argparse.Action):
    """The option of a setting: its value goes into the parser's `given`."""

    def __init__(self, *arguments: Any, hint: Any, given: Given, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.hint, self.given = hint, given

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Take the value; `null` is none where there may be none, also of a text."""
        value = None if values == "null" and None in options_of(self.hint) else values
        self.given.take(self.dest, value, self.hint)


class FileAction(argparse.Action):
    """The option `--config FILE`: its settings go into the parser's `given`."""

    def __init__(self, *arguments: Any, given: Given, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.given = given

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Take the file's settings.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: its path is none.
        """
        path, named = spelled_out(values), f"config={show(values)!r}"
        check_path("config", path)
        if not Path(path).is_file():
            raise FileNotFoundError(f"{named} does not exist as a file: give --config the path of a YAML file")
        with Path(path).open("rb") as file:
            content = file.read(4 * LARGEST_FILE + 4)
        try:
            self.given.take_yaml(content.decode("utf-8-sig"), named)
        except UnicodeDecodeError as error:
            self.given.mistakes.append(_no_yaml(named, error))


def add_config_arguments(parser: argparse.ArgumentParser, tree: Any = Config) -> None:
    """Give `parser` options for a file of settings and for every setting of a task's tree, with its meaning.

    What they are given, and the mistakes in it, is in the parsed arguments' `given`.
    """
    given, meanings = Given(tree), _meanings(tree)
    parser.set_defaults(given=given)
    parser.add_argument(
        "--config",
        action=FileAction,
        given=given,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="YAML file of settings; options after it override it",
    )
    parser.add_argument(
        "--print_config", action="store_true", help="print all settings as they came to be, as YAML, and do nothing"
    )
    default = tree()
    sections = {"": parser.add_argument_group("the run" if issubclass(tree, RunConfig) else "the measure")}
    for name in groups_of(tree):
        sections[name] = parser.add_argument_group(f"{name}: {meanings[name].rstrip('.')}")
    for name, hint in settings(tree).items():
        value = show(get_setting(default, name))
        sections[name.rpartition(".")[0]].add_argument(
            f"--{name}",
            action=SettingAction,
            given=given,
            hint=hint,
            default=argparse.SUPPRESS,
            metavar=_typed(name, hint),
            help=f"{meanings[name]} (type: {describe(hint)}, default: {value})".replace("%", "%%"),
        )


def config_from(arguments: argparse.Namespace) -> Any:
    """Return the tree that a parser with `add_config_arguments` has parsed.

    Raises:
        SystemExit: the command line asked for nothing but to see it.
        ValueError: mistakes.
    """
    config = arguments.given.built()
    if arguments.print_config:
        print(to_yaml(config), end="")
        raise SystemExit(0)
    return config


def to_yaml(config: RunConfig) -> str:
    """Return the whole tree, defaults included, as YAML that `from_yaml` reads back into an equal one."""
    return yaml.dump(_without_tuples(asdict(config)), Dumper=core_schema.Dumper, sort_keys=False, allow_unicode=True)


def from_yaml(
    text: str,
    tree: type[Tree] = Config,  # type: ignore[assignment]
    left_out: Mapping[str, Any] | None = None,
) -> Tree:
    """Return the tree of settings that `text` describes; settings it leaves out keep their defaults.

    Args:
        text: YAML, read by the core schema of version 1.2.
        tree: the task's.
        left_out: values by dotted name, instead of the defaults, of settings that the text leaves out.

    Raises:
        ValueError: the text is no YAML, has an unknown or a repeated key, or values of the wrong type or out of range:
            a line for each mistake.
    """
    given = Given(tree)
    given.values |= left_out or {}
    given.take_yaml(text, "the configuration")
    return given.built()


def unknown_option(name: str, value: str | None, tree: Any, options: list[str]) -> str:
    """Say what an option that does not exist may have been meant for.

    Args:
        name: without its dashes.
        value: that it was given, if it was.
        tree: of the settings, or None.
        options: those there are, without their dashes.
    """
    if tree is not None and name in groups_of(tree):
        meant = meant_in_group(name, value, settings(tree))
        remedy = f"did you mean --{meant} {show(value)}?" if meant else f"give --{name}.NAME value"
        return f"{name}={value!r} is no setting but a group of them: {remedy}"
    return f"unknown setting --{name}{nearest(name, options, '--')}"


def _unknown(name: str, tree: Any, prefix: str, known: Mapping[str, Any]) -> str:
    near = nearest(name, known)
    return f"unknown setting {name}" + (near or f": {prefix or 'the file'} takes {', '.join(hints_of(tree))}")


def _no_group(name: str, value: Any, known: dict[str, Any]) -> str:
    meant = meant_in_group(name, value, known)
    remedy = f"did you mean {meant}: {show(value)}?" if meant else f"give settings of {name}, or leave it out"
    return f"{name}={show(value)} is of the wrong type: {remedy}"


def _wrong_type(name: str, shown: str, hint: Any) -> str:
    return f"{name}={show(shown)} is of the wrong type: give {describe(hint, ranges=False)}"


def _no_yaml(named: str, error: Exception) -> str:
    return f"{named} is not YAML ({' '.join(str(error).split())}): mend it, as the recipes in configs/ show"


def _typed(name: str, hint: Any) -> str:
    """Return what stands for a setting's value in `--help`."""
    kind = next(option for option in options_of(hint) if option is not None)
    words = {int: "N", float: "X", tuple: "X,X", bool: "true|false"}
    choices = "|".join(choice for choice in get_args(kind) if isinstance(choice, str))
    return words.get(base_of(kind)) or choices or name.rpartition(".")[-1].upper()


@cache
def _meanings(tree: Any, prefix: str = "") -> dict[str, str]:
    """Return the meaning of every setting and group, out of the docstrings."""
    from docstring_parser import parse

    meanings: dict[str, str] = {}
    for kind in reversed(tree.__mro__):  # a group may build on another, and say of its settings what is its own
        for part in parse(kind.__dict__.get("__doc__") or "").params if is_dataclass(kind) else ():
            meanings[joined(prefix, part.arg_name)] = " ".join((part.description or "").split())
    for name, group in groups_of(tree).items():
        if "." not in name:
            meanings |= _meanings(group, joined(prefix, name))
    return meanings


def _without_tuples(value: Any) -> Any:
    """Turn tuples into lists: YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _without_tuples(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
