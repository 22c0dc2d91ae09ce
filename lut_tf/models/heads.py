"""LUT's projector and predictor (pre-training only)."""

from __future__ import annotations

from typing import Any

import keras

from lut_tf.models.layers import LayerNorm, gelu


def _norm(kind: str | None, policy: Any, name: str) -> keras.layers.Layer | None:
    if kind == "batch":
        # Synchronised: statistics over all replicas, else the replicas' running statistics drift apart.
        return keras.layers.BatchNormalization(
            epsilon=1e-5, momentum=0.9, synchronized=keras.backend.backend() == "tensorflow", dtype=policy, name=name
        )
    if kind == "layer":
        return LayerNorm(dtype=policy, name=name)
    if kind is None:
        return None
    raise ValueError(f'head norm={kind!r} is not known: choose "batch", "layer" or None')


@keras.saving.register_keras_serializable(package="lut_tf")
class MLPHead(keras.layers.Layer):
    """Multi-layer perceptron on pooled features: (Linear – norm – activation) · (depth − 1), then Linear; no biases.

    BatchNorm's running variance is the biased one (Keras); the reference's is unbiased, an accepted difference.

    Args:
        width: channels in and out.
        hidden: channels of the hidden layers.
        depth: number of linear layers; 0 is the identity, 1 a single Linear(width → width).
        norm: `batch` (epsilon 1e-5, momentum 0.9), `layer` (epsilon 1e-6) or None.
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
        if activation not in ("relu", "gelu"):
            raise ValueError(f'head activation={activation!r} is not known: choose "relu" or "gelu"')
        if depth < 0:
            raise ValueError(f"head depth={depth} must be 0 or more")
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

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Map features (B, width) to (B, width)."""
        for i, linear in enumerate(self.linears):
            x = linear(x)
            if i < self.depth - 1:
                if self.norms:
                    x = self.norms[i](x, training=training) if self.norm == "batch" else self.norms[i](x)
                x = keras.ops.relu(x) if self.activation == "relu" else gelu(x)
        return x

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {k: getattr(self, k) for k in ("width", "hidden", "depth", "norm", "activation")}
        return {**super().get_config(), **own}
