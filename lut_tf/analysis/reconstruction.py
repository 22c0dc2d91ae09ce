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


def _shown(images: Any, preprocessing: Preprocessing) -> np.ndarray:
    """Return normalised images as float (B, H, W, 3) in 0..1, for drawing."""
    return np.clip(ops.convert_to_numpy(denormalise(images, preprocessing)) / 255.0, 0.0, 1.0)


def _hidden(images: np.ndarray, mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Paint masked patches slate blue: images (B, H, W, 3), mask (B, L) of a (rows, columns) grid."""
    rows, columns = grid
    per_patch = mask.reshape(-1, rows, columns)
    tall, wide = images.shape[1] // rows, images.shape[2] // columns
    pixels = per_patch.repeat(tall, axis=1).repeat(wide, axis=2)[..., None]
    return np.where(pixels > 0, HIDDEN, images)


def draw_reconstructions(model: MaskedImageModel, batch: dict[str, Any], path: Path, title: str = "") -> None:
    """Draw one row an image: view 1, what the student sees of it, the reconstruction, view 2 and what it sees of that.

    Args:
        model: any masked-image model.
        batch: as for `compute_losses`; every image in it is drawn.
        path: the PNG file to write.
        title: a line above the picture.
    """
    pictures = model.reconstruct(batch)
    shown = partial(_shown, preprocessing=model.encoder.preprocessing)
    mask, grid = ops.convert_to_numpy(pictures["mask"]), model.encoder.grid
    view1 = shown(pictures["view1"])
    columns = [
        ("view 1", view1),
        ("visible to the student", _hidden(view1, mask, grid)),
        ("reconstruction", shown(pictures["reconstruction"])),
    ]
    if "view2" in pictures:
        view2 = shown(pictures["view2"])
        columns.append(("view 2", view2))
    if "mask2" in pictures:
        columns.append(("visible of view 2", _hidden(view2, ops.convert_to_numpy(pictures["mask2"]), grid)))
    legend = "slate blue: masked · reconstruction: predicted where masked, pasted with the visible patches of view 1"
    if model.norm_pix_loss:
        legend += "\n(each predicted patch has its target's own mean and contrast: the loss is normalised per patch)"
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
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(legend, fontsize=7.5)
    with replacing(path) as written:
        figure.savefig(written)
