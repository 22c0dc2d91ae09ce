"""Configurations in and out: YAML files and the command line, read by jsonargparse."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from lut_tf.config.pretraining import Config
from lut_tf.config.tree import check_layout, settings_of
from lut_tf.config.types import describe


@cache
def settings() -> dict[str, Any]:
    """Return every setting's dotted name and type, in the order of the tree (`{"method.mask_ratio": float, …}`)."""
    return dict(settings_of(Config))


class SettingsHelp(DefaultHelpFormatter):
    """`--help` that says in words what a setting takes."""

    def _get_type_str(self, action: Any) -> str | None:
        hint = settings().get(action.dest)
        return super()._get_type_str(action) if hint is None else describe(hint)


class ConfigFile(ActionConfigFile):
    """The option `--config FILE`; what jsonargparse would pass over in silence is refused first."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file into the parser's namespace.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not YAML, holds no settings, or misplaces one.
        """
        named = f"config={values!r}"
        if not Path(values).is_file():
            raise FileNotFoundError(f"{named} does not exist as a file: give --config the path of a YAML file")
        _check_text(Path(values).read_bytes(), named)
        super().__call__(parser, cfg, values, option_string)


def add_config_arguments(parser: ArgumentParser) -> None:
    """Give `parser` an option for every setting of `Config`, with its meaning as help."""
    parser.add_class_arguments(Config, None, fail_untyped=True)


def config_from(parser: ArgumentParser, arguments: Namespace) -> Config:
    """Build the `Config` out of what a parser with `add_config_arguments` has parsed."""
    built = parser.instantiate(arguments)
    return Config(**{part.name: built[part.name] for part in fields(Config)})


def to_yaml(config: Config) -> str:
    """Return the whole tree, defaults included, as YAML that `from_yaml` reads back into an equal `Config`."""
    return yaml.safe_dump(_without_tuples(asdict(config)), sort_keys=False, allow_unicode=True)


def from_yaml(text: str) -> Config:
    """Return the `Config` that `text` describes; settings it leaves out keep their defaults.

    Raises:
        ValueError: the text is no YAML, has an unknown key, or a value of the wrong type.
    """
    _check_text(text, "the configuration")
    parser = ArgumentParser(exit_on_error=False)
    add_config_arguments(parser)
    try:
        return config_from(parser, parser.parse_string(text))
    except ArgumentError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_text(text: str | bytes, named: str) -> None:
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{named} is not YAML ({problem}): mend it, as the recipes in configs/ show") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{named} holds no settings: write them as `name: value`, as the recipes in configs/ show")
    check_layout(loaded, Config)


def _without_tuples(value: Any) -> Any:
    """Turn tuples into lists: YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _without_tuples(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
