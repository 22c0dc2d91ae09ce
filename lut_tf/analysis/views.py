"""A picture of what a run is fed: both views of some images, what was done to them, and what is masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lut_tf.config import Config
from lut_tf.data.batches.pretraining import pretraining_dataset
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import open_sources
from lut_tf.methods.masking import MaskPlan, plan_flags
from lut_tf.methods.registry import METHODS
from lut_tf.models.colour import BLUR, GRAYSCALE, SOLARIZE, Colour, apply_colour
from lut_tf.writing import replacing

HIDDEN = np.array([92, 107, 148], np.uint8)  # slate blue: photographs and digits have gray of their own
THROWN = np.array([28, 28, 32], np.uint8)
Images = NDArray[np.uint8]


def show_views(config: Config, path: Path, images: int = 8, step: int = 0, listing: Listing | None = None) -> None:
    """Draw the first images of a training step as the run will see them: one row an image.

    Where the data set is smaller than a batch, which no run can be, its batch is the whole of it.

    Args:
        config: validated; its data, views, encoder's size, method and seed are shown.
        path: the PNG file to write.
        images: how many of the step's images.
        step: the optimizer step, from 0.
        listing: of the images, if there is one.

    Raises:
        FileNotFoundError, ValueError: as `open_sources` and `pretraining_dataset`.
    """
    source, side = open_sources(config.data, listing).train, config.encoder.image_size
    method, encoder = METHODS[config.method.name], config.encoder.size()
    places, guided = config.method.places(side, encoder.patch_size), config.method.masking.name == "attention"
    size = min(config.optimizer.batch_size, len(source))
    # Read no more of a batch than is shown: host 0 of so many has its first images.
    share = next(part for part in range(min(images, size), size + 1) if size % part == 0)
    dataset = pretraining_dataset(
        source,
        batch_size=size,
        image_size=side,
        views=config.views,
        seed=config.seed,
        steps=step + 1,
        noise_length=method.noise_numbers(config.method, places, encoder.depth),
        start_step=step,
        view_count=method.view_count,
        parallel_calls=config.data.parallel_calls,
        hosts=size // share,
    )
    try:
        batch = {name: value[:images] for name, value in next(dataset.as_numpy_iterator()).items()}
    except tf.errors.OpError:
        damage = getattr(source, "damage", None)
        if damage is not None and damage.end is not None:  # said in one line, as a run says it
            raise damage.end from None
        raise
    # What guides a mask is known in training alone: here all patches weigh the same.
    weights = np.ones((len(batch["noise"]), config.encoder.patches), "float32") if guided else None
    plans = method.plans(batch["noise"], places, weights)
    title = f"step {step} of {config.data.source}, seed {config.seed}"
    title += ", masks drawn with equal weights (attention is known in training)" if guided else ""
    draw_views(batch, plans, config.encoder.grid, path, title)


def draw_views(
    batch: dict[str, Any], plans: tuple[MaskPlan, ...], grid: tuple[int, int], path: Path, title: str = ""
) -> None:
    """Draw a batch of `pretraining_dataset`: each view, and what the student sees of it.

    Args:
        batch: NumPy arrays.
        plans: the mask plan of each view, as the method makes them from the batch's noise.
        grid: (rows, columns) of patches.
        path: the PNG file to write.
        title: a line above the picture.
    """
    views = {"view 1": batch["view1"]}
    if "view2" in batch:
        views["view 2"] = _coloured(batch)
    columns = []
    for (name, images), plan in zip(views.items(), plans, strict=True):
        columns += [(name, images), (f"visible of {name}", _masked(images, plan, grid))]
    _draw(columns, [describe(batch, row) for row in range(len(batch["index"]))], path, title)


def describe(batch: dict[str, Any], row: int) -> str:
    """Say in a few lines what was done to one image of a batch."""
    lines = [f"image {batch['index'][row]}", _cut("view 1", batch["geometry1"][row])]
    if "view2" in batch:
        lines += [_cut("view 2", batch["geometry2"][row]), *_jitter(Colour(*batch["colour"][row]))]
    return "\n".join(lines)


def _cut(name: str, geometry: NDArray[np.float32]) -> str:
    top, left, height, width, flipped = geometry
    rows, columns = f"{top:.0%} to {top + height:.0%}", f"{left:.0%} to {left + width:.0%}"
    return f"{name}: rows {rows},\n  columns {columns}{', flipped' if flipped else ''}"


def _jitter(colour: Colour) -> list[str]:
    """Name the colour decisions in the order in which they are applied."""
    done = [
        (colour.brightness_at, f"brightness × {colour.brightness:.2f}", colour.brightness != 1),
        (colour.contrast_at, f"contrast × {colour.contrast:.2f}", colour.contrast != 1),
        (colour.saturation_at, f"saturation × {colour.saturation:.2f}", colour.saturation != 1),
        (colour.hue_at, f"hue {360 * colour.hue:+.0f}°", colour.hue != 0),
    ]
    names = [f"  {name}" for _, name, happened in sorted(done) if happened]
    last = {
        GRAYSCALE: "grayscale",
        SOLARIZE: f"solarize from {colour.solarize_threshold:.0f}",
        BLUR: f"blur {colour.blur_radius:.1f} px",
    }
    return [*names, f"  {last[int(colour.choice)]}"] if colour.choice else names


def _coloured(batch: dict[str, Any]) -> Images:
    coloured = ops.convert_to_numpy(apply_colour(batch["view2"], batch["colour"]))
    return np.clip(np.round(coloured), 0, 255).astype(np.uint8)


def _masked(images: Images, plan: MaskPlan, grid: tuple[int, int]) -> Images:
    """Paint the masked patches of the images (B, H, W, 3) slate blue, the thrown ones nearly black."""
    rows, columns = grid
    flags = ops.convert_to_numpy(plan_flags(plan))
    tall, wide = images.shape[1] // rows, images.shape[2] // columns
    pixels = flags.reshape(-1, rows, columns).repeat(tall, axis=1).repeat(wide, axis=2)[..., None]
    return np.where(pixels > 0, HIDDEN, np.where(pixels < 0, THROWN, images))


def _draw(columns: list[tuple[str, Images]], captions: list[str], path: Path, title: str) -> None:
    rows = len(captions)
    figure = Figure(figsize=(1.75 * (len(columns) + 1.15), 1.75 * rows + 0.5), dpi=110, layout="constrained")
    axes = figure.subplots(rows, len(columns) + 1, squeeze=False, width_ratios=[1] * len(columns) + [1.15])
    for column, (name, images) in enumerate(columns):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
    for row, caption in enumerate(captions):
        axes[row, -1].text(0, 1, caption, fontsize=7, va="top", transform=axes[row, -1].transAxes)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    with replacing(path) as written:
        figure.savefig(written)
