"""What a fine-tuning run tells and leaves: accuracies, table of classes, pictures, its result."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut_tf.analysis.confusion import draw_confusion
from lut_tf.analysis.curves import draw_accuracy_curves
from lut_tf.config import FinetuneConfig
from lut_tf.data.reading.listing import Listing
from lut_tf.data.reading.sources import Parts, Source, labelled
from lut_tf.evaluate.answers import answers
from lut_tf.evaluate.classification import ClassRow, Guesses, class_rows, confusions, tally
from lut_tf.evaluate.frozen import data_facts
from lut_tf.evaluate.results import FOLDER, Figure, Result, accuracy, read_result, results_path, save_result
from lut_tf.interop.keras_files import load_keras
from lut_tf.interop.sources import checksum
from lut_tf.methods.classification import Classification
from lut_tf.models.classifier import ViTClassifier
from lut_tf.tasks.begun import Beginning
from lut_tf.tasks.classes import Classes
from lut_tf.tasks.result import announced, protocol_settings, schedule_facts
from lut_tf.training.plan import Plan
from lut_tf.training.run_directory import RunFiles
from lut_tf.writing import replacing

WHOLE_TABLE, WORST = 20, 10
"""Up to how many classes the closing table shows all, and how many of more."""
CONFUSIONS = 100
"""How many of the most frequent confusions a result keeps."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a run leaves in Python.

    Attributes:
        files: where everything was written.
        classifier: as the last epoch left it; the average of the weights where the run keeps one.
        result: top-1 and top-5 with their intervals, of the last epoch and, as `best/top1`, of the best one; None where
            there were no images to measure on.
        classes: a row for each class, of the last epoch.
        why_not: why nothing was measured, in words.
        worker: this process among those of a run on several hosts; 0, the chief, measures and writes.
    """

    files: RunFiles
    classifier: ViTClassifier
    result: Result | None = None
    classes: tuple[ClassRow, ...] = ()
    why_not: str = ""
    worker: int = 0

    def summary(self) -> str:
        """Return the closing tables and the paths worth opening, for people."""
        if self.worker:
            return f"worker {self.worker} is done; worker 0 has written {self.files.root}"
        places = {
            "classifier": self.files.classifier,
            "best classifier": self.files.best,
            "classes": self.files.classes,
            "confusion": self.files.confusion,
            "curves": self.files.curves,
            "metrics": self.files.metrics,
        }
        if self.result is not None:
            places["result"] = results_path(self.files.root, self.result.name)
        opens = [f"{name + ':':<17}{path}" for name, path in places.items() if path.exists()]
        if self.result is None:
            return "\n".join(["", f"not measured: {self.why_not}", "", *opens])
        return "\n".join(["", *_figures_table(self.result), "", *class_table(self.classes), "", *opens])


@dataclass(frozen=True)
class Measures:
    """Top-1 and top-5: on the validation part while training, on the held-out part, where there is one, at the end.

    Attributes:
        classifier: what is measured.
        parts: the run's images.
        classes: of the images.
        why_not: why nothing can be measured, as far as the listing tells; empty where it can.
    """

    classifier: ViTClassifier
    parts: Parts
    classes: Classes
    why_not: str = ""

    @property
    def why_none(self) -> str:
        """Why nothing is measured; empty where it is."""
        if not self.why_not and not (self.parts.validation and len(labelled(self.parts.validation))):
            return "the evaluation images have no labels"
        return self.why_not

    @property
    def possible(self) -> bool:
        """Whether there are images to measure on."""
        return not self.why_none

    @property
    def part(self) -> str:
        """What the closing figures are of, in words."""
        return self.parts.name(self.parts.final)

    @property
    def by_the_same(self) -> bool:
        """Whether the best epoch is chosen by the images that the closing figures are of."""
        return self.parts.validation is self.parts.final

    @property
    def said(self) -> str:
        """What is measured when, or why nothing is."""
        if not self.possible:
            return f"no accuracies: {self.why_none}"
        assert self.parts.validation is not None and self.parts.final is not None
        last = f"{len(labelled(self.parts.final))} {self.part} images"
        if self.by_the_same:
            return f"top-1 after each epoch, and at the end, on the same {last}: the best epoch is chosen by them"
        return (
            f"top-1 after each epoch on {len(labelled(self.parts.validation))} validation images, at the end on {last}"
        )

    def while_training(self) -> dict[str, float]:
        """Return the accuracies on the validation part."""
        assert self.parts.validation is not None
        guesses, labels = self.guesses(self.classifier, self.parts.validation)
        return tally(guesses, labels, self.classes.count).shares

    def guesses(self, classifier: ViTClassifier, source: Source) -> tuple[Guesses, NDArray[np.int32]]:
        """Return a classifier's guesses of a part's images whose class is known, and the classes.

        Images that cannot be read are left out, as `lut-tf evaluate` leaves them out.
        """
        assert source.labels is not None
        known = labelled(source)
        found = answers(classifier, source, known)
        return found.best[found.readable], source.labels[known][found.readable]

    def figures(self, guesses: Guesses, labels: NDArray[np.int32]) -> dict[str, Figure]:
        """Return accuracies with their intervals."""
        found = tally(guesses, labels, self.classes.count)
        return {name: accuracy(right, found.images) for name, right in found.right.items()}


def resolved(
    config: FinetuneConfig, model: Classification, classes: Classes, plan: Plan, replicas: int
) -> dict[str, Any]:
    """Return what the settings come to, by name."""
    classifier = model.classifier
    return {
        "task": "finetune",
        "source": config.data.source,
        "images": plan.images,
        "classes": classes.count,
        "parameters": classifier.count_params(),
        "image_size": list(classifier.image_size),
        "patches": classifier.encoder.patches,
        **schedule_facts(config, plan, replicas),
    }


def announcement(facts: dict[str, Any], run_dir: str, *notes: str) -> str:
    """Return a few lines for people of what `resolved` found, and the notes that are not empty."""
    height, width = facts["image_size"]
    return announced(
        f"fine-tuning on {facts['images']} images of {facts['source']}, {facts['classes']} classes -> {run_dir}",
        f"classifier {facts['parameters'] / 1e6:.2f} M parameters; {height}×{width} pixels, {facts['patches']} patches",
        facts,
        *notes,
    )


def closed(
    config: FinetuneConfig,
    files: RunFiles,
    measures: Measures,
    beginning: Beginning,
    listing: Listing,
    best_epoch: int | None,
    again: bool,
) -> FinetuneResult:
    """Measure the classifiers that the run has kept, and write table, pictures and result.

    Args:
        config: of the run.
        files: of the run.
        measures: of its last classifier.
        beginning: what it began with.
        listing: of its images.
        best_epoch: the epoch whose classifier is the best, where that was found just now.
        again: the run was complete when it was started: what it has measured is read.
    """
    classifier = measures.classifier
    if not measures.possible:
        draw_accuracy_curves(files.metrics, files.curves)
        return FinetuneResult(files, classifier, why_not=measures.why_none)
    if again and (known := _written(files)) is not None:
        return FinetuneResult(files, classifier, known, tuple(_read_classes(files.classes)))
    assert measures.parts.final is not None
    guesses, labels = measures.guesses(classifier, measures.parts.final)
    figures = measures.figures(guesses, labels)
    if best_epoch is not None:
        best = measures.figures(*measures.guesses(load_keras(files.best), measures.parts.final))
        figures |= {f"best/{name}": figure for name, figure in best.items()}
    rows = class_rows(guesses[:, 0], labels, measures.classes.called)
    _write_classes(files.classes, rows)
    title = f"{files.root.name}, {len(labels)} {measures.part} images"
    mistaken = confusions(guesses[:, 0], labels)
    draw_confusion(guesses[:, 0], labels, measures.classes.called, mistaken, files.confusion, title)
    draw_accuracy_curves(files.metrics, files.curves, best_epoch)
    details = {
        "best_epoch": best_epoch,
        "best_chosen_by_the_same": measures.by_the_same,
        "classes": {row.name: [row.right, row.images] for row in rows},
        "confusions": [list(pair) for pair in mistaken[:CONFUSIONS]],
    }
    result = Result(
        "finetune",
        figures,
        _model_facts(files, classifier, beginning),
        {**data_facts(config.data, listing, measures.parts), "classes": measures.classes.count},
        protocol_settings(config),
        details,
    )
    save_result(result, files.root)
    return FinetuneResult(files, classifier, result, tuple(rows))


def _model_facts(files: RunFiles, classifier: ViTClassifier, beginning: Beginning) -> dict[str, Any]:
    return {
        "source": str(files.root.absolute()),
        "origin": f"{files.root} from {beginning.origin}",
        "kind": "classifier",
        "checksum": checksum(classifier),
        "encoder_checksum": beginning.checksum,
        "parameters": int(classifier.count_params()),
        "image_size": list(classifier.image_size),
        "pooling": classifier.pooling,
    }


def _written(files: RunFiles) -> Result | None:
    """Return the newest result of fine-tuning in the run directory."""
    found = sorted((files.root / FOLDER).glob("finetune_*.json"), key=lambda path: path.stat().st_mtime)
    if not found or not files.classes.is_file():
        return None
    try:
        return read_result(found[-1])
    except ValueError:
        return None


COLUMNS = ("class", "images", "right", "accuracy", "most often taken for", "times")


def _write_classes(path: Path, rows: Sequence[ClassRow]) -> None:
    with replacing(path) as written, written.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows([row.name, row.images, row.right, f"{row.accuracy:.4f}", *row[3:]] for row in rows)


def _read_classes(path: Path) -> list[ClassRow]:
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return [ClassRow(row[0], int(row[1]), int(row[2]), row[4], int(row[5])) for row in rows]


def _figures_table(result: Result) -> list[str]:
    figures, epoch = result.figures, result.details.get("best_epoch")
    names: list[str] = [name for name in ("top1", "top5") if name in figures]
    best = f"best epoch ({epoch})" + (", chosen by these" if result.details.get("best_chosen_by_the_same") else "")
    rows: dict[str, list[str]] = {"last epoch": names, best: [f"best/{name}" for name in names]}
    title = f"accuracy on {result.data['part']}"
    lines = [f"{title:<40}" + "".join(f"{name.replace('top', 'top-'):>20}" for name in names)]
    for words, row in rows.items():
        if row[0] in figures:
            lines.append(f"{words:<40}" + "".join(f"{figures[name]!s:>20}" for name in row))
    return [*lines, "per cent, with 95 % intervals"]


def class_table(rows: Sequence[ClassRow]) -> list[str]:
    """Return the lines of a table of classes for people: all of few, the worst of many."""
    shown = list(rows)
    if len(rows) > WHOLE_TABLE:
        measured = [row for row in rows if row.images]
        shown = sorted(measured, key=lambda row: row.accuracy)[:WORST]
    head = f"{'class' if len(shown) == len(rows) else f'{WORST} worst classes':<30}{'images':>8}{'right':>8}  taken for"
    lines = [
        f"{row.name[:29]:<30}{row.images:>8}{f'{row.accuracy:.1%}' if row.images else '–':>8}"
        + (f"  {row.taken_for[:29]} ({row.times})" if row.taken_for else "")
        for row in shown
    ]
    return [head, *lines]
