"""Which images a probe's settings are chosen by, and which it is scored on: never the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lut_tf.config import LinearProbeConfig
from lut_tf.data.reading.holdout import held_out
from lut_tf.data.reading.sources import Chosen, Parts, Source
from lut_tf.evaluate.linear_heads import known_labels


class Judges(NamedTuple):
    """Images that are not trained on.

    Attributes:
        choosing: decide between settings; None: there is nothing to choose.
        scoring: asked once, when all is chosen.
        name: what these are, in words.
    """

    choosing: Source | None
    scoring: Source
    name: str

    @property
    def part(self) -> str:
        """What is scored on, with its number of images whose class is known."""
        return f"{len(known_labels(self.scoring)[0])} {self.name} images"

    @property
    def facts(self) -> dict[str, Any]:
        """What a result tells of its images, as far as the judges know."""
        choosing = 0 if self.choosing is None else len(known_labels(self.choosing)[0])
        return {"evaluation_images": len(known_labels(self.scoring)[0]), "choosing_images": choosing, "part": self.part}

    @property
    def said(self) -> str:
        """Who judges, for people."""
        chosen = "" if self.choosing is None else f"chosen by {len(known_labels(self.choosing)[0])} held-out images, "
        return f"{chosen}scored once on {self.part}"


def judges_of(config: LinearProbeConfig, parts: Parts) -> Judges:
    """Return who judges a probe.

    Evaluation images score and held-out training images choose. Where there are no evaluation images, the held-out ones
    are halved, class by class.

    Raises:
        ValueError: too few images are held out to be halved, or those that score have no labels.
    """
    choosing, scoring = parts.validation, parts.final
    assert scoring is not None  # `LinearProbeConfig.check_judges` has seen to it
    name = parts.name(scoring)
    if parts.heldout is None:
        choosing = None
        if config.chooses:
            choosing, scoring = _halves(config, scoring)
            name = f"{name} (the half that chose nothing)"
    for part in (choosing, scoring):
        if part is not None and not len(known_labels(part)[0]):
            raise ValueError(f"data.source={config.data.source}: no {name} image has a label: give others")
    return Judges(choosing, scoring, name)


def _halves(config: LinearProbeConfig, source: Source) -> tuple[Source, Source]:
    labels = source.labels
    assert labels is not None
    try:
        second = held_out(labels, 0.5)
    except ValueError as error:
        raise ValueError(
            f"data.holdout={config.data.holdout:g} holds out {len(labels)} images, too few to choose by one half of "
            "them, with an image of every class, and score on the other: give a larger --data.holdout, or evaluation "
            "images"
        ) from error
    return Chosen(source, np.flatnonzero(~second)), Chosen(source, np.flatnonzero(second))
