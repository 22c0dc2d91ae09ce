"""Which classes a classifier takes for which, as a picture that can be read at ten classes and at a thousand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lut_tf.writing import replacing

NAMED, NUMBERED = 40, 15
"""Up to how many classes have their names at the sides, and their numbers in the fields."""
LISTED = 20
MOST = 1000
"""Rows of the picture; of more classes, neighbours share one."""
LONGEST = 22


def confusion_matrix(guessed: NDArray[np.integer[Any]], labels: NDArray[np.int32], classes: int) -> NDArray[np.int64]:
    """Count the images of each class (rows) by the class that they are taken for (columns).

    Args:
        guessed: (N,).
        labels: (N,).
        classes: C; of more than `MOST`, neighbours share a row and a column.

    Returns:
        (min(C, MOST), min(C, MOST)).
    """
    rows = min(classes, MOST)
    found = np.zeros((rows, rows), np.int64)
    np.add.at(found, (labels.astype(np.int64) * rows // classes, guessed.astype(np.int64) * rows // classes), 1)
    return found


def draw_confusion(
    guessed: NDArray[np.integer[Any]],
    labels: NDArray[np.int32],
    names: Sequence[str],
    confusions: Sequence[tuple[int, int, int]],
    path: Path,
    title: str,
) -> None:
    """Draw the share of each class' images that are taken for each class.

    Few classes have names and per cent; of many, the colour is logarithmic, and the most frequent confusions are listed
    beside.

    Args:
        guessed: (N,) the likeliest class of each image.
        labels: (N,) its class.
        names: of all classes.
        confusions: (class, class that it was taken for, how often), the most frequent first.
        path: the PNG file to write.
        title: above the picture.
    """
    counts, few = confusion_matrix(guessed, labels, len(names)), len(names) <= NAMED
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 3.5 + 0.22 * len(names) if few else 8.0
    figure = Figure(figsize=(side + 1, side) if few else (13.5, 8.5), dpi=110, layout="constrained")
    axes, *beside = figure.subplots(1, 1 if few else 2, squeeze=False, width_ratios=[1] if few else [2, 1])[0]
    norm = None if few else LogNorm(vmin=max(1e-3, float(np.min(shares[shares > 0], initial=1.0))), vmax=1.0)
    picture = axes.imshow(
        shares if few else np.where(shares > 0, shares, np.nan),
        cmap="Blues" if few else "viridis_r",
        norm=norm,
        vmin=0.0 if few else None,
        vmax=1.0 if few else None,
        interpolation="nearest",
        extent=None if few else (0, len(names), len(names), 0),
    )
    axes.set_title(title)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if few:
        _name(axes, names)
    if len(names) <= NUMBERED:
        _number(axes, shares)
    figure.colorbar(picture, ax=axes, label="share of the class' images", shrink=0.8)
    for list_axes in beside:
        _list(list_axes, labels, names, confusions)
    with replacing(path) as written:
        figure.savefig(written)


def _name(axes: Axes, names: Sequence[str]) -> None:
    words = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), words, rotation=90 if max(map(len, words)) > 2 else 0)
    axes.set_yticks(range(len(names)), words)


def _number(axes: Axes, shares: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share:
            shown = f"{100 * share:.0f}" if share >= 0.005 else "·"
            axes.text(
                column, row, shown, ha="center", va="center", fontsize=7, color="white" if share > 0.5 else "black"
            )


def _list(
    axes: Axes, labels: NDArray[np.int32], names: Sequence[str], confusions: Sequence[tuple[int, int, int]]
) -> None:
    """List the most frequent confusions."""
    axes.set_axis_off()
    images = np.bincount(labels, minlength=len(names))
    lines = [
        f"{_short(names[truth])} → {_short(names[other])}: {times} of {images[truth]}"
        for truth, other, times in confusions[:LISTED]
    ]
    text = "\n".join(["most often taken for another:", "", *lines]) if lines else "no image is taken for another class"
    axes.text(0.0, 1.0, text, va="top", fontsize=9, linespacing=1.5, transform=axes.transAxes)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 + 1 :]}"
