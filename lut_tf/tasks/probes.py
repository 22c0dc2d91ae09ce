"""What the encoder of a pre-training run is worth: before, during and after it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lut_tf.config import Config
from lut_tf.data.reading.listing import NO_LABELS, ONE_CLASS
from lut_tf.data.reading.sources import Parts, Source
from lut_tf.evaluate import probe
from lut_tf.evaluate.features import sample
from lut_tf.evaluate.few_shot import DRAWS
from lut_tf.models.encoder import ViTEncoder

Rows = dict[str, dict[str, float]]
"""Accuracies by what was measured and how; see `probe.measure`."""
ROWS = {"raw pixels", "random encoder", "trained encoder"}
PROBES = {"knn", "linear"}
FEW_SHOT = {f"{shots}_shot" for shots in probe.SHOTS}  # not in a table that an earlier version began

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probes:
    """k-NN and linear probe: on the validation part while training, on the held-out part before and after.

    Attributes:
        config: of the run.
        parts: its images.
        path: where the closing table's figures are kept.
        why_not: why nothing can be measured, as far as their listing tells (`Listing.why_no_probes`).
        same_images: the figures that are kept are of these evaluation images.
    """

    config: Config
    parts: Parts
    path: Path
    why_not: str = ""
    same_images: bool = True

    @property
    def final(self) -> Source | None:
        """What the closing table is about."""
        return self.parts.final

    @cached_property
    def why_none(self) -> str:
        """Why the encoder is not measured, and what would change that; empty where it is."""
        if self.why_not:
            return self.why_not
        assert self.final is not None and self.final.labels is not None and self.parts.train.labels is not None
        if not len(sample(self.final.labels, 1)):
            return "the evaluation images have no labels"
        known = self.parts.train.labels
        classes = len(np.unique(known[sample(known, self.config.probe.images)]))
        if classes < 2:
            return ONE_CLASS if classes else NO_LABELS
        if not self.config.probe.asked:
            return "none are asked for (probe.every, probe.before_and_after)"
        return ""

    @property
    def possible(self) -> bool:
        """Whether there are labels to learn from and images to ask about."""
        return not self.why_none

    @property
    def every(self) -> int:
        """Epochs between two measures while training; 0: none."""
        return self.config.probe.every if self.possible else 0

    @property
    def title(self) -> str:
        """The closing table's heading."""
        return f"accuracy on {self._asked(self.final)}"

    @property
    def said(self) -> str:
        """What is measured on which images, or why nothing is; empty where nothing is wanted."""
        if not self.possible:
            return f"no probes: {self.why_none}"
        lines = []
        if 0 < self.every <= self.config.epochs:
            often = "each epoch" if self.every == 1 else f"every {self.every} epochs"
            lines.append(f"k-NN and linear {often} on {self._asked(self.parts.validation)}")
        if self._wanted:
            lines.append(f"the closing table on {self._asked(self.final)}")
        return f"probes: {'; '.join(lines)}" if lines else ""

    def _asked(self, queries: Source | None) -> str:
        asked = min(len(queries), self.config.probe.queries) if queries else 0
        return f"{asked} {self.parts.name(queries)} images"

    @property
    def explanation(self) -> str:
        """What the closing table's columns learn from."""
        used = min(self.config.probe.images, len(self.parts.train))
        return (
            f"1 label, 5 labels: that many labelled images a class, nearest class mean, mean of {DRAWS} draws; "
            f"k-NN, linear: {used} labelled images"
        )

    def while_training(self, encoder: ViTEncoder) -> dict[str, float]:
        """Measure an encoder on the validation part."""
        assert self.parts.validation is not None
        return probe.encoder_probe(encoder, self.parts.train, self.parts.validation, self.config.probe)

    def before(self, encoder: ViTEncoder) -> Rows:
        """Measure the pixels of small images and the untrained encoder; figures that the run directory has stay."""
        if not self._wanted:
            return {}
        if (known := self._known()) is not None:
            return known
        assert self.final is not None
        size, wanted = self.config.encoder.image_size, self.config.probe
        pixels = probe.pixel_probe(size, self.parts.train, self.final, wanted)
        rows = {"raw pixels": pixels} if pixels else {}
        rows["random encoder"] = self._closing(encoder)
        probe.save(self.path, rows)
        return rows

    def _known(self) -> Rows | None:
        """Return the figures that the run directory has; None where it has none, or what no probe has written."""
        if not self.path.exists():
            return None
        if not self.same_images:
            logger.warning("the evaluation images are others than before: the untrained encoder is measured anew")
            return None
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            good = rows.keys() <= ROWS and all(map(_is_row, rows.values()))
        except (ValueError, AttributeError, TypeError):
            good = False
        if not good or "random encoder" not in rows:
            logger.warning("%s is damaged: the untrained encoder is measured anew", self.path)
            return None
        return rows

    def after(self, encoder: ViTEncoder, rows: Rows) -> Rows:
        """Add the trained encoder to `before`'s figures."""
        if not self._wanted:
            return rows
        rows = {**rows, "trained encoder": self._closing(encoder)}
        probe.save(self.path, rows)
        return rows

    def completed(self, encoder: ViTEncoder, rows: Rows) -> Rows:
        """Return a complete run's whole table; the trained encoder is measured only if it is not in it."""
        return rows if not rows or "trained encoder" in rows else self.after(encoder, rows)

    @property
    def _wanted(self) -> bool:
        return self.possible and self.config.probe.before_and_after

    def _closing(self, encoder: ViTEncoder) -> dict[str, float]:
        assert self.final is not None
        return probe.encoder_probe(encoder, self.parts.train, self.final, self.config.probe, few_shot=True)


def _is_row(row: dict[str, float]) -> bool:
    return PROBES <= row.keys() <= PROBES | FEW_SHOT and all(0 <= figure <= 1 for figure in row.values())
