"""What a network must look like to hold given tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lut_tf.config.presets import EncoderSize
from lut_tf.interop.files import FLOATS, dtype_name
from lut_tf.interop.names import ENCODER_LAYOUTS, LAYER_NORM_EPS, Row, encoder_row
from lut_tf.interop.told import Told
from lut_tf.models.layers import LAYER_NORM_EPSILON, sincos_positions

HEAD_WIDTH = 64  # of every published ViT; asked for where it does not divide the width
ROOM = 1_000_000  # numbers that a network may have more than twice what a file holds: then some are missing
SAME_TABLE = 1e-5  # float32 tables of different programs agree to 1e-7

Tensors = Mapping[str, np.ndarray]


def detect_layout(names: Collection[str], what: str) -> str:
    """Return which of `ENCODER_LAYOUTS` the names belong to.

    Raises:
        ValueError: none.
    """
    found = {
        layout: sum(row.theirs.format(i=0) in names for row in rows)
        for layout, rows in ENCODER_LAYOUTS.items()
        if next(row.theirs for row in rows if row.ours.endswith("qkv.kernel")).format(i=0) in names
    }
    if found:
        return max(found, key=lambda layout: found[layout])
    first = ", ".join(list(names)[:5])
    raise ValueError(f"{what} is in none of the layouts timm, Hugging Face ViT and reference: its names start {first}")


def count_blocks(names: Iterable[str], rows: Sequence[Row], what: str) -> int:
    """Return how many blocks the names belong to.

    Raises:
        ValueError: their numbers do not run from 0 without a gap.
    """
    prefixes = {row.theirs.split("{i}")[0] for row in rows if "{i}" in row.theirs}
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, prefixes))})([0-9]{{1,9}})\.")
    return _without_gap({int(found[1]) for name in names if (found := pattern.match(name))}, "blocks", what)


def _without_gap(numbers: Collection[int], parts: str, what: str) -> int:
    """Return how many numbers there are, which run from 0."""
    if (absent := next((i for i in range(len(numbers)) if i not in numbers), None)) is not None:
        raise ValueError(
            f"{what} cannot be loaded: its {parts} have numbers up to {max(numbers)}, and number {absent} is missing"
        )
    return len(numbers)


def unfit(array: np.ndarray) -> str | None:
    """Return why an array cannot be weights, or None if it can."""
    if dtype_name(array) not in FLOATS:
        return f"is {dtype_name(array)}, not floats"
    if not array.size:
        return "is empty"
    with np.errstate(over="ignore"):
        return None if np.isfinite(array.astype("float32")).all() else "holds NaN or infinity"


def sizes_of(arrays: Tensors) -> list[int]:
    """Return how many numbers each tensor has."""
    return [array.size for array in arrays.values()]


def check_held(needed: int, sizes: Iterable[int], what: str = "") -> None:
    """Refuse to build a network for which the tensors are far too few, before it takes the memory.

    Args:
        needed: how many numbers the network has.
        sizes: how many numbers each tensor has, of all that there are.
        what: what is loaded, for the error message.

    Raises:
        ValueError: it is.
    """
    held = sum(sizes)
    if needed > 2 * held + ROOM:
        start = f"{what} cannot be loaded: " if what else ""
        raise ValueError(f"{start}its sizes tell of a network of {needed} numbers, and it holds {held}: it is damaged")


def block_numbers(width: int, depth: int) -> int:
    """Return how many numbers the blocks of a transformer have."""
    return depth * (12 * width**2 + 13 * width)


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


def infer_size(arrays: Tensors, layout: str, heads: int, what: str) -> EncoderSize:
    """Return patch size, width and depth that tensors show, with `heads`, which they do not.

    Raises:
        ValueError: the patch embedding is missing or of no use, or a block is missing.
    """
    rows = ENCODER_LAYOUTS[layout]
    kernel = encoder_row(rows, "patch_embedding.kernel")
    need(arrays, kernel, 4, what)
    width, channels, patch_size, other_side = arrays[kernel].shape
    if channels != 3 or patch_size != other_side:
        raise ValueError(
            f"{what} cannot be loaded: {kernel} cuts no square patches of 3 colours: {arrays[kernel].shape}"
        )
    return EncoderSize(patch_size, width, count_blocks(arrays, rows, what), heads)


def infer_encoder(
    arrays: Tensors, layout: str, told: Told, image_size: tuple[int, int] | None, what: str
) -> dict[str, Any]:
    """Return the `ViTEncoder` arguments that fit the tensors.

    Args:
        arrays: the encoder's tensors.
        layout: one of `ENCODER_LAYOUTS`.
        told: what stands beside them.
        image_size: (height, width) that is wanted: what the positions were made for, where they are as many and say
            nothing else.
        what: what is loaded, for the error message.

    Raises:
        ValueError: the patch embedding or the position table is missing or of no use, or a setting must be given.
    """
    rows = ENCODER_LAYOUTS[layout]
    kernel, table, token, registers = (
        encoder_row(rows, ours) for ours in ("patch_embedding.kernel", "positions", "class_token", "register_tokens")
    )
    patch_size, width, depth, _ = infer_size(arrays, layout, 0, what)
    for name in (table, registers):
        if name != registers or name in arrays:
            need(arrays, name, 3, what)
    count = arrays[registers].shape[1] if registers in arrays else 0
    told_sizes = [tuple(size) for size in (told.image_size, image_size) if size is not None]
    grid, before = infer_grid(arrays[table], token in arrays, count, patch_size, told_sizes, what)
    # With neither token nor row there never was one; a row without its token is a token that went missing.
    class_token = token in arrays or before not in (0, count)
    expected = sincos_positions(grid, width, class_token=class_token) if width % 4 == 0 else None
    held = split_table(arrays[table], grid[0] * grid[1], class_token)[0][0]
    fixed = expected is not None and held.shape == expected.shape and bool(np.abs(held - expected).max() < SAME_TABLE)
    check_held(block_numbers(width, depth) + arrays[kernel].size + arrays[table].size, sizes_of(arrays), what)
    scales = [row.theirs for row in rows if row.ours.endswith("scale1.gamma")]
    return {
        "image_size": (grid[0] * patch_size, grid[1] * patch_size),
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "heads": infer_heads(width, told.num_heads, "num_heads"),
        "positions": "sincos" if fixed else "learned",
        "class_token": class_token,
        "layer_norm_eps": told.layer_norm_eps or LAYER_NORM_EPS.get(layout, LAYER_NORM_EPSILON),
        "register_tokens": count,
        "layer_scale": any(scale.format(i=i) in arrays for scale in scales for i in range(depth)),
    }


def need(arrays: Tensors, name: str, rank: int, what: str) -> None:
    """Refuse tensors of which `name` is missing, has not `rank` axes, or cannot be weights.

    Raises:
        ValueError: it is so.
    """
    if name not in arrays:
        raise ValueError(f"{what} cannot be loaded: missing: {name}")
    if arrays[name].ndim != rank:
        raise ValueError(f"{what} cannot be loaded: misshapen: {name} is {arrays[name].shape}, not of {rank} axes")
    if reason := unfit(arrays[name]):
        raise ValueError(f"{what} cannot be loaded: {name} {reason}")


def split_table(table: np.ndarray, patches: int, class_token: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a table (1, T, D) as one of class token, if there is one, and patches, and the register tokens' rows.

    A class token without a row gets one of zeros; a table that holds neither kind of prefix has no rows of registers.
    """
    before = table.shape[1] - patches
    if class_token and not before:
        table, before = np.concatenate([np.zeros_like(table[:, :1]), table], axis=1), 1
    first = int(class_token)
    return np.concatenate([table[:, :first], table[:, before:]], axis=1), table[:, first:before]


def infer_grid(
    table: np.ndarray, has_token: bool, registers: int, patch_size: int, sizes: Sequence[tuple[int, ...]], what: str
) -> tuple[tuple[int, int], int]:
    """Return (rows, columns) of the patches, and how many rows of the table (1, T, D) come before theirs.

    A sine-cosine table says it; else the first of `sizes`, (height, width) in pixels, that has as many patches; else it
    is a square.

    Raises:
        ValueError: nothing fits, and `image_size` must be given.
    """
    length = table.shape[1]
    prefixes = (1, 1 + registers, 0) if has_token else (0, registers, 1)
    for told in (True, False):
        for before in dict.fromkeys(prefixes):
            if before < length and (grid := _grid(table[0, before:], patch_size, sizes, told)):
                return grid, before
    given = "".join(f"image_size={size} with " for size in sizes)
    raise ValueError(
        f"{what}: {given}patches of {patch_size}×{patch_size} does not fit its {length} positions: "
        "give image_size=(height, width) in pixels"
    )


def _grid(
    positions: np.ndarray, patch_size: int, sizes: Sequence[tuple[int, ...]], told: bool
) -> tuple[int, int] | None:
    """Return the grid that positions (L, D) themselves or the sizes tell; or, if not `told`, the square of as many."""
    patches, width = positions.shape
    if not told:
        side = math.isqrt(patches)
        return (side, side) if side * side == patches else None
    if width % 4 == 0:
        for rows in (rows for rows in range(1, patches + 1) if patches % rows == 0):
            grid = rows, patches // rows
            if np.abs(positions - sincos_positions(grid, width, class_token=False)).max() < SAME_TABLE:
                return grid
    for height, breadth in sizes:
        grid = height // patch_size, breadth // patch_size
        if grid[0] * grid[1] == patches and not height % patch_size and not breadth % patch_size:
            return grid
    return None


def infer_head(arrays: Tensors, name: str, width: int, what: str) -> dict[str, Any]:
    """Return depth, hidden width and norm (`batch`, `layer`, None; absent where shapes do not tell) of a head.

    In the reference's sequence linear layers stand at 0, 3, 6, … with norms, and at 0, 2, 4, … without.

    Raises:
        ValueError: layers are missing between others, or the tensors are too few for it.
    """
    found = {k: v for k, v in arrays.items() if re.match(rf"{name}\.[0-9]{{1,9}}\.", k)}
    if not found:
        return {"depth": 0}
    indices = [int(key.split(".")[1]) for key in found]
    normed = any(value.ndim == 1 for value in found.values())
    stride = 3 if normed else 2
    _without_gap({i // stride for i in indices}, f"layers of {name}", what)
    depth = max(i // stride + (2 if i % stride else 1) for i in indices)
    first = found.get(f"{name}.0.weight")
    hidden = first.shape[0] if first is not None and first.ndim == 2 and depth > 1 else None
    shape = {"depth": depth, **({} if hidden is None else {"hidden": hidden})}
    if depth == 1:
        return shape
    if hidden is not None:
        check_held(2 * width * hidden + (depth - 2) * hidden**2, sizes_of(arrays), what)
    running = any("running" in key for key in found)
    return {**shape, "norm": ("batch" if running else "layer") if normed else None}
