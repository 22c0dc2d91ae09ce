"""Trees of frozen dataclasses: flat settings with dotted names (`method.mask_ratio`), checked and compared.

A group may have a method `check(name)` that refuses settings which contradict each other, `name` being where the group
stands in its tree; it is asked after the group's own types and ranges, so the root's comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any, TypeVar, get_type_hints

from lut_tf.config.types import check_value
from lut_tf.errors import told_together
from lut_tf.paths import spelled_out

Group = TypeVar("Group")


def hints_of(group: type) -> dict[str, Any]:
    """Return the types of a group's fields, ranges included."""
    return get_type_hints(group, include_extras=True)


def joined(group: str, setting: str) -> str:
    """Return a setting's dotted name; a group without a name is the root, or stands alone in Python."""
    return f"{group}.{setting}" if group else setting


def option(group: str, setting: str) -> str:
    """Return what a remedy calls a setting: the command line's option, or the argument where the group stands alone."""
    return f"--{group}.{setting}" if group else setting


def settings_of(tree: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting's dotted name and type, in the order of the tree."""
    for name, hint in hints_of(tree).items():
        if is_dataclass(hint):
            yield from settings_of(hint, joined(prefix, name))  # type: ignore[arg-type]
        else:
            yield joined(prefix, name), hint


def get_setting(tree: Any, name: str) -> Any:
    """Return the value of the setting with the dotted `name`."""
    for part in name.split("."):
        tree = getattr(tree, part)
    return tree


def validate(group: Any, name: str = "") -> None:
    """Refuse wrong types, numbers out of range, and settings that contradict each other, in `group` and below it.

    Args:
        group: a frozen dataclass whose field types say what they take.
        name: where it stands in its tree, for the messages.

    Raises:
        ValueError: the mistakes found, each in one line: setting, value, remedy. Contradictions are looked for where
            the values themselves are right.
    """
    checks = []
    for part, hint in hints_of(type(group)).items():
        value, path = getattr(group, part), joined(name, part)
        if not is_dataclass(hint):
            checks.append(partial(check_value, path, value, hint))
        elif isinstance(value, hint):  # type: ignore[arg-type]
            checks.append(partial(validate, value, path))
        else:
            checks.append(partial(_refuse_group, path, value, hint))
    told_together(*checks)
    if hasattr(group, "check"):
        group.check(name)


def build_group(kind: type[Group], values: Mapping[str, Any]) -> Group:
    """Make a group out of what `dataclasses.asdict` made of one, through JSON or not.

    Raises:
        TypeError: a name that the group does not have.
    """
    hints = hints_of(kind)

    def built(name: str, value: Any) -> Any:
        if is_dataclass(hints.get(name)) and isinstance(value, Mapping):
            return build_group(hints[name], value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: built(name, value) for name, value in values.items()})


def changed(group: Group, settings: Mapping[str, Any]) -> Group:
    """Return the group with some of its settings changed.

    Raises:
        ValueError: it has no such setting.
    """
    known = hints_of(type(group))
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(f"{', '.join(unknown)}: no such setting: give some of {', '.join(known)}")
    return replace(group, **settings)  # type: ignore[type-var]


def differences(old: Any, new: Any) -> list[str]:
    """Return the dotted names of the settings in which two trees of a kind differ, in the order of the tree."""
    return [name for name, _ in settings_of(type(old)) if get_setting(old, name) != get_setting(new, name)]


def spell_paths_out(group: Any, *names: str) -> None:
    """Put the paths among a group's settings in full, so that the same place is the same setting; see `spelled_out`."""
    for name in names:
        if isinstance(getattr(group, name), str):
            object.__setattr__(group, name, spelled_out(getattr(group, name)))


def _refuse_group(name: str, value: Any, kind: Any) -> None:
    raise ValueError(f"{name}={value!r} is of the wrong type: give a {kind.__name__}")
