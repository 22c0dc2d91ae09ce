"""Resizing a grid of positions, in NumPy, once when an encoder changes its input size."""

from __future__ import annotations

import numpy as np

CUBIC = -0.75  # PyTorch's coefficient; TensorFlow's and Keras' bicubic use another and miss by 1.6e-2


def _cubic_weights(source: int, target: int) -> np.ndarray:
    """Return the (target, source) matrix of one-axis bicubic resizing, half-pixel centres, edges repeated."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(centres).astype(int)
    weights = np.zeros((target, source))
    for offset in range(-1, 3):
        distance = np.abs(centres - (first + offset))
        near = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
        far = CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        column = np.clip(first + offset, 0, source - 1)
        np.add.at(weights, (np.arange(target), column), np.where(distance <= 1, near, far))
    return weights


def resize_positions(
    table: np.ndarray, source: tuple[int, int], target: tuple[int, int], class_token: bool = True
) -> np.ndarray:
    """Resize a position table from one patch grid to another (bicubic, a = −0.75, no antialias).

    Args:
        table: (1 + rows·columns, D); the first row, the class token's, is kept. (rows·columns, D) without one.
        source: (rows, columns) of `table`.
        target: (rows, columns) wanted.
        class_token: the table has a class token's row.

    Returns:
        float32 (1 + target rows · target columns, D), or without the first row.
    """
    if source == target:
        return table.astype("float32")
    prefix_tokens = int(class_token)
    grid = table[prefix_tokens:].reshape(*source, -1).astype("float64")
    rows, columns = (_cubic_weights(s, t) for s, t in zip(source, target, strict=True))
    resized = np.einsum("ry,cx,yxd->rcd", rows, columns, grid)
    return np.concatenate([table[:prefix_tokens], resized.reshape(-1, table.shape[1])]).astype("float32")
