"""The model of a run directory: its configuration, built, with the weights that the run has saved."""

from __future__ import annotations

from typing import NamedTuple

from lut_tf.interop.keras_files import load_keras_weights
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.build import build_model
from lut_tf.training.run_directory import Saved


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
        return "its finished model" if self.step is None else f"its checkpoint of step {self.step}"


def load_run(saved: Saved) -> RunModel:
    """Return the model of a run, finished or not, from `lut_tf.training.run_directory.find_saved`.

    Raises:
        lut_tf.training.checkpoint.DamagedCheckpoint: the checkpoint that was asked for, or every one, is damaged.
        ValueError: the weights cannot be read, or belong to another network.
    """
    model = build_model(saved.config, total_steps=1)
    if saved.finished:
        try:
            load_keras_weights(model, saved.files.weights)
        except ValueError as error:
            raise ValueError(
                f"{saved.files.weights} cannot be read ({error}): give --step of a checkpoint, or another run"
            ) from error
        return RunModel(model, None)
    from lut_tf.training.checkpoint import read_weights  # imports TensorFlow

    return RunModel(model, read_weights(model, saved.files.checkpoints, saved.step))
