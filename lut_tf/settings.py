"""A tree of dataclasses as flat settings with dotted names (`method.mask_ratio`), their types and their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


def settings_of(tree: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting's dotted name and type, in the order of the tree."""
    hints = get_type_hints(tree)
    for part in fields(tree):
        hint = hints[part.name]
        if is_dataclass(hint):
            yield from settings_of(hint, f"{prefix}{part.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{part.name}", hint


def get_setting(tree: Any, name: str) -> Any:
    """Return the value of the setting with the dotted `name`."""
    for part in name.split("."):
        tree = getattr(tree, part)
    return tree


def show(value: Any) -> str:
    """Show a value as it would be typed on the command line or in YAML."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(show, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def describe_type(hint: Any) -> str:
    """Say in words what a setting of this type takes: `a whole number or null`."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe_type(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return f"a list of {len(get_args(hint))} numbers"
    return WORDS[hint]


def has_type(value: Any, hint: Any) -> bool:
    """Tell whether `value` may stand in a setting of this type; a whole number may stand for a number."""
    if get_origin(hint) in (Union, UnionType):
        return any(has_type(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        options = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(options) and all(map(has_type, value, options))
    if isinstance(value, bool):  # Python counts True as an integer; a setting does not
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def check_layout(loaded: Any, tree: type, prefix: str = "") -> None:
    """Refuse a group that is no mapping and a null where null means nothing: jsonargparse passes over both in silence.

    Raises:
        ValueError: naming the setting, its value and what to give.
    """
    hints = get_type_hints(tree)
    for key, value in loaded.items():
        name, hint = f"{prefix}{key}", hints.get(key)
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name}={show(value)} is of the wrong type: give settings of {name}, or leave it out")
            check_layout(value, hint, f"{name}.")  # type: ignore[arg-type]
        elif value is None and hint is not None and not has_type(None, hint):
            raise ValueError(f"{name}=null is of the wrong type: give {describe_type(hint)}, or leave it out")
