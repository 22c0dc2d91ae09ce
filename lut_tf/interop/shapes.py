"""What a network must look like to hold given tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lut_tf.interop.names import ENCODER_LAYOUTS, Row, encoder_row
from lut_tf.models.layers import sincos_positions

HEAD_WIDTH = 64  # of every published ViT; asked for where it does not divide the width
SAME_TABLE = 1e-5  # float32 tables of different programs agree to 1e-7

Tensors = Mapping[str, np.ndarray]


def detect_layout(names: Tensors, what: str) -> str:
    """Return which of `ENCODER_LAYOUTS` the names belong to.

    Raises:
        ValueError: none.
    """
    for layout, rows in ENCODER_LAYOUTS.items():
        query = next(row.theirs for row in rows if row.ours.endswith("qkv.kernel"))
        if query.format(i=0) in names:
            return layout
    first = ", ".join(list(names)[:5])
    raise ValueError(f"{what} is in none of the layouts timm, Hugging Face ViT and reference: its names start {first}")


def count_blocks(names: Tensors, rows: Sequence[Row]) -> int:
    """Return one more than the highest block that any name belongs to."""
    prefixes = {row.theirs.split("{i}")[0] for row in rows if "{i}" in row.theirs}
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, prefixes))})(\d+)\.")
    return max((int(found[1]) + 1 for name in names if (found := pattern.match(name))), default=0)


def infer_heads(width: int, heads: int | None, setting: str) -> int:
    """Return the attention heads: `heads`, else one for each 64 channels.

    Raises:
        ValueError: they do not divide the width, or cannot be guessed.
    """
    if heads is None and width % HEAD_WIDTH:
        raise ValueError(
            f"{setting}: shapes do not tell it, and the usual head width {HEAD_WIDTH} does not divide the width "
            f"{width}: give {setting}=…"
        )
    heads = width // HEAD_WIDTH if heads is None else heads
    if heads < 1 or width % heads:
        raise ValueError(f"{setting}={heads} does not divide the width {width}: give the number it was made with")
    return heads


def infer_encoder(
    arrays: Tensors, rows: Sequence[Row], num_heads: int | None, image_size: int | Sequence[int] | None, what: str
) -> dict[str, Any]:
    """Return the `ViTEncoder` arguments that fit the tensors.

    Raises:
        ValueError: the patch embedding or the position table is missing or of no use, or a setting must be given.
    """
    kernel, table, token = (
        encoder_row(tuple(rows), ours) for ours in ("patch_embedding.kernel", "positions", "class_token")
    )
    _need(arrays, kernel, 4, what)
    _need(arrays, table, 3, what)
    width, channels, patch_size, other_side = arrays[kernel].shape
    if channels != 3 or patch_size != other_side:
        raise ValueError(
            f"{what} cannot be loaded: {kernel} cuts no square patches of 3 colours: {arrays[kernel].shape}"
        )
    grid, has_row = infer_grid(arrays[table], token in arrays, patch_size, image_size, what)
    # With neither token nor row there never was one; a row without its token is a token that went missing.
    class_token = token in arrays or has_row
    expected = sincos_positions(grid, width, class_token=class_token) if width % 4 == 0 else None
    held = with_class_row(arrays[table], class_token and not has_row)[0]
    fixed = expected is not None and held.shape == expected.shape and bool(np.abs(held - expected).max() < SAME_TABLE)
    return {
        "image_size": (grid[0] * patch_size, grid[1] * patch_size),
        "patch_size": patch_size,
        "width": width,
        "depth": count_blocks(arrays, rows),
        "heads": infer_heads(width, num_heads, "num_heads"),
        "positions": "sincos" if fixed else "learned",
        "class_token": class_token,
    }


def _need(arrays: Tensors, name: str, rank: int, what: str) -> None:
    if name not in arrays:
        raise ValueError(f"{what} cannot be loaded: missing: {name}")
    if arrays[name].ndim != rank:
        raise ValueError(f"{what} cannot be loaded: misshapen: {name} is {arrays[name].shape}, not of {rank} axes")


def with_class_row(table: np.ndarray, missing: bool) -> np.ndarray:
    """Return a table (1, T, D) with a zero row in front if it lacks the class token's."""
    return np.concatenate([np.zeros_like(table[:, :1]), table], axis=1) if missing else table


def infer_grid(
    table: np.ndarray, has_token: bool, patch_size: int, image_size: int | Sequence[int] | None, what: str
) -> tuple[tuple[int, int], bool]:
    """Return (rows, columns) of the patches, and whether the table (1, T, D) has a class token's row.

    A square is assumed, unless the table is the sine-cosine table of a rectangle or `image_size` says otherwise.

    Raises:
        ValueError: nothing fits, and `image_size` must be given.
    """
    length = table.shape[1]
    for rows_before in (1, 0) if has_token else (0, 1):
        grid = _grid(table[0, rows_before:], patch_size, image_size)
        if grid is not None:
            return grid, rows_before == 1
    given = "" if image_size is None else f"image_size={image_size} with "
    raise ValueError(
        f"{what}: {given}patches of {patch_size}×{patch_size} does not fit its {length} positions: "
        "give image_size=(height, width) in pixels"
    )


def _grid(positions: np.ndarray, patch_size: int, image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    patches, width = positions.shape
    if image_size is not None:
        sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(sides) != 2:
            raise ValueError(f"image_size={image_size}: give one number, or height and width")
        height, breadth = sides
        grid = (int(height) // patch_size, int(breadth) // patch_size)
        fits = grid[0] * grid[1] == patches and not int(height) % patch_size and not int(breadth) % patch_size
        return grid if fits else None
    side = math.isqrt(patches)
    grids = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    if width % 4 == 0:
        for grid in grids:
            if np.abs(positions - sincos_positions(grid, width, class_token=False)).max() < SAME_TABLE:
                return grid
    return (side, side) if side and side * side == patches else None


def infer_head(arrays: Tensors, name: str) -> dict[str, Any]:
    """Return depth, hidden width and norm (`batch`, `layer`, None; absent where shapes do not tell) of a head.

    In the reference's sequence linear layers stand at 0, 3, 6, … with norms, and at 0, 2, 4, … without.
    """
    found = {k: v for k, v in arrays.items() if re.match(rf"{name}\.\d+\.", k)}
    if not found:
        return {"depth": 0}
    indices = [int(key.split(".")[1]) for key in found]
    normed = any(value.ndim == 1 for value in found.values())
    stride = 3 if normed else 2
    depth = max(i // stride + (2 if i % stride else 1) for i in indices)
    first = found.get(f"{name}.0.weight")
    shape = {"depth": depth, **({"hidden": first.shape[0]} if first is not None and depth > 1 else {})}
    if depth == 1:
        return shape
    running = any("running" in key for key in found)
    return {**shape, "norm": ("batch" if running else "layer") if normed else None}
