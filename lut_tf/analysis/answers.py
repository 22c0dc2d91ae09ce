"""A picture of images and what a classifier says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lut_tf.writing import replacing

COLUMNS, LETTERS = 4, 26
BAR, REST = "#5c6b94", "#e3e6ee"  # slate blue, as what is hidden in the other pictures


def draw_answers(
    images: Sequence[NDArray[np.uint8]],
    captions: Sequence[tuple[str, Sequence[tuple[str, float]]]],
    path: Path,
) -> None:
    """Draw a grid: each image, its name above, and below it a bar for each of the likeliest classes.

    Args:
        images: uint8 (H, W, 3), as the classifier sees them.
        captions: of each its name, and the (name, probability) of its likeliest classes, the likeliest first.
        path: the PNG file to write.
    """
    across = min(COLUMNS, len(images))
    rows = -(-len(images) // across)
    figure = Figure(figsize=(2.4 * across + 0.3, 3.5 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(2 * rows, across, squeeze=False, height_ratios=[2.2, 1.1] * rows)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (image, (name, answers)) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(number, across)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        above.imshow(image, interpolation="nearest")
        above.set_title(_cut(name), fontsize=8, parse_math=False)
        for place, (words, share) in enumerate(answers):
            below.barh([-place], [1], color=REST, height=0.8)
            below.barh([-place], [share], color=BAR, height=0.8, alpha=0.55)
            below.text(0.02, -place, _cut(words), fontsize=7, va="center", parse_math=False)
            below.text(0.98, -place, f"{share:.1%}", fontsize=7, va="center", ha="right")
        below.set_xlim(0, 1)
        below.set_ylim(-4.6, 0.6)
    with replacing(path) as written:
        figure.savefig(written)


def _cut(words: str) -> str:
    return words if len(words) <= LETTERS else f"{words[: LETTERS - 1]}…"
