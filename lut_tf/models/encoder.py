"""The Vision Transformer encoder that pre-training leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from lut_tf.config.networks import check_encoder, sides
from lut_tf.config.presets import EncoderSize, encoder_size
from lut_tf.models.layers import (
    LAYER_NORM_EPSILON,
    Block,
    LayerNorm,
    gather_tokens,
    mean_tokens,
    patchify,
    sincos_positions,
)
from lut_tf.models.positions import resize_positions
from lut_tf.models.preprocess import Preprocessing


class Trace(NamedTuple):
    """What `ViTEncoder.blocks` returns when asked to look inside.

    Attributes:
        tokens: (B, T, D) after the last block (and the final norm).
        layers: tokens (B, T, D) after each asked block, in the order asked.
        attention: (B, heads, T, T) of each asked block, in the order asked.
    """

    tokens: Any
    layers: list[Any]
    attention: list[Any]


@keras.saving.register_keras_serializable(package="lut_tf")
class ViTEncoder(keras.Model):
    """Vision Transformer with a class token and fixed 2-D sine-cosine positions (LUT §3; MAE §3).

    Calling it on images (B, H, W, 3) float32, normalised by its `preprocessing`, gives tokens (B, 1 + L, D): the class
    token, then the patches row by row, after the final norm. Pre-training uses the defaults; what comes after `heads`
    is for other people's weights. Tokens in front of the patches, `prefix_tokens` of them, are the class token and the
    register tokens; (B, 1 + L, D) below stands for (B, prefix_tokens + L, D).

    Args:
        image_size: side of a square input, or (height, width), in pixels; multiples of `patch_size`.
        patch_size: side of a patch in pixels.
        width: channels of a token; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads.
        positions: `sincos`, a constant table, or `learned`, a trainable one (truncated normal, 0.02).
        class_token: put a class token in front; without one the tokens are (B, L, D).
        layer_norm_eps: what every norm adds to the variance; Hugging Face's ViT has 1e-12.
        register_tokens: number of learned tokens without position between class token and patches (DINOv2 has 4).
        layer_scale: scale what attention and MLP add, channel by channel (DINOv2, BEiT, DeiT III).
        preprocessing: what its images are normalised by, and how they are resized to be measured; None: ImageNet's.
            Everything that feeds the encoder asks it, and exported files name it.

    Raises:
        ValueError: the sizes do not fit together, `positions` is not known, or a number is out of range.
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        positions: str = "sincos",
        class_token: bool = True,
        layer_norm_eps: float = LAYER_NORM_EPSILON,
        register_tokens: int = 0,
        layer_scale: bool = False,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name or "encoder", **kwargs)
        if positions not in ("sincos", "learned"):
            raise ValueError(f'positions={positions!r} is not known: choose "sincos" or "learned"')
        if not 0.0 < layer_norm_eps < 1.0:
            raise ValueError(f"layer_norm_eps={layer_norm_eps} is not above 0 and below 1: give 1e-6, or 1e-12")
        if register_tokens < 0:
            raise ValueError(f"register_tokens={register_tokens} is below 0: give the number of them")
        self.position_kind, self.has_class_token = positions, bool(class_token)
        self.layer_norm_eps, self.registers, self.layer_scale = layer_norm_eps, register_tokens, bool(layer_scale)
        self.prefix_tokens = int(class_token) + register_tokens
        check_encoder(EncoderSize(patch_size, width, depth, heads), image_size)
        self.image_size = sides(image_size)
        self.preprocessing = Preprocessing.of(preprocessing)
        self.patch_size, self.width, self.depth, self.heads = patch_size, width, depth, heads
        self.grid = (self.image_size[0] // patch_size, self.image_size[1] // patch_size)
        policy = self.dtype_policy
        bias_limit = 1.0 / math.sqrt(3 * patch_size**2)
        self.patch_embedding = keras.layers.Dense(
            width,
            bias_initializer=keras.initializers.RandomUniform(-bias_limit, bias_limit),
            dtype=policy,
            name="patch_embedding",
        )
        self.block_layers = [
            Block(width, heads, layer_norm_eps, self.layer_scale, dtype=policy, name=f"block{i}") for i in range(depth)
        ]
        self.norm = LayerNorm(layer_norm_eps, dtype=policy, name="norm")
        self.build((None, *self.image_size, 3))

    @classmethod
    def from_preset(cls, preset: str, image_size: int | Sequence[int] = 224, **kwargs: Any) -> ViTEncoder:
        """Make an untrained encoder of a published size, e.g. `ViTEncoder.from_preset("vit_base_patch16")`.

        Raises:
            ValueError: no preset has that name.
        """
        return cls(image_size=image_size, **encoder_size(preset)._asdict(), **kwargs)

    @property
    def patches(self) -> int:
        """Number L of patches of the whole image."""
        return self.grid[0] * self.grid[1]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create class and register tokens (normal, 0.02), positions and every child's weights."""
        tokens = (None, self.prefix_tokens + self.patches, self.width)
        self.class_token = self._tokens("class_token", int(self.has_class_token))
        self.register_tokens = self._tokens("register_tokens", self.registers)
        learned = self.position_kind == "learned"
        self.positions = self.add_weight(
            shape=(self.has_class_token + self.patches, self.width),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02) if learned else "zeros",
            trainable=learned,
            autocast=False,
            name="positions",
        )
        if not learned:
            self.positions.assign(sincos_positions(self.grid, self.width, class_token=self.has_class_token))
        self.patch_embedding.build((None, self.patches, 3 * self.patch_size**2))
        layers: list[Any] = [*self.block_layers, self.norm]
        for layer in layers:
            layer.build(tokens)
        self.built = True

    def _tokens(self, name: str, count: int) -> Any:
        """Return a variable (1, count, D), or None where there are none."""
        if not count:  # no initialiser either: to make one takes a seed, and all weights after it would be others
            return None
        normal = keras.initializers.RandomNormal(stddev=0.02)
        return self.add_weight(shape=(1, count, self.width), initializer=normal, name=name)

    def embed(self, images: Any, ids: Any = None) -> Any:
        """Embed patches: first choose, then project, so that masked patches cost nothing.

        Args:
            images: (B, H, W, 3) float, normalised.
            ids: (B, V) integer ids of the patches wanted, row by row from 0; None takes all L.

        Returns:
            (B, V, D), positions not yet added.

        Raises:
            ValueError: the images are bytes, or of another size than the encoder's.
        """
        self._check_images(images)
        patches = patchify(images, self.patch_size)
        if ids is not None:
            patches = gather_tokens(patches, ids)
        return self.patch_embedding(patches)

    def _check_images(self, images: Any) -> None:
        height, width = self.image_size
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1:] != (height, width, 3):
            raise ValueError(
                f"images of shape {shape}, but this encoder takes (batch, {height}, {width}, 3): resize them, or take "
                f"encoder.resized((height, width))"
            )
        if not keras.backend.is_float_dtype(images.dtype):
            raise ValueError(
                f"images of dtype {keras.backend.standardize_dtype(images.dtype)}, but this encoder takes floats, "
                "normalised: give lut_tf.models.preprocess.normalise(images, encoder.preprocessing)"
            )

    def add_positions(self, embedded: Any, ids: Any = None) -> Any:
        """Add each patch's position and put the prefix in front: (B, V, D) -> (B, prefix_tokens + V, D)."""
        table = ops.cast(self.positions, self.compute_dtype)
        patch_positions = table[int(self.has_class_token) :]
        positions = patch_positions[None] if ids is None else ops.take(patch_positions, ids, axis=0)
        prefix = []
        if self.class_token is not None:
            prefix.append(ops.cast(self.class_token, self.compute_dtype) + table[None, :1])
        if self.register_tokens is not None:
            prefix.append(ops.cast(self.register_tokens, self.compute_dtype))
        batch = ops.shape(embedded)[0]
        tokens = [ops.broadcast_to(token, (batch, *token.shape[1:])) for token in prefix]
        return ops.concatenate([*tokens, embedded + positions], axis=1) if tokens else embedded + positions

    def blocks(
        self,
        tokens: Any,
        layers: Sequence[int] = (),
        attention: Sequence[int] = (),
        final_norm: bool = True,
        kept: Any = None,
    ) -> Any:
        """Run the transformer blocks.

        Args:
            tokens: (B, T, D).
            layers: blocks (from 0, negative from the end) whose tokens are wanted too.
            attention: blocks whose attention is wanted too.
            final_norm: apply the norm after the last block.
            kept: (B, 2 · depth) by how much what attention and MLP of each block in turn add counts, see
                `drop_path_factors`; None: wholly.

        Returns:
            The tokens (B, T, D); or a `Trace` where `layers` or `attention` ask for more.

        Raises:
            IndexError: there is no such block.
        """
        wanted_tokens, wanted_maps = ([range(self.depth)[i] for i in chosen] for chosen in (layers, attention))
        states, maps = {}, {}
        for i, block in enumerate(self.block_layers):
            own = None if kept is None else kept[:, 2 * i : 2 * i + 2]
            if i in wanted_maps:
                tokens, maps[i] = block(tokens, return_attention=True, kept=own)
            else:
                tokens = block(tokens, kept=own)
            if i in wanted_tokens:
                states[i] = tokens
        if final_norm:
            tokens = self.norm(tokens)
        if not layers and not attention:
            return tokens
        return Trace(tokens, [states[i] for i in wanted_tokens], [maps[i] for i in wanted_maps])

    def encode(self, images: Any, ids: Any = None) -> Any:
        """Return the tokens (B, 1 + V, D), after the final norm, of the patches with `ids` (B, V); None takes all."""
        return self.blocks(self.add_positions(self.embed(images, ids), ids))

    def encode_and_look(self, images: Any) -> tuple[Any, Any]:
        """Return the tokens (B, 1 + L, D) of whole images, after the final norm, and what the class token looks at.

        The second is (B, heads, L) float32: the last block's attention of the class token, which there must be, to the
        patches. The rest of that attention is not kept.
        """
        trace = self.blocks(self.add_positions(self.embed(images)), attention=(-1,))
        return trace.tokens, trace.attention[0][:, :, 0, self.prefix_tokens :]

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Return the tokens (B, 1 + L, D) of whole images (B, H, W, 3)."""
        return self.encode(images)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of `call`'s result, for Keras' summaries."""
        return input_shape[0], self.prefix_tokens + self.patches, self.width

    def features(self, images: Any, pooling: str = "mean") -> Any:
        """Return one vector an image, (B, D): the mean of the patch tokens (`mean`) or the class token (`cls`).

        Raises:
            ValueError: `pooling` is neither, or there is no class token.
        """
        if pooling not in ("mean", "cls"):
            raise ValueError(f'pooling={pooling!r} is not known: choose "mean" or "cls"')
        if pooling == "cls" and not self.has_class_token:
            raise ValueError('pooling="cls" needs a class token and this encoder has none: choose "mean"')
        return self.pooled(self(images), pooling)

    def pooled(self, tokens: Any, pooling: str) -> Any:
        """Return the vectors (B, D) of `features` from an image's tokens (B, 1 + L, D)."""
        return tokens[:, 0] if pooling == "cls" else mean_tokens(tokens[:, self.prefix_tokens :])

    def export(self, *arguments: Any, **kwargs: Any) -> None:
        """Export as `keras.Model.export` does, which wants a model that was called.

        For files that are compared with the encoder before they are kept: `lut_tf.export`.
        """
        self(ops.zeros((1, *self.image_size, 3)))
        super().export(*arguments, **kwargs)

    def resized(self, image_size: int | Sequence[int], positions: str | None = None) -> ViTEncoder:
        """Return an encoder for another input size, rectangles too: same weights, the positions resized bicubically.

        Args:
            image_size: side or (height, width) in pixels.
            positions: `learned` makes them trainable in the copy, `sincos` constant; None leaves them as they are.

        Raises:
            ValueError: a side is no multiple of the patch size, or `positions` is not known.
        """
        changes = {"image_size": sides(image_size), "positions": positions or self.position_kind, "name": None}
        other = ViTEncoder.from_config({**self.get_config(), **changes})
        for target, source in zip(other.variables, self.variables, strict=True):
            if source is not self.positions:
                target.assign(source)
        table = ops.convert_to_numpy(self.positions)
        other.positions.assign(resize_positions(table, self.grid, other.grid, class_token=self.has_class_token))
        return other

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "positions": self.position_kind,
            "class_token": self.has_class_token,
            "layer_norm_eps": self.layer_norm_eps,
            "register_tokens": self.registers,
            "layer_scale": self.layer_scale,
            "preprocessing": self.preprocessing.asdict(),
        }
