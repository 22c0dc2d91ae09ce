"""What a setting may hold: types with their ranges, checked by pydantic, and their words for messages and `--help`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Range(GroupedMetadata):
    """Numbers from `low` to `high`; `open_low` and `open_high` leave the end itself out; NaN and infinity never pass.

    Its type is that of `low`: a whole number, or a number.

    A class of our own because jsonargparse, which knows those of annotated_types, would name the one number that is out
    of range and not the whole value; `validate` does, after jsonargparse has seen to the types.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __iter__(self) -> Iterator[Any]:
        """Yield what pydantic checks."""
        yield Gt(self.low) if self.open_low else Ge(self.low)
        if isinstance(self.low, float) or math.isfinite(self.high):
            yield Lt(self.high) if self.open_high or math.isinf(self.high) else Le(self.high)

    def __str__(self) -> str:
        """Say the range as a remedy: `from 0 to 1`."""
        low = f"above {self.low:.15g}" if self.open_low else f"from {self.low:.15g}"
        if math.isinf(self.high):
            return low if self.open_low else f"{low} up"
        return f"{low} to {'just under ' if self.open_high else ''}{self.high:.15g}"


Count = Annotated[int, Range(1)]
NotNegativeInt = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**31 - 1)]  # stands beside the epoch in one 64-bit key of the random draws
NotNegative = Annotated[float, Range(0.0)]
Positive = Annotated[float, Range(0.0, open_low=True)]
Fraction = Annotated[float, Range(0.0, 1)]
PositiveFraction = Annotated[float, Range(0.0, 1, open_low=True)]
Decay = Annotated[float, Range(0.0, 1, open_high=True)]

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def show(value: Any) -> str:
    """Show a value as it would be typed on the command line or in YAML."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(show, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def describe(hint: Any, ranges: bool = True) -> str:
    """Say in words what a setting of this type takes: `a whole number from 1 up or null`.

    Args:
        hint: the setting's annotation.
        ranges: say the numbers' ranges too.
    """
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(describe(option, ranges) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        items = get_args(hint)
        return f"a list of {len(items)} {describe(items[0], ranges).removeprefix('a ').replace('number', 'numbers', 1)}"
    if get_origin(hint) is Annotated:
        base, allowed = get_args(hint)
        return f"{WORDS[base]} {allowed}" if ranges else WORDS[base]
    return WORDS[hint]


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # a quarter of a second to import, which `lut-tf --help` need not wait for

    return TypeAdapter(hint)


def check_value(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that a setting of this type cannot hold; nothing is converted, but a whole number is a number.

    Raises:
        ValueError: naming the setting, its value and what to give.
    """
    from pydantic import ValidationError

    try:
        _adapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        named = f"{name}={show(value)}"
        if OUT_OF_RANGE & {problem["type"] for problem in error.errors()}:
            raise ValueError(f"{named} is out of range: give {describe(hint)}") from None
        raise ValueError(f"{named} is of the wrong type: give {describe(hint, ranges=False)}") from None
