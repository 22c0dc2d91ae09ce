"""Pictures of what the student sees, and what it makes of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from matplotlib.figure import Figure

from lut_tf.methods.base import MaskedImageModel
from lut_tf.models.preprocess import Preprocessing, denormalise
from lut_tf.writing import replacing

HIDDEN = np.array([0.36, 0.42, 0.58])  # slate blue: photographs and digits have gray of their own
THROWN = np.array([0.11, 0.11, 0.125])


def _shown(images: Any, preprocessing: Preprocessing, gray: bool) -> np.ndarray:
    """Return normalised images as float (B, H, W, 3) in 0..1, for drawing; of `gray` ones the mean of the colours."""
    values = np.clip(ops.convert_to_numpy(denormalise(images, preprocessing)) / 255.0, 0.0, 1.0)
    return np.broadcast_to(values.mean(axis=-1, keepdims=True), values.shape) if gray else values


def _is_gray(images: Any, preprocessing: Preprocessing) -> bool:
    """Tell whether the three colours of all images are the same, as those of handwritten digits are."""
    values = ops.convert_to_numpy(denormalise(images, preprocessing))
    return bool(np.ptp(values, axis=-1).max() < 0.5)


def _hidden(images: np.ndarray, mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Paint masked patches slate blue, thrown ones nearly black: images (B, H, W, 3), mask (B, L) of 1, -1 and 0."""
    pixels = _per_pixel(images, mask, grid)
    return np.where(pixels > 0, HIDDEN, np.where(pixels < 0, THROWN, images))


def _weighed(images: np.ndarray, weights: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Darken the patches of images (B, H, W, 3) that weigh little: weights (B, L); the heaviest stays as it is."""
    return images * _per_pixel(images, weights / np.maximum(weights.max(axis=1, keepdims=True), 1e-30), grid)


def _per_pixel(images: np.ndarray, values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return a value for each patch (B, L) of a (rows, columns) grid as one for each pixel, (B, H, W, 1)."""
    rows, columns = grid
    tall, wide = images.shape[1] // rows, images.shape[2] // columns
    return values.reshape(-1, rows, columns).repeat(tall, axis=1).repeat(wide, axis=2)[..., None]


def draw_reconstructions(model: MaskedImageModel, batch: dict[str, Any], path: Path, title: str = "") -> None:
    """Draw one row an image: view 1, what the student sees of it, the reconstructions, view 2 and what it sees of that.

    Args:
        model: any masked-image model.
        batch: as for `compute_losses`; every image in it is drawn.
        path: the PNG file to write.
        title: a line above the picture.
    """
    pictures = model.reconstruct(batch)
    how = model.encoder.preprocessing
    gray = _is_gray(pictures["view1"], how)  # what a network paints of gray images is a little coloured, by chance
    shown = partial(_shown, preprocessing=how, gray=gray)
    mask, grid = ops.convert_to_numpy(pictures["mask"]), model.encoder.grid
    view1, thrown = shown(pictures["view1"]), np.minimum(mask, 0)
    columns = [
        ("view 1", view1),
        ("visible to the student", _hidden(view1, mask, grid)),
        ("reconstruction", _hidden(shown(pictures["reconstruction"]), thrown, grid)),
    ]
    if "unaided" in pictures:
        columns.append(("without its contrast", _hidden(shown(pictures["unaided"]), thrown, grid)))
    if "weights" in pictures:
        columns.insert(1, ("attention", _weighed(view1, ops.convert_to_numpy(pictures["weights"]), grid)))
    if "view2" in pictures:
        view2 = shown(pictures["view2"])
        columns.append(("view 2", view2))
    if "mask2" in pictures:
        columns.append(("visible of view 2", _hidden(view2, ops.convert_to_numpy(pictures["mask2"]), grid)))
    legend = "slate blue: masked · reconstruction: predicted where masked, pasted with the visible patches of view 1"
    if "unaided" in pictures:
        legend += (
            "\nthe loss is normalised per patch: each predicted patch is given its target's own mean and contrast,"
            "\nand, without its contrast, those of the visible patches, which is all that a network can know"
        )
    if "weights" in pictures:
        legend += "\nnearly black: thrown away, seen by nothing · attention: the darker, the less a patch weighs"
    if gray:
        legend += "\ngray images: the mean of the predicted colours is shown"
    _draw_grid(columns, path, title, legend)


def _draw_grid(columns: list[tuple[str, np.ndarray]], path: Path, title: str, legend: str) -> None:
    rows = len(columns[0][1])
    figure = Figure(figsize=(max(6.5, 1.7 * len(columns)), 1.55 * rows + 1.0), dpi=100, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in enumerate(columns):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
            axes[row, column].set_axis_off()
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.supxlabel(legend, fontsize=7.5)
    with replacing(path) as written:
        figure.savefig(written)
