"""Transformer layers and patch arithmetic, in `keras.ops` only."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

LAYER_NORM_EPSILON = 1e-6


def gelu(x: Any) -> Any:
    """Return the exact GELU of `x`.

    Written with `erf`: TensorFlow lowers Keras' own exact GELU to `Erfc`, which tf2onnx writes as an invalid node.
    """
    return 0.5 * x * (1.0 + ops.erf(x * (1.0 / math.sqrt(2.0))))


def patchify(images: Any, patch_size: int) -> Any:
    """Cut images into patches.

    Args:
        images: (B, H, W, C); H and W are multiples of `patch_size` and known when the graph is built.
        patch_size: side p of a patch in pixels.

    Returns:
        (B, H/p · W/p, p·p·C), patches row by row, the values of each in (row, column, channel) order.
    """
    height, width, channels = images.shape[1:]
    rows, columns = height // patch_size, width // patch_size
    # The batch from the images themselves: inferred from the number of values it would make four images of one that is
    # twice as high and wide, in a restored file that does not look at sizes.
    x = ops.reshape(images, (ops.shape(images)[0], rows, patch_size, columns, patch_size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (ops.shape(images)[0], rows * columns, patch_size * patch_size * channels))


def unpatchify(patches: Any, grid: tuple[int, int], patch_size: int) -> Any:
    """Put patches (B, L, p·p·C) of a (rows, columns) grid together to images (B, H, W, C): `patchify` undone."""
    rows, columns = grid
    channels = patches.shape[-1] // patch_size**2
    x = ops.reshape(patches, (-1, rows, columns, patch_size, patch_size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, rows * patch_size, columns * patch_size, channels))


def gather_tokens(tokens: Any, ids: Any) -> Any:
    """Return tokens[b, ids[b, i]] as (B, I, D), from tokens (B, L, D) and integer ids (B, I).

    Written as one gather of whole rows: `take_along_axis` would fetch every channel by an index of its own.
    """
    length, width = tokens.shape[1:]
    offsets = ops.arange(ops.shape(tokens)[0], dtype="int32")[:, None] * length
    return ops.take(ops.reshape(tokens, (-1, width)), ops.cast(ids, "int32") + offsets, axis=0)


def mean_tokens(tokens: Any) -> Any:
    """Return the mean of the tokens (B, T, D) as (B, D) float32, whatever they were computed in."""
    return ops.mean(ops.cast(tokens, "float32"), axis=1)


def drop_path_factors(draws: Any, rate: float) -> Any:
    """Decide which paths around a block's attention and MLP are taken, and by how much they count.

    Args:
        draws: (B, 2 · depth) float32, uniform in [0, 1): of attention and MLP of each block in turn. A path is dropped
            where its draw is below its block's rate.
        rate: of the last block, below 1; it rises linearly from 0 at the first block (of a single block, which is the
            first, it is 0).

    Returns:
        (B, 2 · depth) float32: 0 for what is dropped, else 1/(1 − its block's rate), so that the mean is 1.
    """
    rates = np.repeat(np.linspace(0.0, rate, draws.shape[1] // 2), 2).astype("float32")
    return ops.where(draws >= rates, 1.0 / (1.0 - rates), 0.0)


def sincos_positions(grid: tuple[int, int], width: int, class_token: bool = True) -> np.ndarray:
    """Return the fixed 2-D sine-cosine position table (LUT §3, after MAE).

    The first half of the channels encodes the column, the second half the row; each half is
    [sin(ω·position), cos(ω·position)] with ω_i = 10000^(−i/(width/4)). A class token's position is zero.

    Args:
        grid: (rows, columns) of patches.
        width: channels, a multiple of 4.
        class_token: put a row of zeros in front.

    Returns:
        float32 (1 + rows·columns or rows·columns, width).
    """
    omega = 10000.0 ** (-np.arange(width // 4) / (width / 4))
    row, column = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1) * omega for axis in (column, row)]
    table = np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)
    if class_token:
        table = np.concatenate([np.zeros((1, width)), table])
    return table.astype("float32")


class SameShape(keras.layers.Layer):
    """A layer whose result has the shape of its input, which Keras' summaries cannot see by themselves."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of `call`'s result, for Keras' summaries."""
        return input_shape


class LayerNorm(SameShape):
    """Layer normalisation over the last axis, computed in float32.

    Spelled out operation by operation because the exporter can bring this form, not the one that Keras' layer becomes,
    to the pattern that onnxruntime fuses (`lut_tf.export.onnx`).

    Args:
        epsilon: what is added to the variance.
    """

    def __init__(self, epsilon: float = LAYER_NORM_EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create scale (1) and shift (0)."""
        width = input_shape[-1]
        self.gamma = self.add_weight(shape=(width,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(width,), initializer="zeros", name="beta")
        self.built = True

    def call(self, x: Any) -> Any:
        """Normalise `x` (..., width); the result has the layer's compute dtype."""
        x = ops.cast(x, "float32")
        centred = x - ops.mean(x, axis=(-1,), keepdims=True)  # a tuple: OpenVINO refuses the scalar axis
        variance = ops.mean(ops.square(centred), axis=(-1,), keepdims=True)
        normal = centred / ops.sqrt(variance + self.epsilon)
        scaled = normal * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(scaled, self.compute_dtype)


class Attention(SameShape):
    """Multi-head self-attention with one matrix for queries, keys and values.

    Args:
        width: channels, a multiple of `heads`.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.head_width = width // heads
        self.qkv = keras.layers.Dense(3 * width, dtype=self.dtype_policy, name="qkv")
        self.projection = keras.layers.Dense(width, dtype=self.dtype_policy, name="projection")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build both linear layers."""
        self.qkv.build(input_shape)
        self.projection.build(input_shape)
        self.built = True

    def call(self, x: Any, return_attention: bool = False) -> Any:
        """Mix the tokens (B, T, D) with each other.

        Args:
            x: (B, T, D).
            return_attention: the attention (B, heads, T, T), float32, rows summing to 1, is wanted too.

        Returns:
            The mixed tokens (B, T, D); with `return_attention`, these and the attention.
        """
        length = x.shape[1]
        qkv = ops.reshape(self.qkv(x), (-1, length, 3, self.heads, self.head_width))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3, axis=0)
        scores = ops.matmul(query * self.head_width**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        attention = ops.softmax(ops.cast(scores, "float32"), axis=-1)
        mixed = ops.matmul(ops.cast(attention, value.dtype), value)
        mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, length, self.heads * self.head_width))
        mixed = self.projection(mixed)
        return (mixed, attention) if return_attention else mixed


class MLP(SameShape):
    """Two linear layers with an exact GELU between them.

    Args:
        width: channels in and out.
        hidden: channels between.
    """

    def __init__(self, width: int, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fc1 = keras.layers.Dense(hidden, dtype=self.dtype_policy, name="fc1")
        self.fc2 = keras.layers.Dense(width, dtype=self.dtype_policy, name="fc2")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build both linear layers."""
        self.fc1.build(input_shape)
        self.fc2.build((*input_shape[:-1], self.fc1.units))
        self.built = True

    def call(self, x: Any) -> Any:
        """Map tokens (B, T, D) to (B, T, D), each by itself."""
        return self.fc2(gelu(self.fc1(x)))


class LayerScale(SameShape):
    """Multiply each channel by a number of its own, 1e-5 at first, as DINOv2 and BEiT do what a block adds."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the numbers (width,)."""
        start = keras.initializers.Constant(1e-5)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")
        self.built = True

    def call(self, x: Any) -> Any:
        """Scale `x` (..., width)."""
        return x * ops.cast(self.gamma, x.dtype)


class Block(SameShape):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)); MLP ratio 4, exact GELU.

    Args:
        width: channels.
        heads: attention heads.
        epsilon: of both norms.
        layer_scale: a `LayerScale` on what attention and MLP add.
    """

    def __init__(
        self, width: int, heads: int, epsilon: float = LAYER_NORM_EPSILON, layer_scale: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.norm1 = LayerNorm(epsilon, dtype=policy, name="norm1")
        self.attention = Attention(width, heads, dtype=policy, name="attention")
        self.norm2 = LayerNorm(epsilon, dtype=policy, name="norm2")
        self.mlp = MLP(width, 4 * width, dtype=policy, name="mlp")
        self.scale1 = LayerScale(dtype=policy, name="scale1") if layer_scale else None
        self.scale2 = LayerScale(dtype=policy, name="scale2") if layer_scale else None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build every child, so that saved weights load (Keras 3 skips children that were not built)."""
        for layer in (self.norm1, self.attention, self.norm2, self.mlp, self.scale1, self.scale2):
            if layer is not None:
                layer.build(input_shape)
        self.built = True

    def call(self, x: Any, return_attention: bool = False, kept: Any = None) -> Any:
        """Return the tokens (B, T, D); with `return_attention`, also the attention (B, heads, T, T), as `Attention`.

        Args:
            x: (B, T, D).
            return_attention: the attention is wanted too.
            kept: (B, 2) by how much what attention and MLP add counts, see `drop_path_factors`; None: wholly.
        """
        mixed = self.attention(self.norm1(x), return_attention=return_attention)
        mixed, attention = mixed if return_attention else (mixed, None)
        x = x + _counted(mixed if self.scale1 is None else self.scale1(mixed), kept, 0)
        mapped = self.mlp(self.norm2(x))
        x = x + _counted(mapped if self.scale2 is None else self.scale2(mapped), kept, 1)
        return (x, attention) if return_attention else x


def _counted(added: Any, kept: Any, path: int) -> Any:
    """Multiply what a path adds (B, T, D) by its factors, column `path` of (B, 2)."""
    return added if kept is None else added * ops.cast(kept[:, path, None, None], added.dtype)
