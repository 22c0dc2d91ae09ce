"""The linear probe's objective: linear layers side by side on the features of an encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import BatchNormalization
from lut_tf.models.preprocess import normalise
from lut_tf.step import Gather, TrainableModel

PIECE = 4
"""Letters of a checksum that a number of the variable `encoder_checksum` holds; float32 is exact for them."""
DIVERGED = 1e12
"""Logits from which on a linear layer among several has diverged: soon they would be infinite, and end the run."""


class FrozenEncoder:
    """An encoder in inference mode that Keras does not see, so that nobody trains, saves or optimises it.

    It sees what a model's attributes are, properties among them, so no model may have the encoder itself as one.

    Args:
        encoder: whatever it computes in, its features are float32.
        checksum: which one it is, in 64 letters; see `lut_tf.interop.sources`.
    """

    def __init__(self, encoder: ViTEncoder, checksum: str) -> None:
        self.encoder, self.checksum = encoder, checksum
        self.poolings = ("cls", "mean") if encoder.has_class_token else ("mean",)

    def features(self, images: Any) -> dict[str, Any]:
        """Return features (B, D) float32 by pooling, of images (B, H, W, 3) uint8: one pass for all."""
        tokens = self.encoder(normalise(images, self.encoder.preprocessing), training=False)
        return {name: ops.cast(self.encoder.pooled(tokens, name), "float32") for name in self.poolings}


class LinearProbe(TrainableModel):
    """Linear layers that learn side by side from batches of `lut_tf.data.batches.probing`.

    For each pooling, the class token (`cls`) and the mean of the patch tokens (`mean`), the features go through one
    BatchNorm without scale and shift (epsilon 1e-6), for they are the same to all, and then through a linear layer for
    each learning rate. All begin with the same weights (normal, 0.01; biases 0), and none sees another: `total` is the
    sum of their losses. LARS moves weights by a share of their own size, so that too large a rate lets them grow
    without end: of several rates such a one learns no more, and the others go on. Everything here is float32.

    A batch is a pair of images (B, H, W, 3) uint8 and classes (B,). The encoder is neither among the variables nor
    below the gradient; `encoder_checksum` stands for it in checkpoints.

    Args:
        frozen: the encoder.
        classes: number of logits C.
        rates: the base learning rates, for the names of the layers.
        seed: decides the first weights.
        name: of the Keras model.

    Attributes:
        heads: the names of all linear layers, `cls_0.1`, with their pooling and rate.
        frozen: the encoder.
        linears: the linear layers by these names.
    """

    def __init__(
        self, frozen: FrozenEncoder, classes: int, rates: Sequence[float], seed: int = 0, name: str = "linear_probe"
    ) -> None:
        self.heads = {f"{pooling}_{rate:g}": (pooling, rate) for pooling in frozen.poolings for rate in rates}
        self.loss_parts = tuple(self.heads)
        super().__init__(name=name, dtype="float32", autocast=False)
        self.frozen, self.classes = frozen, classes
        synchronised = keras.backend.backend() == "tensorflow"
        self.norms = {
            pooling: BatchNormalization(
                epsilon=1e-6, momentum=0.9, center=False, scale=False, synchronized=synchronised, name=f"{pooling}_norm"
            )
            for pooling in frozen.poolings
        }
        normal = keras.initializers.RandomNormal(0.0, 0.01, seed=seed)
        self.linears = {head: keras.layers.Dense(classes, kernel_initializer=normal, name=head) for head in self.heads}
        for layer in (*self.norms.values(), *self.linears.values()):
            layer.build((None, frozen.encoder.width))
        # Of the checksum's 256 bits, as many as a variable holds exactly: replicas and checkpoints are compared by it.
        pieces = [int(frozen.checksum[i : i + PIECE], 16) for i in range(0, len(frozen.checksum), PIECE)]
        self.encoder_checksum = self.add_weight(shape=(len(pieces),), trainable=False, name="encoder_checksum")
        self.encoder_checksum.assign([float(piece) for piece in pieces])
        self._pieces = tuple(pieces)
        self.built = True  # every part is built; Keras would wait for a first call

    @property
    def fits(self) -> bool:
        """Whether the weights, as a checkpoint has given them back, were trained on this encoder."""
        return tuple(int(piece) for piece in self.encoder_checksum.numpy()) == self._pieces

    def check_batch(self, batch: Any) -> None:
        """Refuse what is no pair of images and classes.

        Raises:
            ValueError: it is none.
        """
        size = (*self.frozen.encoder.image_size, 3)
        if not isinstance(batch, tuple) or len(batch) != 2 or tuple(batch[0].shape[1:]) != size:
            raise ValueError(f"the batch is no pair of images (B, {', '.join(map(str, size))}) uint8 and classes (B,)")

    def without_gradient(self, batch: Any) -> Any:
        """Return features by pooling, and classes (B,), of a batch: the encoder is below no gradient."""
        images, labels = batch
        return self.network(self.frozen.features, images), labels

    def normalised(self, features: dict[str, Any], training: bool) -> dict[str, Any]:
        """Return features by pooling after BatchNorm."""
        return {
            pooling: self.norms[pooling](x, training=training, replicas=self.replicas if training else 1)
            for pooling, x in features.items()
        }

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Return the logits (B, C) of each linear layer, by name, of images (B, H, W, 3) uint8."""
        return self.logits(self.network(self.frozen.features, images), tuple(self.heads), bool(training))

    def logits(self, features: dict[str, Any], heads: Sequence[str], training: bool = False) -> dict[str, Any]:
        """Return the logits (B, C) of the linear layers that are named, from features by pooling."""
        normalised = self.normalised(features, training)
        return {head: self.linears[head](normalised[self.heads[head][0]]) for head in heads}

    def compute_losses(self, batch: Any, training: bool = True, gather: Gather = lambda x: x) -> dict[str, Any]:
        """Return each linear layer's mean cross-entropy by its name, and `total`, their sum.

        Args:
            batch: features by pooling and classes, as `without_gradient` makes them.
            training: BatchNorm takes the batch's statistics, over all replicas, and moves its own.
            gather: not needed.
        """
        features, labels = batch
        losses = {
            head: ops.mean(ops.sparse_categorical_crossentropy(labels, self._bounded(logits), from_logits=True))
            for head, logits in self.logits(features, tuple(self.heads), training).items()
        }
        return {"total": sum(losses.values()), **losses}

    def _bounded(self, logits: Any) -> Any:
        """Return the logits (B, C), or where they have diverged zeros, through which no gradient goes."""
        if len(self.heads) == len(self.norms):  # a rate that is alone ends the run, and says so
            return logits
        return ops.where(ops.max(ops.abs(logits)) < DIVERGED, logits, 0.0)
