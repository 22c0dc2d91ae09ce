"""SimMIM (arXiv 2111.09886): the encoder itself paints what is masked; one linear layer makes pixels of its tokens."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from lut_tf.config import MethodConfig, Places
from lut_tf.methods.base import MaskedImageModel, present
from lut_tf.methods.losses import l1_reconstruction_loss
from lut_tf.methods.masking import MaskPlan, guided_plan, unit_plan
from lut_tf.models.decoder import LinearDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.layers import drop_path_factors


@keras.saving.register_keras_serializable(package="lut_tf")
class SimMIM(MaskedImageModel):
    """SimMIM; see `MaskedImageModel` for the arguments and the batch.

    Squares of `mask_unit` pixels are masked, by default of 32. All patches enter the encoder, the masked ones as one
    learned token at their places; the loss is the absolute error of their pixels. The encoder has learned absolute
    positions, where the original has a relative bias.
    """

    method = "simmim"
    decoder_kind = LinearDecoder
    undecayed_names = ("bias", "positions", "class_token")

    @classmethod
    def make_encoder(cls, **settings: Any) -> ViTEncoder:
        """Make an untrained encoder with learned positions and SimMIM's first weights; see `initialise`."""
        return initialise(ViTEncoder(**{"positions": "learned", **settings}))

    @property
    def norm_pix_loss(self) -> bool:
        """Targets are the pixels themselves."""
        return False

    @staticmethod
    def noise_numbers(settings: MethodConfig, places: Places, depth: int) -> int:
        """Return how many uniform numbers an image needs: one a unit; with drop path two a block more."""
        return places.total + (2 * depth if settings.drop_path else 0)

    @staticmethod
    def plans(noise: Any, places: Places, weights: Any = None) -> tuple[MaskPlan, ...]:
        """Return one plan: the units of the smallest noises are masked, or weights decide (AMT)."""
        noise = noise[:, : places.total]
        return (unit_plan(noise, places) if weights is None else guided_plan(noise, weights, places),)

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Return `prediction` (B, V + M, p·p·3: the visible patches', then the masked ones'), `plan1` and `weights`."""
        batch = self.prepare(batch)
        weights = self.weights_of(batch)
        (plan,) = self.plans(batch["noise"], self.places, weights)
        tokens = self.network(
            self._encode, batch["view1"], plan.visible, plan.masked, self._kept(batch["noise"], training)
        )
        return {"prediction": self.network(self.decoder, tokens), "plan1": plan, **present(weights=weights)}

    def _encode(self, images: Any, visible: Any, masked: Any, kept: Any) -> Any:
        """Return the final tokens (B, V + M, D) of the patches, those at `visible` first."""
        encoder = self.encoder
        embedded = encoder.embed(images, visible)
        token = ops.cast(self.decoder.mask_token, embedded.dtype)
        tokens = ops.broadcast_to(token, (ops.shape(images)[0], masked.shape[1], encoder.width))
        placed = encoder.add_positions(
            ops.concatenate([embedded, tokens], axis=1), ops.concatenate([visible, masked], axis=1)
        )
        return encoder.blocks(placed, kept=kept)[:, encoder.prefix_tokens :]

    def _kept(self, noise: Any, training: bool | None) -> Any:
        """Return the factor of each path around attention and MLP, from the noise behind the masks'; None: all 1."""
        rate = self.settings.drop_path
        return drop_path_factors(noise[:, self.places.total :], rate) if training and rate else None

    def reconstruction(self, batch: dict[str, Any], outputs: dict[str, Any]) -> Any:
        """Return the absolute error of the masked pixels, from a prepared batch and what `call` made of it."""
        target = self.reconstruction_target(batch["view1"], outputs["plan1"].masked)
        return l1_reconstruction_loss(outputs["prediction"][:, self.visible :], target)


def initialise(encoder: ViTEncoder) -> ViTEncoder:
    """Give an encoder SimMIM's first weights, and return it.

    Truncated normal, 0.02; the matrices whose results a block adds are divided by √(2 · its number, from 1); biases 0.
    """
    for variable in encoder.trainable_variables:
        if variable.name not in ("gamma", "beta"):
            # One each: a Keras initialiser gives the same numbers whenever it is asked.
            start = keras.initializers.TruncatedNormal(stddev=0.02) if len(variable.shape) > 1 else ops.zeros
            variable.assign(start(variable.shape))
    for number, block in enumerate(encoder.block_layers, start=1):
        for layer in (block.attention.projection, block.mlp.fc2):
            layer.kernel.assign(layer.kernel / math.sqrt(2 * number))
    return encoder
