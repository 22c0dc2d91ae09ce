"""Moving arrays between a layout and a network: forms, checks, and all or nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lut_tf.interop.names import Form, Slot
from lut_tf.interop.shapes import unfit

SHOWN = 20  # names in an error message


def to_ours(array: np.ndarray, form: Form) -> np.ndarray:
    """Turn a tensor as PyTorch programs write it into ours."""
    if form == "linear":
        return array.T
    if form == "patches":  # (D, 3, p, p) -> (p·p·3, D): patches here are in (row, column, channel) order
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    if form == "pointwise":
        return array[:, :, 0, 0].T
    return array[0] if form == "table" else array


def to_theirs(array: np.ndarray, form: Form) -> np.ndarray:
    """Turn one of our weights into what PyTorch programs write: `to_ours` undone."""
    if form == "linear":
        return array.T
    if form == "patches":
        side = math.isqrt(array.shape[0] // 3)
        return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
    if form == "pointwise":
        return array.T[:, :, None, None]
    return array[None] if form == "table" else array


def read(slots: Iterable[Slot], arrays: Mapping[str, np.ndarray], what: str) -> list[tuple[Any, np.ndarray]]:
    """Return what to assign to which variable, without assigning anything.

    Args:
        slots: every tensor of the network.
        arrays: the tensors there are, by their names; nothing but what `slots` name.
        what: what is loaded, for the error message.

    Raises:
        ValueError: tensors are missing, misshapen, not known or no finite floats; the message lists all of them.
    """
    slots = list(slots)
    absent_rows = {s.row for s in slots if s.row.optional} - {s.row for s in slots if s.name in arrays}
    wanted = [s for s in slots if s.row not in absent_rows]
    missing = [s.name for s in wanted if s.name not in arrays]
    known = {s.name for s in slots}
    extra = [name for name in arrays if name not in known]
    shapes = {s.name: _piece(s).shape for s in wanted if s.name in arrays}
    unlike = {name: shape for name, shape in shapes.items() if arrays[name].shape != shape}
    misshapen = [f"{name} is {_shape(arrays[name].shape)}, not {_shape(shape)}" for name, shape in unlike.items()]
    no_weights = [f"{name} {why}" for name in shapes if name not in unlike and (why := unfit(arrays[name]))]
    problems = {"missing": missing, "not known": extra, "misshapen": misshapen, "no weights": no_weights}
    if any(problems.values()):
        listed = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
        raise ValueError(f"{what} cannot be loaded: {listed}")
    return _assemble(slots, arrays)


def _assemble(slots: list[Slot], arrays: Mapping[str, np.ndarray]) -> list[tuple[Any, np.ndarray]]:
    values: dict[int, tuple[Any, np.ndarray]] = {}
    for slot in slots:
        _, value = values.setdefault(id(slot.variable), (slot.variable, np.zeros(slot.variable.shape, "float32")))
        if slot.name in arrays:
            value[_part(slot)] = to_ours(np.asarray(arrays[slot.name], "float32"), slot.row.form)
    return list(values.values())


def assign(values: Iterable[tuple[Any, np.ndarray]]) -> None:
    """Give each variable its value."""
    for variable, value in values:
        variable.assign(value)


def write(slots: Iterable[Slot]) -> dict[str, np.ndarray]:
    """Return the network's weights as float32 arrays in their layout's names and forms."""
    return {slot.name: np.array(_piece(slot), dtype="float32", order="C") for slot in slots}


def _part(slot: Slot) -> Any:
    if slot.row.third is None:
        return ...
    width = slot.variable.shape[-1] // 3
    return ..., slice(slot.row.third * width, (slot.row.third + 1) * width)


def _piece(slot: Slot) -> np.ndarray:
    """The variable's value as the layout writes it."""
    return to_theirs(np.asarray(slot.variable)[_part(slot)], slot.row.form)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
