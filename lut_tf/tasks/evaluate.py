"""`lut-tf evaluate`: a classifier on labelled images, or on the robustness sets; a result of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lut_tf.config import DataConfig, FinetuneConfig, validate
from lut_tf.config.evaluating import EvaluateConfig
from lut_tf.data.reading.digest import all_but, digest_of, digest_of_part
from lut_tf.data.reading.listing import Listing, list_data
from lut_tf.evaluate.frozen import check_place, data_name
from lut_tf.evaluate.results import Figure, Result, accuracy, save_result
from lut_tf.evaluate.suite import SUITE, Listed, find_suite
from lut_tf.interop.classifier_sources import OpenedClassifier, find_classifier, open_classifier
from lut_tf.paths import spelled_out
from lut_tf.training.run_directory import IMAGES, RunFiles, facts_of, read_saved

if TYPE_CHECKING:
    from lut_tf.data.reading.sources import Source
    from lut_tf.evaluate.classification import ClassRow

Suite = dict[str, dict[str, Listed]]


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        result: figures with their intervals.
        path: of the result's file.
        classes: a row for each class; none of a suite.
    """

    result: Result
    path: Path
    classes: tuple[ClassRow, ...] = ()

    def summary(self) -> str:
        """Return the tables and the result's path, for people."""
        table = _suite_table(self.result) if not self.classes else _table(self.result, self.classes)
        left_out = self.result.details.get("unreadable")
        notes = [f"{left_out} images could not be read, and are not counted"] if left_out else []
        if self.result.details.get("trained_on"):
            notes.append("the classifier was trained on these images: the figures say nothing of new ones")
        return "\n".join([*table, *notes, "", f"result: {self.path}"])


def preflight(source: str | os.PathLike[str], config: EvaluateConfig) -> Listing | Suite:
    """Check a classifier's path, settings and images before TensorFlow starts, and list the images.

    Raises:
        FileNotFoundError, ValueError: as `validate`, `find_classifier`, `list_data` and `find_suite`.
        PermissionError: the result cannot be written beside the classifier.
    """
    validate(config)
    find_classifier(source)
    check_place(source, "CLASSIFIER")
    return find_suite(config) if config.suite else list_data(config.data)


def evaluate(
    source: str | os.PathLike[str], config: EvaluateConfig, listed: Listing | Suite | None = None
) -> Evaluation:
    """Measure a classifier on labelled images or on robustness sets, and write the result beside it.

    Args:
        source: see `lut_tf.interop.classifier_sources.find_classifier`.
        config: what it is measured on.
        listed: what `preflight` returned; None has it checked here.

    Raises:
        FileNotFoundError, ValueError: as `preflight` and `open_classifier`, or the images' classes are not the
            classifier's.
        lut_tf.errors.Stopped: too many images are damaged, or the logits of one are not finite.
    """
    listed = preflight(source, config) if listed is None else listed
    opened = open_classifier(source)
    named = f"CLASSIFIER={os.fspath(source)!r}"
    if isinstance(listed, Listing):
        result, rows = _on_images(opened, named, config.data, listed)
        result.details["trained_on"] = _trained_on(source, result.data["evaluation_digest"])
    else:
        result, rows = _on_suite(opened, named, listed, config.data.damaged_share), []
    return Evaluation(result, save_result(result, source), tuple(rows))


def _trained_on(source: str | os.PathLike[str], digest: str) -> bool:
    """Tell whether the fine-tuning run that a classifier is of has learned from the images of a digest."""
    path = Path(spelled_out(source))
    files = RunFiles(path if path.is_dir() else path.parent)
    begun = facts_of(files).get(IMAGES)
    if begun is None or not files.structure.is_file():
        return False
    held = read_saved(files, FinetuneConfig, f"CLASSIFIER={path}", "give another").data.holdout
    return begun in (digest, digest_of_part(digest, all_but(held)))


def _on_suite(opened: OpenedClassifier, named: str, suite: Suite, damaged_share: float) -> Result:
    from lut_tf.evaluate.robustness import check_head, measure_set

    check_head(opened.classifier, named)
    figures: dict[str, Figure] = {}
    unreadable = 0
    for name, parts in suite.items():
        measured = measure_set(name, parts, opened.classifier, damaged_share)
        figures |= measured.figures
        unreadable += measured.unreadable
    digests = {name: {part or "images": each.digest for part, each in parts.items()} for name, parts in suite.items()}
    return Result(
        "evaluate",
        figures,
        opened.facts,
        {"source": "suite", "name": "robustness", "digests": digests, "part": "robustness sets"},
        {"suite": list(suite)},
        {"unreadable": unreadable},
    )


def _on_images(
    opened: OpenedClassifier, named: str, data: DataConfig, listing: Listing
) -> tuple[Result, list[ClassRow]]:
    from lut_tf.data.reading.sources import open_sources
    from lut_tf.evaluate.answers import answers
    from lut_tf.evaluate.classification import class_rows, tally

    parts = open_sources(data, listing)
    source = parts.final or parts.train
    labels = _right_classes(source, opened, named, data)
    known = np.flatnonzero(labels >= 0)
    whole, held = source is parts.train, parts.name(source) == "held-out"
    found = answers(opened.classifier, source, known, what="held-out images" if held else "images")
    labels, best = labels[known][found.readable], found.best[found.readable].astype(np.int32)
    counted = tally(best, labels, opened.classifier.classes)
    rows = class_rows(best[:, 0], labels, opened.called)
    digest = digest_of(listing.train) if whole else listing.evaluation_digest
    # The same images are the same part, whether a run's evaluation images or given as they are.
    part = f"{counted.images} {'held-out ' if held and not whole else ''}images"
    result = Result(
        "evaluate",
        {name: accuracy(right, counted.images) for name, right in counted.right.items()},
        opened.facts,
        {
            "source": data.source,
            "name": data_name(data, data.path if whole else data.evaluation_path),
            "evaluation_digest": digest,
            "images": counted.images,
            "classes": opened.classifier.classes,
            "part": part,
        },
        {"apply_exif": data.apply_exif},
        {
            "classes": {row.name: [row.right, row.images] for row in rows},
            "unreadable": int((~found.readable).sum()),
            "unlabelled": len(source) - len(known),
        },
    )
    return result, rows


def _right_classes(source: Source, opened: OpenedClassifier, named: str, data: DataConfig) -> NDArray[np.int32]:
    """Return the number that each image's class (N,) has in the classifier, -1 where it is not known.

    Images of some of the classifier's classes will do where both name them.

    Raises:
        ValueError: there are no labels, one that is no number of a class, or classes that the classifier does not have.
    """
    place = f"data.source={data.source}"
    if source.labels is None or not (source.labels >= 0).any():
        raise ValueError(
            f"{place}: the images have no labels, which answers are compared with: give labelled images, or ask for "
            "answers alone with lut-tf predict"
        )
    if int(source.labels.min()) < -1:
        raise ValueError(
            f"{place} holds the label {source.labels.min()}, which is no number of a class: number them from 0"
        )
    classifier, names = opened.classifier, source.classes
    if names is not None and classifier.class_names is not None:
        numbers = {name: number for number, name in enumerate(classifier.class_names)}
        if unknown := [name for name in names if name not in numbers]:
            raise ValueError(
                f"{place}: {len(unknown)} of {len(names)} classes ({', '.join(unknown[:5])}) are none of those of "
                f"{named} ({', '.join(classifier.class_names[:5])}{', …' if classifier.classes > 5 else ''}): give "
                "images of its classes, or the classifier of these"
            )
        order = np.array([numbers[name] for name in names], np.int32)
        return np.where(source.labels >= 0, order[source.labels], -1).astype(np.int32)
    if names is not None and len(names) != classifier.classes:
        raise ValueError(
            f"{place} has {len(names)} classes, and {named} tells {classifier.classes} apart: give images of its "
            "classes, or the classifier of these"
        )
    if int(source.labels.max()) >= classifier.classes:
        raise ValueError(
            f"{place} holds the label {source.labels.max()}, and {named} knows the classes 0 to "
            f"{classifier.classes - 1}: give images of its classes, or the classifier of these"
        )
    return source.labels


def _suite_table(result: Result) -> list[str]:
    lines = [f"{'robustness':<18}{'':<10}{'per cent [95 % interval]':>26}{'images':>9}"]
    for name, figure in result.figures.items():
        found, measure = name.split("/")
        words = "AUPR" if measure == "aupr" else measure.replace("top", "top-")
        lines.append(f"{SUITE[found].title:<18}{words:<10}{figure!s:>26}{figure.count:>9}")
    return lines


def _table(result: Result, rows: Sequence[ClassRow]) -> list[str]:
    from lut_tf.tasks.finetune_result import class_table

    data: dict[str, Any] = result.data
    title = f"accuracy on {data['part']} of {data['name']}"
    figures = [f"{name.replace('top', 'top-'):<8}{figure!s:>20}" for name, figure in result.figures.items()]
    unlabelled = result.details["unlabelled"]
    notes = [f"{unlabelled} images without a label are not counted"] if unlabelled else []
    return [title, *figures, "per cent, with 95 % intervals", *notes, "", *class_table(rows)]
