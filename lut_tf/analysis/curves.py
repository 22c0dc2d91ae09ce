"""Loss and accuracy curves of a run as one figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lut_tf.writing import replacing

LOSSES = {"loss": "total", "reconstruction": "reconstruction", "context": "context"}
ACCURACIES = {"validation_top1": "top-1", "validation_top5": "top-5"}
PROBES = {"probe_knn": "k-NN, validation images", "probe_linear": "linear, validation images"}


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a run's `metrics.jsonl`, one dict an epoch."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _plot(axes: Axes, lines: list[dict[str, float]], names: dict[str, str], **style: Any) -> None:
    for name, label in names.items():
        points = [(line["epoch"], line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


def draw_curves(metrics: Path, path: Path, baselines: dict[str, dict[str, float]] | None = None) -> None:
    """Draw losses (left) and probe accuracies (right, where there are any).

    Args:
        metrics: a run's `metrics.jsonl`.
        path: the PNG file to write.
        baselines: accuracies `knn` and `linear` to draw as level lines, by name.
    """
    lines = read_metrics(metrics)
    probed = any(name in line for line in lines for name in PROBES)
    figure = Figure(figsize=(10 if probed else 5.5, 4), dpi=100, layout="constrained")
    axes = figure.subplots(1, 2 if probed else 1, squeeze=False)[0]
    parts = LOSSES if any("context" in line for line in lines) else {"loss": "reconstruction"}
    _plot(axes[0], lines, parts, marker="." if len(lines) < 20 else None)
    axes[0].set_ylabel("loss")
    axes[0].legend()
    if probed:
        _plot(axes[1], lines, PROBES, marker="o")
        for style, (name, row) in zip((":", "--", "-."), (baselines or {}).items(), strict=False):
            axes[1].axhline(row["knn"], color="C0", linestyle=style, linewidth=1, label=f"k-NN, {name} (closing table)")
            axes[1].axhline(
                row["linear"], color="C1", linestyle=style, linewidth=1, label=f"linear, {name} (closing table)"
            )
        axes[1].set_ylabel("accuracy")
        axes[1].legend(fontsize=8)
    if parts is LOSSES:
        figure.supxlabel(
            "context falls while the teacher says nearly the same of all images,\n"
            "rises as it learns to tell them apart, and falls as the student follows",
            fontsize=7.5,
        )
    with replacing(path) as written:
        figure.savefig(written)


def draw_accuracy_curves(metrics: Path, path: Path, best_epoch: int | None = None) -> None:
    """Draw a fine-tuning run's training loss (left) and validation accuracies (right, where there are any).

    Args:
        metrics: the run's `metrics.jsonl`.
        path: the PNG file to write.
        best_epoch: the epoch, from 1, whose classifier was kept as the best.
    """
    lines = read_metrics(metrics)
    measured = any(name in line for line in lines for name in ACCURACIES)
    figure = Figure(figsize=(10 if measured else 5.5, 4), dpi=100, layout="constrained")
    axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    _plot(axes[0], lines, {"loss": "cross-entropy, mixed and smoothed"}, marker="." if len(lines) < 20 else None)
    axes[0].set_ylabel("training loss")
    axes[0].legend()
    if measured:
        _plot(axes[1], lines, ACCURACIES, marker="o" if len(lines) < 40 else None)
        if best_epoch is not None:
            axes[1].axvline(
                best_epoch, color="0.4", linestyle=":", linewidth=1, label=f"best top-1, epoch {best_epoch}"
            )
        axes[1].set_ylabel("accuracy on validation images")
        axes[1].legend()
    with replacing(path) as written:
        figure.savefig(written)
