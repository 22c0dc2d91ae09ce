"""A classifier of ImageNet's classes on the robustness sets, each scored as its authors do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from lut_tf.data.reading.examples import ExampleSource
from lut_tf.data.reading.features import feature_values
from lut_tf.data.reading.folder import FolderListing
from lut_tf.data.reading.public import open_split
from lut_tf.data.reading.sources import ImageFolder, Source, name_of
from lut_tf.evaluate import class_maps
from lut_tf.evaluate.answers import TOP, Answers, answers
from lut_tf.evaluate.results import Figure, accuracy, bootstrap
from lut_tf.evaluate.suite import SETTING, SUITE, Listed, Right, filled
from lut_tf.models.classifier import ViTClassifier

ALIKE = 0.9
"""Share of the classes that must be called as ImageNet's are: lists of their English names differ in a few."""
REAL_FEATURE = "real_label"


class Cropped:
    """Another source's images without a border, such as ObjectNet's red one.

    Args:
        source: the other; its images have more than two borders' pixels.
        border: pixels to cut off all around.
    """

    def __init__(self, source: Source, border: int) -> None:
        self._source, self._border = source, border
        self.labels, self.classes = source.labels, source.classes
        self.damage = getattr(source, "damage", None)

    def __len__(self) -> int:
        return len(self._source)

    def name_of(self, index: int) -> str:
        """Say which image it is, for people."""
        return name_of(self._source, index)

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """See `Source.image`."""
        kept = slice(self._border, -self._border)
        return self._source.image(index)[kept, kept]


class Measured(NamedTuple):
    """What came of a set.

    Attributes:
        figures: by `SET/FIGURE`: `v2/top1`, `si_score/size`, `o/aupr`.
        unreadable: how many of its images could not be read, and are not counted.
    """

    figures: dict[str, Figure]
    unreadable: int


def check_head(classifier: ViTClassifier, named: str) -> None:
    """Refuse a classifier whose classes are not ImageNet's 1,000 in their order.

    Args:
        classifier: to be measured.
        named: it, in the message.

    Raises:
        ValueError: there are other classes, or, as far as their names tell, in another order.
    """
    if classifier.classes != class_maps.IMAGENET:
        raise ValueError(
            f"{named} tells {classifier.classes} classes apart, and the robustness sets are of ImageNet's "
            f"{class_maps.IMAGENET}: give a classifier of these, or measure this one on --data.source"
        )
    names = classifier.class_names
    if names is None:
        return
    ids, words = class_maps.imagenet_ids(), class_maps.imagenet_names()
    alike = [
        name == wnid or _first_word(name) == _first_word(word)
        for name, wnid, word in zip(names, ids, words, strict=True)
    ]
    if np.mean(alike) < ALIKE:
        odd = alike.index(False)
        raise ValueError(
            f"{named} calls its class {odd} {names[odd]!r}, and ImageNet's is {ids[odd]} ({words[odd]}): give a "
            "classifier of ImageNet's classes in their usual order"
        )


def _first_word(name: str) -> str:
    return name.partition(",")[0].strip().replace("_", " ").lower()


def measure_set(
    name: str, listed: Mapping[str, Listed], classifier: ViTClassifier, damaged_share: float = 0.05
) -> Measured:
    """Score a classifier on a robustness set.

    Args:
        name: of the set (`lut_tf.config.evaluating.SETS`).
        listed: its parts, from `find_suite`.
        classifier: of ImageNet's classes; see `check_head`.
        damaged_share: see `DamageLog`.

    Raises:
        NonFiniteLogits, lut_tf.errors.Stopped: as `answers`.
        ValueError: no image is left to be asked about.
    """
    wanted = SUITE[name]
    among = class_maps.subset(wanted.among) if wanted.among else None
    found: dict[str, tuple[Answers, Right]] = {}
    for part, images in listed.items():
        source, right = opened(name, images, damaged_share)
        asked = np.flatnonzero((right >= 0).any(axis=1))
        if not len(asked):
            raise ValueError(
                f"suite={name}: none of its images has a class of ImageNet: give the set as it is published"
            )
        what = f"{wanted.title} {part}".strip()
        found[part] = answers(classifier, source, asked, among, what), right[asked]
    unreadable = sum(int((~each.readable).sum()) for each, _ in found.values())
    if name == "o":
        return Measured({"o/aupr": anomaly_figure(found["anomalies"][0], found["known"][0])}, unreadable)
    figures = {}
    for part, (each, right) in found.items():
        for top in wanted.top:
            hits = right_within(each.best, right, top)[each.readable]
            figures[f"{name}/{part or f'top{top}'}"] = accuracy(int(hits.sum()), len(hits))
    return Measured(figures, unreadable)


def opened(name: str, listed: Listed, damaged_share: float = 0.05) -> tuple[Source, Right]:
    """Open images of a set; return them, and the classes that are right for each (see `Right`)."""
    listing, border = listed.listing, SUITE[name].border
    # As the published figures were made: none of the sets' authors turns images by their EXIF.
    if isinstance(listing, FolderListing):
        source: Source = ImageFolder(listing, False, damaged_share, SETTING)
        assert listed.right is not None
        return (Cropped(source, border) if border else source), listed.right
    examples = open_split(listing, damaged_share, SETTING, apply_exif=False)
    if name == "real":
        return examples, _real_labels(examples)
    assert examples.labels is not None
    labels = examples.labels.astype(np.int64)
    if SUITE[name].among:  # the anomalies' counterparts are of all classes there
        labels = np.where(np.isin(labels, class_maps.subset(SUITE[name].among)), labels, -1)
    return examples, labels[:, np.newaxis]


def _real_labels(source: ExampleSource) -> Right:
    def of(example: bytes) -> list[int]:
        try:
            return list(feature_values(example, REAL_FEATURE))
        except DecodeError:  # damaged: it is not asked about
            return []

    return filled([of(example) for example in source.records.unchecked()])


def right_within(best: NDArray[np.int64], right: Right, top: int) -> NDArray[np.bool_]:
    """Tell for each image whether one of its right classes (N, K) is among the first `top` ≤ 5 of `best` (N, ≤ 5)."""
    assert top <= TOP
    return (best[:, :top, np.newaxis] == right[:, np.newaxis, :]).any(axis=(1, 2))


def anomaly_figure(anomalies: Answers, known: Answers) -> Figure:
    """Return how well anomalies are told by doubt: area under the precision-recall curve (average precision).

    An image's anomaly score is its largest probability, negated; anomalies are the positives.

    Args:
        anomalies: answers to images of no class.
        known: answers to images of the classes asked about.
    """
    from sklearn import config_context  # a second to import
    from sklearn.metrics import average_precision_score

    scores = [-each.probability[each.readable, 0] for each in (anomalies, known)]
    rows = np.concatenate(
        [
            np.stack([score, np.full(len(score), positive)], axis=1)
            for score, positive in zip(scores, (1.0, 0.0), strict=True)
        ]
    )

    def area(drawn: NDArray[np.float64]) -> float:
        return float(average_precision_score(drawn[:, 1], drawn[:, 0])) if drawn[:, 1].any() else float("nan")

    with config_context(assume_finite=True, skip_parameter_validation=True):  # asked a thousand times
        return bootstrap(rows, area)
