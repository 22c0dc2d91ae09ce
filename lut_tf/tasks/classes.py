"""The classes that a classifier is to tell apart, found in the labels of its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lut_tf.config import DataConfig
from lut_tf.data.reading.listing import NO_LABELS, ONE_CLASS
from lut_tf.data.reading.sources import Parts


@dataclass(frozen=True)
class Classes:
    """What the labels of the training images say.

    Attributes:
        count: number of classes C.
        names: their names, or None.
        images: training images whose class is known.
        absent: classes without a training image.
    """

    count: int
    names: list[str] | None
    images: int
    absent: int

    @property
    def called(self) -> list[str]:
        """A name for each class: its number where it has none."""
        return self.names or [str(number) for number in range(self.count)]

    @property
    def said(self) -> str:
        """What is odd about the classes, for people; empty where nothing is."""
        return f"{self.absent} of {self.count} classes have no training image" if self.absent else ""


def classes_of(data: DataConfig, parts: Parts) -> Classes:
    """Return the classes of a data set whose labels are numbers of them, in all its parts.

    Args:
        data: the settings that name the images.
        parts: the images.

    Raises:
        ValueError: the training images have no labels or those of one class, a label is no number of a class, or one of
            the evaluation images' is of a class that the training images do not have.
    """
    evaluation = "evaluation_split" if data.source == "tfds" else "evaluation_path"
    training = "name" if data.source == "tfds" else "path"
    named = f"data.{training}={getattr(data, training)!r}"
    known = _known(parts.train.labels, named)
    if not len(known):
        raise ValueError(f"{named}: {NO_LABELS}, which a classifier learns: give labelled images")
    names, most = parts.train.classes, int(known.max())
    count = most + 1 if names is None else len(names)
    if most >= count:
        raise ValueError(f"{named} holds the label {most}, and there are {count} classes: number them from 0")
    if count > len(known) and names is None:
        raise ValueError(
            f"{named} holds the label {most}, which makes more classes than there are images ({len(known)}): "
            "number the classes from 0"
        )
    present = len(np.unique(known))
    if present < 2:
        raise ValueError(f"{named}: {ONE_CLASS}: give images of two classes or more")
    for part in (parts.validation, parts.heldout):
        labels = _known(None if part is None else part.labels, f"data.{evaluation}={getattr(data, evaluation)!r}")
        if len(labels) and labels.max() >= count:
            raise ValueError(
                f"data.{evaluation}={getattr(data, evaluation)!r} holds the label {labels.max()}, and the training "
                f"images have the classes 0 to {count - 1}: give evaluation images of the same classes"
            )
    return Classes(count, names, len(known), count - present)


def _known(labels: NDArray[np.int32] | None, named: str) -> NDArray[np.int32]:
    """Return the labels that are known; -1 stands for one that is not.

    Raises:
        ValueError: one is below that.
    """
    if labels is None:
        return np.zeros(0, np.int32)
    if len(labels) and labels.min() < -1:
        raise ValueError(f"{named} holds the label {labels.min()}, which is no number of a class: number them from 0")
    return labels[labels >= 0]
