"""The model of a run directory: its configuration, built, with the weights that the run has saved."""

from __future__ import annotations

from typing import Any, NamedTuple

from lut_tf.config import FinetuneConfig
from lut_tf.interop.keras_files import load_keras, load_keras_weights
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.build import build_model
from lut_tf.methods.classification import Classification
from lut_tf.models.classifier import ViTClassifier
from lut_tf.step import TrainableModel
from lut_tf.training.run_directory import Saved, steps_in, structure_of


class RunModel(NamedTuple):
    """A run's model.

    Attributes:
        model: with the weights of student, decoder, heads and teacher; not compiled. Its teacher's momentum is that of
            a run's end.
        step: of the checkpoint that the weights are from; None: they are those of the finished run.
    """

    model: MaskedImageModel
    step: int | None

    @property
    def origin(self) -> str:
        """Where in the run directory the weights are from, in words."""
        return _origin(self.step)


def load_run(saved: Saved, remedy: str) -> RunModel:
    """Return the model of a run, finished or not, from `lut_tf.training.run_directory.find_saved`.

    Args:
        saved: where it is.
        remedy: what errors say can be done; see `other_step`.

    Raises:
        lut_tf.training.checkpoint.DamagedCheckpoint: the checkpoint that was asked for, or every one, is damaged.
        ValueError: the weights cannot be read, or belong to another network.
    """
    model = build_model(saved.config, total_steps=1)
    if saved.finished:
        try:
            load_keras_weights(model, saved.files.weights)
        except ValueError as error:
            raise ValueError(f"{saved.files.weights} cannot be read ({error}): {remedy}") from error
        return RunModel(model, None)
    return RunModel(model, _read_checkpoint(model, saved, remedy))


class RunClassifier(NamedTuple):
    """A fine-tuning run's classifier: the average of the weights, where the run keeps one.

    Attributes:
        classifier: not compiled.
        step: of the checkpoint that the weights are from; None: they are those of the finished run.
    """

    classifier: ViTClassifier
    step: int | None

    @property
    def origin(self) -> str:
        """Where in the run directory the weights are from, in words."""
        return _origin(self.step)


def _origin(step: int | None) -> str:
    return "its finished model" if step is None else f"its checkpoint of step {step}"


def load_classifier_run(saved: Saved[FinetuneConfig], remedy: str) -> RunClassifier:
    """Return the classifier of a fine-tuning run, finished or not, from `find_saved(…, tree=FinetuneConfig)`.

    Args:
        saved: where it is.
        remedy: what errors say can be done; see `other_step`.

    Raises:
        lut_tf.training.checkpoint.DamagedCheckpoint: the checkpoint that was asked for, or every one, is damaged.
        ValueError: it cannot be read.
    """
    files = saved.files
    if saved.finished and files.classifier.is_file():
        try:
            return RunClassifier(load_keras(files.classifier), None)
        except ValueError as error:
            raise ValueError(f"{files.classifier} cannot be read ({error}): {remedy}") from error
    structure = structure_of(files)
    if structure is None:
        raise ValueError(f"{files.structure} is not what a run has written: {remedy}")
    classifier = ViTClassifier.from_config(structure.classifier)
    model = Classification(classifier, saved.config.classifier.ema)
    return RunClassifier(model.kept, _read_checkpoint(model, saved, remedy))


def _read_checkpoint(model: TrainableModel, saved: Saved[Any], remedy: str) -> int:
    """Load the weights of the checkpoint that is wanted, and return its step."""
    from lut_tf.training.checkpoint import DamagedCheckpoint, read_weights  # imports TensorFlow

    try:
        return read_weights(model, saved.files.checkpoints, saved.step)
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"{error}: {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{error}: {remedy}") from error


def other_step(saved: Saved[Any]) -> str:
    """Return what a command with `--step` can do about weights that cannot be read."""
    others = [step for step in steps_in(saved.files.checkpoints) if step != saved.step]
    if others and (saved.finished or saved.step is not None):
        return f"give --step of another checkpoint ({', '.join(map(str, others))}), or another run"
    return "bring back a copy, or give another run"
