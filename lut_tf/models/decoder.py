"""What reconstructs (pre-training only): a small transformer, or SimMIM's linear layer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lut_tf.config.networks import check_tokens
from lut_tf.models.layers import Block, LayerNorm, sincos_positions


@keras.saving.register_keras_serializable(package="lut_tf")
class PixelDecoder(keras.Model):
    """Small transformer that paints the masked patches from the visible ones' tokens (MAE §3, LUT §3).

    The tokens stay in the order of the mask plan: attention does not care about order once positions are added, so the
    sequence need not be put back into image order.

    Args:
        grid: (rows, columns) of the encoder's patches.
        patch_size: side of a patch in pixels.
        encoder_width: channels of the encoder's tokens.
        width: channels of the decoder's tokens; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads.

    Raises:
        ValueError: the width does not fit the heads.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: int,
        encoder_width: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name or "decoder", **kwargs)
        check_tokens("", width, heads)
        self.grid = (int(grid[0]), int(grid[1]))
        self.patch_size, self.encoder_width = patch_size, encoder_width
        self.width, self.depth, self.heads = width, depth, heads
        policy = self.dtype_policy
        self.embedding = keras.layers.Dense(width, dtype=policy, name="embedding")
        self.block_layers = [Block(width, heads, dtype=policy, name=f"block{i}") for i in range(depth)]
        self.norm = LayerNorm(dtype=policy, name="norm")
        self.pixels = keras.layers.Dense(3 * patch_size**2, dtype=policy, name="pixels")
        self.build((None, None, encoder_width))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create mask token (normal, 0.02), positions (a constant) and every child's weights."""
        self.mask_token = self.add_weight(
            shape=(1, 1, self.width), initializer=keras.initializers.RandomNormal(stddev=0.02), name="mask_token"
        )
        table = sincos_positions(self.grid, self.width)
        self.positions = self.add_weight(
            shape=table.shape, initializer="zeros", trainable=False, autocast=False, name="positions"
        )
        self.positions.assign(table)
        self.embedding.build((None, None, self.encoder_width))
        for layer in (*self.block_layers, self.norm, self.pixels):
            layer.build((None, None, self.width))
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of `call`'s result on all patches, for Keras' summaries."""
        return input_shape[0], self.grid[0] * self.grid[1], 3 * self.patch_size**2

    def call(self, tokens: Any, visible: Any, masked: Any, training: bool | None = None) -> Any:
        """Predict the pixels of every patch that the decoder knows of.

        Args:
            tokens: (B, 1 + V, encoder width): class token, then the tokens of the patches at `visible`.
            visible: (B, V) integer ids of patches, row by row from 0.
            masked: (B, M) integer ids of patches, row by row from 0.
            training: unused (the decoder has neither dropout nor batch statistics).

        Returns:
            (B, V + M, p·p·3): predictions at `visible`, then at `masked`, values in (row, column, channel) order.
        """
        return self.pixels(self.decode(tokens, visible, masked))

    def decode(self, tokens: Any, visible: Any, masked: Any) -> Any:
        """Return the tokens (B, V + M, width), after the norm, that `call` makes pixels of; for arguments see there."""
        batch, hidden = ops.shape(tokens)[0], masked.shape[1]
        mask_token = ops.cast(self.mask_token, self.compute_dtype)
        mask_tokens = ops.broadcast_to(mask_token, (batch, hidden, self.width))
        x = ops.concatenate([self.embedding(tokens), mask_tokens], axis=1)
        table = ops.cast(self.positions, self.compute_dtype)
        ids = ops.concatenate([visible, masked], axis=1)
        class_position = ops.broadcast_to(table[None, :1], (batch, 1, self.width))
        x = x + ops.concatenate([class_position, ops.take(table[1:], ids, axis=0)], axis=1)
        for block in self.block_layers:
            x = block(x)
        return self.norm(x[:, 1:])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "grid": self.grid,
            "patch_size": self.patch_size,
            "encoder_width": self.encoder_width,
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
        }


@keras.saving.register_keras_serializable(package="lut_tf")
class LinearDecoder(keras.Model):
    """What SimMIM has beside its encoder: one linear layer from tokens to pixels, and the token of masked patches.

    The linear layer's outputs are in (channel, row, column) order, as the reference's; what `call` returns is in the
    order of all predictions here.

    Args:
        grid: (rows, columns) of the encoder's patches.
        patch_size: side of a patch in pixels.
        encoder_width: channels of the encoder's tokens.
    """

    def __init__(
        self, grid: tuple[int, int], patch_size: int, encoder_width: int, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name or "decoder", **kwargs)
        self.grid = (int(grid[0]), int(grid[1]))
        self.patch_size, self.encoder_width = patch_size, encoder_width
        self.pixels = keras.layers.Dense(
            3 * patch_size**2,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name="pixels",
        )
        self.build((None, None, encoder_width))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create mask token (truncated normal, 0.02) and linear layer."""
        self.mask_token = self.add_weight(
            shape=(1, 1, self.encoder_width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="mask_token",
        )
        self.pixels.build((None, None, self.encoder_width))
        self.built = True

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of `call`'s result, for Keras' summaries."""
        return *input_shape[:-1], 3 * self.patch_size**2

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """Predict pixels (B, T, p·p·3), values in (row, column, channel) order, from patch tokens (B, T, D)."""
        length, side = tokens.shape[1], self.patch_size
        pixels = ops.reshape(self.pixels(tokens), (-1, length, 3, side, side))
        return ops.reshape(ops.transpose(pixels, (0, 1, 3, 4, 2)), (-1, length, 3 * side**2))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "grid": self.grid,
            "patch_size": self.patch_size,
            "encoder_width": self.encoder_width,
        }
