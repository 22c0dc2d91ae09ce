"""What a setting may hold: types with their ranges, checked by pydantic, and their words for messages and `--help`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from lut_tf.paths import encodes

if TYPE_CHECKING:
    from pydantic import TypeAdapter


LARGEST = 2**31 - 1  # of whole numbers: products of two are still whole numbers for TensorFlow


@dataclass(frozen=True)
class Range(GroupedMetadata):
    """Numbers from `low` to `high`; `open_low` and `open_high` leave the end itself out; NaN and infinity never pass.

    Its type is that of `low`: a whole number, or a number.

    A whole number without a `high` ends at `LARGEST`, which nobody needs to read in `--help`.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __iter__(self) -> Iterator[Any]:
        """Yield what pydantic checks."""
        yield Gt(self.low) if self.open_low else Ge(self.low)
        if isinstance(self.low, int) and math.isinf(self.high):
            yield Le(LARGEST)
        else:
            yield Lt(self.high) if self.open_high or math.isinf(self.high) else Le(self.high)

    def __str__(self) -> str:
        """Say the range as a remedy: `from 0 to 1`."""
        low = f"above {self.low:.15g}" if self.open_low else f"from {self.low:.15g}"
        if math.isinf(self.high):
            return low if self.open_low else f"{low} up"
        return f"{low} to {'just under ' if self.open_high else ''}{self.high:.15g}"


Count = Annotated[int, Range(1)]
NotNegativeInt = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, LARGEST)]  # stands beside the epoch in one 64-bit key of the random draws
NotNegative = Annotated[float, Range(0.0)]
Positive = Annotated[float, Range(0.0, open_low=True)]
Fraction = Annotated[float, Range(0.0, 1)]
PositiveFraction = Annotated[float, Range(0.0, 1, open_low=True)]
Decay = Annotated[float, Range(0.0, 1, open_high=True)]

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
LONGEST_SHOWN = 200  # characters of a value in a message
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def show(value: Any) -> str:
    """Show a value as it would be typed on the command line or in YAML, in one line that is not too long."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(show, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int) and value.bit_length() > 400:
        return f"a number of {value.bit_length()} bits"
    text = str(value)
    text = text if text.isprintable() and text else repr(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


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
        count = "" if items[-1] is Ellipsis else f"{len(items)} "
        return f"a list of {count}{describe(items[0], ranges).removeprefix('a ').replace('number', 'numbers', 1)}"
    if get_origin(hint) is Annotated:
        base, allowed = get_args(hint)
        return f"{WORDS[base]} {allowed}" if ranges else WORDS[base]
    return WORDS[hint]


def options_of(hint: Any) -> tuple[Any, ...]:
    """Return the types, one of which a value has; None stands for null."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(None if option is NoneType else option for option in get_args(hint))
    return (hint,)


def base_of(hint: Any) -> type:
    """Return the Python type of the values of a type without null: int, float, bool, str or tuple."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0]
    if get_origin(hint) is Literal:
        return str
    return get_origin(hint) or hint


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

    if isinstance(value, str) and not encodes(value):
        raise ValueError(f"{name}={value!r} is no text of UTF-8: give {describe(hint, ranges=False)}")
    try:
        _adapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        named = f"{name}={show(value)}"
        if OUT_OF_RANGE & {problem["type"] for problem in error.errors()}:
            most = f", at most {LARGEST}" if isinstance(value, int) and value > LARGEST else ""
            raise ValueError(f"{named} is out of range: give {describe(hint)}{most}") from None
        quoted = " (a number or true is one in quotes)" if str in options_of(hint) and value is not None else ""
        raise ValueError(f"{named} is of the wrong type: give {describe(hint, ranges=False)}{quoted}") from None
