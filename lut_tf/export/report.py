"""What an export tells: a file, its size, and how far its outputs are from the encoder's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lut_tf.errors import Stopped

COLUMNS = ("file", "size", "output", "largest difference", "tolerance", "batch sizes")


class ExportError(Stopped, ValueError):
    """A file does not hold what its encoder computes, or cannot be opened by the runtime that it is meant for."""


@dataclass(frozen=True)
class Report:
    """One verified file.

    Attributes:
        path: the ONNX file or the SavedModel's directory.
        size: bytes on disk, all files of a directory together.
        differences: output -> largest absolute difference from the encoder in float32, over all images and batch sizes.
        tolerances: output -> what was allowed, 1e-4 · max(1, rms of the encoder's output).
        batch_sizes: numbers of images that the file was called with.
    """

    path: Path
    size: int
    differences: Mapping[str, float]
    tolerances: Mapping[str, float]
    batch_sizes: tuple[int, ...]

    def __str__(self) -> str:
        """Return the report as a table with a line for each output."""
        return table([self])


def table(reports: Iterable[Report]) -> str:
    """Return several reports as one table, a line for each output of each file."""
    rows = [COLUMNS, *(row for report in reports for row in _rows(report))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _rows(report: Report) -> list[tuple[str, ...]]:
    batches = ", ".join(map(str, report.batch_sizes))
    first = (str(report.path), f"{report.size / 1e6:.1f} MB")
    return [
        (*(first if i == 0 else ("", "")), name, f"{difference:.1e}", f"{report.tolerances[name]:.1e}", batches)
        for i, (name, difference) in enumerate(report.differences.items())
    ]
