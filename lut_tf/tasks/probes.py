"""What the encoder of a pre-training run is worth: before, during and after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lut_tf.config import Config
from lut_tf.data.reading.listing import ONE_CLASS
from lut_tf.data.reading.sources import Parts, Source
from lut_tf.evaluate import probe
from lut_tf.evaluate.features import sample
from lut_tf.models.encoder import ViTEncoder

Rows = dict[str, dict[str, float]]
"""Accuracies `knn` and `linear` by what was measured."""


@dataclass(frozen=True)
class Probes:
    """k-NN and linear probe: on the validation part while training, on the held-out part before and after.

    Attributes:
        config: of the run.
        parts: its images.
        path: where the closing table's figures are kept.
    """

    config: Config
    parts: Parts
    path: Path

    @property
    def final(self) -> Source | None:
        """What the closing table is about."""
        return self.parts.heldout or self.parts.validation

    @cached_property
    def why_none(self) -> str:
        """Why the encoder is not measured, and what would change that; empty where it is."""
        if self.parts.train.labels is None:
            return "the training images have no labels"
        if self.final is None:
            return "there are no evaluation images (data.evaluation_path, or data.evaluation_split of tfds)"
        if self.final.labels is None or not len(sample(self.final.labels, 1)):
            return "the evaluation images have no labels"
        known = self.parts.train.labels
        classes = len(np.unique(known[sample(known, self.config.probe.images)]))
        if classes < 2:
            return ONE_CLASS if classes else "the training images have no labels"
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
        part = "held-out" if self.parts.heldout else "evaluation"
        asked = min(len(self.final), self.config.probe.queries) if self.final else 0
        return f"accuracy on {asked} {part} images"

    def while_training(self, encoder: ViTEncoder) -> dict[str, float]:
        """Measure an encoder on the validation part."""
        return self._encoder(encoder, self.parts.validation)

    def before(self, encoder: ViTEncoder) -> Rows:
        """Measure the pixels of small images and the untrained encoder; figures that the run directory has stay."""
        if not self._wanted:
            return {}
        if self.path.exists():
            return json.loads(self.path.read_text(encoding="utf-8"))
        assert self.final is not None
        size, wanted = self.config.encoder.image_size, self.config.probe
        pixels = probe.pixel_probe(size, self.parts.train, self.final, wanted)
        rows = {"raw pixels": pixels} if pixels else {}
        rows["random encoder"] = self._encoder(encoder, self.final)
        probe.save(self.path, rows)
        return rows

    def after(self, encoder: ViTEncoder, rows: Rows) -> Rows:
        """Add the trained encoder to `before`'s figures."""
        if not self._wanted:
            return rows
        rows = {**rows, "trained encoder": self._encoder(encoder, self.final)}
        probe.save(self.path, rows)
        return rows

    @property
    def _wanted(self) -> bool:
        return self.possible and self.config.probe.before_and_after

    def _encoder(self, encoder: ViTEncoder, queries: Source | None) -> dict[str, float]:
        assert queries is not None
        return probe.encoder_probe(encoder, self.parts.train, queries, self.config.probe)
