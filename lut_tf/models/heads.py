"""LUT's projector and predictor (pre-training only)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lut_tf.config import HeadConfig, check_value, hints_of
from lut_tf.models.layers import LayerNorm, SameShape, gelu


@keras.saving.register_keras_serializable(package="lut_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of features (B, D) as the reference has it, over all replicas.

    Keras' layer keeps a running variance that is biased, and computes variances over replicas as E[x²] − E[x]², which
    loses what two large numbers have in common. Here the running variance is unbiased, n/(n − 1) of the batch's with n
    images on all replicas, and a variance is the mean of squared deviations. Over a run both show: the teacher lives on
    the running variance.
    """

    def call(self, x: Any, training: bool | None = None, replicas: int = 1) -> Any:
        """Normalise features (B, D), in float32; the result has the layer's compute dtype.

        Args:
            x: this replica's features.
            training: use the batch's statistics, and move the running ones.
            replicas: over how many replicas the batch is spread, equally.
        """
        x = ops.cast(x, "float32")
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if training:
            mean = self._batch_mean(x)
            variance = self._batch_mean(ops.square(x - mean))
            count = ops.shape(x)[0] * replicas
            unbiased = variance * ops.cast(count, "float32") / ops.cast(ops.maximum(count - 1, 1), "float32")
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, unbiased)
        scale = 1.0 if self.gamma is None else ops.cast(self.gamma, "float32")
        x = (x - mean) * (scale / ops.sqrt(variance + self.epsilon))
        return ops.cast(x if self.beta is None else x + ops.cast(self.beta, "float32"), self.compute_dtype)

    def _batch_mean(self, x: Any) -> Any:
        return ops.moments(x, axes=[0], synchronized=self.synchronized)[0]

    def _move(self, running: Any, value: Any) -> None:
        running.assign(running * self.momentum + value * (1.0 - self.momentum))


def _norm(kind: str | None, policy: Any, name: str) -> keras.layers.Layer | None:
    if kind == "batch":
        # Synchronised: statistics over all replicas, else the replicas' running statistics drift apart.
        return BatchNormalization(
            epsilon=1e-5, momentum=0.9, synchronized=keras.backend.backend() == "tensorflow", dtype=policy, name=name
        )
    if kind == "layer":
        return LayerNorm(dtype=policy, name=name)
    return None


@keras.saving.register_keras_serializable(package="lut_tf")
class MLPHead(SameShape):
    """Multi-layer perceptron on pooled features: (Linear – norm – activation) · (depth − 1), then Linear; no biases.

    Args:
        width: channels in and out.
        hidden: channels of the hidden layers.
        depth: number of linear layers; 0 is the identity, 1 a single Linear(width → width).
        norm: `batch` (epsilon 1e-5, momentum 0.9; see `BatchNormalization`), `layer` (epsilon 1e-6) or None.
        activation: `relu` or `gelu`.

    Raises:
        ValueError: an unknown norm or activation, or a negative depth.
    """

    def __init__(
        self,
        width: int,
        hidden: int = 4096,
        depth: int = 2,
        norm: str | None = "batch",
        activation: str = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        known = {"hidden": hidden, "projector_depth": depth, "norm": norm, "activation": activation}
        for setting, value in known.items():
            check_value(setting.removeprefix("projector_"), value, hints_of(HeadConfig)[setting])
        self.width, self.hidden, self.depth, self.norm, self.activation = width, hidden, depth, norm, activation
        policy = self.dtype_policy
        widths = [hidden] * (depth - 1) + [width] * (depth > 0)
        self.linears = [
            keras.layers.Dense(units, use_bias=False, dtype=policy, name=f"linear{i}") for i, units in enumerate(widths)
        ]
        norms = [_norm(norm, policy, f"norm{i}") for i in range(depth - 1)]
        self.norms = [layer for layer in norms if layer is not None]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build every child."""
        shape = (None, self.width)
        for linear in self.linears:
            linear.build(shape)
            shape = (None, linear.units)
        for norm in self.norms:
            norm.build((None, self.hidden))
        self.built = True

    def call(self, x: Any, training: bool | None = None, replicas: int = 1) -> Any:
        """Map features (B, width) to (B, width); for `training` and `replicas` see `BatchNormalization`."""
        for i, linear in enumerate(self.linears):
            x = linear(x)
            if i < self.depth - 1:
                if self.norms:
                    x = self._normalised(i, x, training, replicas)
                x = ops.relu(x) if self.activation == "relu" else gelu(x)
        return x

    def _normalised(self, i: int, x: Any, training: bool | None, replicas: int) -> Any:
        return self.norms[i](x, training=training, replicas=replicas) if self.norm == "batch" else self.norms[i](x)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {k: getattr(self, k) for k in ("width", "hidden", "depth", "norm", "activation")}
        return {**super().get_config(), **own}
