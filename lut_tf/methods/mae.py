"""Masked autoencoder (arXiv 2111.06377): one view, random masking, reconstruction only."""

from __future__ import annotations

from typing import Any

import keras

from lut_tf.config import Places
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.masking import MaskPlan, random_plan


@keras.saving.register_keras_serializable(package="lut_tf")
class MAE(MaskedImageModel):
    """MAE; see `MaskedImageModel` for the arguments and the batch."""

    method = "mae"

    @staticmethod
    def plans(noise: Any, places: Places) -> tuple[MaskPlan, ...]:
        """Return one plan: the patches of the smallest noises are visible (MAE §3)."""
        return (random_plan(noise, places.visible),)

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Return `prediction` (B, L, p·p·3: the visible patches', then the masked ones') and `plan1`."""
        batch = self.prepare(batch)
        (plan,) = self.plans(batch["noise"], self.places)
        tokens = self.network(self.encoder.encode, batch["view1"], plan.visible)
        prediction = self.network(self.decoder, self.decoder_input(tokens), plan.visible, plan.masked)
        return {"prediction": prediction, "plan1": plan}
