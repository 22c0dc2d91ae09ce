"""A classifier, wherever it lies: in a fine-tuning run's directory, in a file of ours, or in one of other people's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut_tf.interop.sources import CLASSIFIER, ENCODER, SUFFIXES, WHOLE, checksum, registered_name
from lut_tf.paths import check_path, is_saved_folder, spelled_out
from lut_tf.startup import import_tensorflow
from lut_tf.training.run_directory import RunFiles, steps_in

if TYPE_CHECKING:
    from lut_tf.models.classifier import ViTClassifier

KINDS = (
    "a fine-tuning run's directory, a classifier's .keras file, or a fine-tuned file of LUT, MAE, timm or Hugging Face"
)


@dataclass(frozen=True, eq=False)
class OpenedClassifier:
    """A classifier, and where it is from.

    Attributes:
        classifier: in inference mode.
        source: the path that was given, in full.
        origin: where it is from, in words.
    """

    classifier: ViTClassifier
    source: str
    origin: str

    @property
    def facts(self) -> dict[str, Any]:
        """What a result tells of the classifier (`lut_tf.evaluate.results.Result.model`)."""
        return {
            "source": self.source,
            "origin": self.origin,
            "kind": "classifier",
            "checksum": checksum(self.classifier),
            "parameters": int(self.classifier.count_params()),
            "image_size": list(self.classifier.image_size),
            "pooling": self.classifier.pooling,
        }

    @property
    def called(self) -> list[str]:
        """A name for each class: its number where it has none."""
        return list(self.classifier.class_names or map(str, range(self.classifier.classes)))


def find_classifier(source: str | os.PathLike[str], setting: str = "CLASSIFIER") -> Path:
    """Return the file or folder of the classifier at `source`, having looked at names alone, without TensorFlow.

    Args:
        source: a fine-tuning run's directory (its `classifier.keras`, of the last epoch, or while it is not finished
            its newest checkpoint), a classifier's `.keras` file, or a file or folder that `load_classifier` reads.
        setting: what errors call `source`.

    Raises:
        FileNotFoundError: nothing is there, or the run has saved nothing yet.
        ValueError: it is an encoder or another model, or no file of weights.
    """
    path, named = Path(spelled_out(source)), f"{setting}={os.fspath(source)!r}"
    check_path(setting, path)
    if not path.exists():
        raise FileNotFoundError(f"{named} does not exist: give {KINDS}")
    if path.is_dir() and not is_saved_folder(path):
        path = _find_in_run(RunFiles(path), named)
    if path.suffix == ".keras":
        _check_kind(path, named)
    elif path.is_file() and path.suffix not in SUFFIXES:
        raise ValueError(f"{named} is no file of weights (.keras, {', '.join(SUFFIXES)}): give {KINDS}")
    return path


def open_classifier(source: str | os.PathLike[str], setting: str = "CLASSIFIER") -> OpenedClassifier:
    """Open a classifier wherever it lies.

    Args:
        source: see `find_classifier`.
        setting: what errors call `source`.

    Raises:
        FileNotFoundError: as `find_classifier`.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: as `find_classifier`, or it cannot be read.
    """
    path = find_classifier(source, setting)
    import_tensorflow()
    from lut_tf.interop.classifiers import load_classifier

    try:
        classifier = load_classifier(path)
    except ValueError as error:
        raise ValueError(
            f"{setting}={os.fspath(source)!r} cannot be read ({error}): give another, or convert it with lut-tf convert"
        ) from error
    return OpenedClassifier(classifier, os.path.abspath(spelled_out(source)), str(path))


def _find_in_run(files: RunFiles, named: str) -> Path:
    if files.classifier.is_file():
        return files.classifier
    if files.structure.is_file() and steps_in(files.checkpoints):
        return files.root  # not finished: `load_classifier` takes the newest checkpoint
    if files.structure.is_file():
        raise FileNotFoundError(f"{named} is a fine-tuning run that has saved nothing yet: let it go on")
    if files.config.is_file() or files.encoder.is_file():
        raise ValueError(
            f"{named} is a run that trained an encoder, and a classifier is wanted: give {KINDS}; lut-tf finetune "
            "makes one of an encoder"
        )
    raise FileNotFoundError(f"{named} holds no {files.classifier.name}: give {KINDS}")


def _check_kind(path: Path, named: str) -> None:
    """Refuse a `.keras` file that holds no classifier."""
    held = registered_name(path, named, KINDS)
    if held in (ENCODER, *WHOLE):
        raise ValueError(
            f"{named} holds a {held.partition('>')[2]}, and a classifier is wanted: give {KINDS}; lut-tf finetune "
            "makes one of an encoder"
        )
    if held != CLASSIFIER:
        raise ValueError(f"{named} holds a {held}, not a ViTClassifier: give {KINDS}")
