"""Configurations in and out: YAML files and the command line, read by jsonargparse."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from lut_tf.config.pretraining import Config
from lut_tf.config.run import RunConfig
from lut_tf.config.tree import check_layout, settings_of
from lut_tf.config.types import describe

Tree = TypeVar("Tree", bound=RunConfig)


@cache
def settings(tree: Any = Config) -> dict[str, Any]:
    """Return the dotted name and type of every setting of a task's tree, in its order (`{"seed": …, …}`)."""
    return dict(settings_of(tree))


class SettingsHelp(DefaultHelpFormatter):
    """`--help` that says in words what a setting of `tree` takes."""

    tree: Any = Config

    def _get_type_str(self, action: Any) -> str | None:
        hint = settings(self.tree).get(action.dest)
        return super()._get_type_str(action) if hint is None else describe(hint)


class ConfigFile(ActionConfigFile):
    """The option `--config FILE`; what jsonargparse would pass over in silence is refused first."""

    tree: Any = Config

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file into the parser's namespace.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not YAML, holds no settings, or misplaces one.
        """
        named = f"config={values!r}"
        if not Path(values).is_file():
            raise FileNotFoundError(f"{named} does not exist as a file: give --config the path of a YAML file")
        _check_text(Path(values).read_bytes(), named, self.tree)
        super().__call__(parser, cfg, values, option_string)


def add_config_arguments(parser: ArgumentParser, tree: type[RunConfig] = Config) -> None:
    """Give `parser` an option for a file of settings, and one for every setting of a task's tree, with its meaning."""
    action = type("ConfigFile", (ConfigFile,), {"tree": tree})
    parser.add_argument("--config", action=action, help="YAML file of settings; options after it override it")
    parser.add_class_arguments(tree, None, fail_untyped=True)
    parser.formatter_class = type("SettingsHelp", (SettingsHelp,), {"tree": tree})


def config_from(parser: ArgumentParser, arguments: Namespace, tree: type[Tree] = Config) -> Tree:  # type: ignore[assignment]
    """Build the tree out of what a parser with `add_config_arguments` has parsed."""
    built = parser.instantiate(arguments)
    return tree(**{part.name: built[part.name] for part in fields(tree)})


def to_yaml(config: RunConfig) -> str:
    """Return the whole tree, defaults included, as YAML that `from_yaml` reads back into an equal one."""
    return yaml.safe_dump(_without_tuples(asdict(config)), sort_keys=False, allow_unicode=True)


def from_yaml(text: str, tree: type[Tree] = Config) -> Tree:  # type: ignore[assignment]
    """Return the tree of settings that `text` describes; settings it leaves out keep their defaults.

    Args:
        text: YAML.
        tree: the task's.

    Raises:
        ValueError: the text is no YAML, has an unknown key, or a value of the wrong type.
    """
    _check_text(text, "the configuration", tree)
    parser = ArgumentParser(exit_on_error=False)
    add_config_arguments(parser, tree)
    try:
        return config_from(parser, parser.parse_string(text), tree)
    except ArgumentError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_text(text: str | bytes, named: str, tree: type) -> None:
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{named} is not YAML ({problem}): mend it, as the recipes in configs/ show") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{named} holds no settings: write them as `name: value`, as the recipes in configs/ show")
    check_layout(loaded, tree)


def _without_tuples(value: Any) -> Any:
    """Turn tuples into lists: YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _without_tuples(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
