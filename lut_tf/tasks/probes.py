"""What the encoder of a pre-training run is worth: before, during and after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lut_tf.config import Config
from lut_tf.data.reading.sources import Parts, Source
from lut_tf.evaluate import probe
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

    @property
    def possible(self) -> bool:
        """Whether there are labels to learn from and images to ask about."""
        return self.parts.train.labels is not None and self.final is not None

    @property
    def title(self) -> str:
        """The closing table's heading."""
        part = "held-out" if self.parts.heldout else "evaluation"
        return f"accuracy on {len(self.final)} {part} images" if self.final else ""

    def while_training(self, encoder: ViTEncoder) -> dict[str, float]:
        """Measure an encoder on the validation part."""
        return self._encoder(encoder, self.parts.validation)

    def before(self, encoder: ViTEncoder) -> Rows:
        """Measure the pixels and the untrained encoder, unless the run directory has the figures; keep them there."""
        if not self.possible:
            return {}
        if self.path.exists():
            return json.loads(self.path.read_text(encoding="utf-8"))
        assert self.final is not None
        wanted, size = self.config.probe, self.config.encoder.image_size
        pixels = probe.pixel_probe(size, self.parts.train, self.final, wanted.neighbours, wanted.images)
        rows = {"raw pixels": pixels, "random encoder": self._encoder(encoder, self.final)}
        probe.save(self.path, rows)
        return rows

    def after(self, encoder: ViTEncoder, rows: Rows) -> Rows:
        """Add the trained encoder to `before`'s figures."""
        if not self.possible:
            return rows
        rows = {**rows, "trained encoder": self._encoder(encoder, self.final)}
        probe.save(self.path, rows)
        return rows

    def _encoder(self, encoder: ViTEncoder, queries: Source | None) -> dict[str, float]:
        assert queries is not None
        wanted = self.config.probe
        return probe.encoder_probe(encoder, self.parts.train, queries, wanted.neighbours, wanted.images)
