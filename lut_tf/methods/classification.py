"""Fine-tuning's objective: a classifier's cross-entropy with soft targets, and an average of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from keras import ops

from lut_tf.config.types import Decay, check_value
from lut_tf.models.classifier import ViTClassifier
from lut_tf.step import Gather, TrainableModel


class Classification(TrainableModel):
    """A `ViTClassifier` that learns from batches of `lut_tf.data.finetuning_dataset`.

    A batch is a pair of inputs and targets (B, C) float32 that sum to 1. Inputs are images (B, H, W, 3) float32,
    normalised, or a dict of `images` and `drop_path_draws` (B, 2 · depth) float32 in [0, 1), with which a step is a
    pure function of its batch.

    Args:
        classifier: what is trained.
        ema: share of itself that an average of the weights keeps at each step; 0: there is none.
        name: of the Keras model.

    Attributes:
        classifier: what is trained.
        average: a classifier whose weights follow those of the other, or None.
    """

    def __init__(self, classifier: ViTClassifier, ema: float = 0.0, name: str = "classification") -> None:
        super().__init__(name=name, dtype=classifier.dtype_policy, autocast=False)
        check_value("ema", ema, Decay)
        self.classifier, self.ema = classifier, ema
        self.average = ViTClassifier.from_config(classifier.get_config()) if ema else None
        if self.average is not None:
            self.average.trainable = False
            self.reset_average()
        self.built = True  # every part builds itself; Keras would wait for a first call

    @property
    def kept(self) -> ViTClassifier:
        """The classifier that is measured and kept: the average, where there is one."""
        return self.classifier if self.average is None else self.average

    @property
    def teacher_pairs(self) -> list[tuple[Any, Any]]:
        """(average, source) of every weight; none without an average."""
        if self.average is None:
            return []
        # By path: what is trainable comes first among a model's weights, and of the average nothing is.
        sources = {_inner(weight): weight for weight in self.classifier.weights}
        return [(weight, sources[_inner(weight)]) for weight in self.average.weights]

    def momentum_at(self, step: Any) -> Any:
        """Return how much of itself the average keeps, the same at every step; None where there is none."""
        return ops.convert_to_tensor(self.ema, "float32") if self.average is not None else None

    def reset_average(self) -> None:
        """Make the average equal to the classifier."""
        for average, source in self.teacher_pairs:
            average.assign(source)

    def check_batch(self, batch: Any) -> None:
        """Refuse what is no pair of inputs and targets of as many classes.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(batch, tuple) or len(batch) != 2 or batch[1].shape[-1] != self.classifier.classes:
            raise ValueError(
                f"the batch is no pair of images and targets of {self.classifier.classes} classes: give batches of "
                "lut_tf.data.finetuning_dataset"
            )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the logits (B, C) float32 of a batch's inputs."""
        images, draws = inputs, None
        if isinstance(inputs, Mapping):
            images, draws = inputs["images"], inputs["drop_path_draws"]
        return self.network(partial(_logits, self.classifier, training), images, draws)

    def compute_losses(self, batch: Any, training: bool = True, gather: Gather = lambda x: x) -> dict[str, Any]:
        """Return `total`, the mean cross-entropy of the targets under the softmax of the logits."""
        inputs, targets = batch
        logits = self(inputs, training=training)
        return {"total": ops.mean(ops.categorical_crossentropy(targets, logits, from_logits=True))}


def _inner(weight: Any) -> str:
    """Return a weight's path below the classifier, whose own name Keras may have counted up."""
    return str(weight.path).partition("/")[2]


def _logits(classifier: ViTClassifier, training: bool | None, images: Any, draws: Any) -> Any:
    return classifier(images, training=training, drop_path_draws=draws)
