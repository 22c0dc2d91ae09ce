"""Masked autoencoder (arXiv 2111.06377): one view, random masking, reconstruction only."""

from __future__ import annotations

from typing import Any

import keras

from lut_tf.config import Places
from lut_tf.methods.base import MaskedImageModel, present
from lut_tf.methods.masking import MaskPlan, guided_plan, random_plan


@keras.saving.register_keras_serializable(package="lut_tf")
class MAE(MaskedImageModel):
    """MAE; see `MaskedImageModel` for the arguments and the batch."""

    method = "mae"

    @staticmethod
    def plans(noise: Any, places: Places, weights: Any = None) -> tuple[MaskPlan, ...]:
        """Return one plan: the patches of the smallest noises are visible (MAE §3), or weights decide (AMT)."""
        return (random_plan(noise, places.visible) if weights is None else guided_plan(noise, weights, places),)

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Return `prediction` (B, V + M, p·p·3: the visible patches', then the masked ones'), `plan1` and `weights`."""
        batch = self.prepare(batch)
        weights = self.weights_of(batch)
        (plan,) = self.plans(batch["noise"], self.places, weights)
        tokens = self.network(self.encoder.encode, batch["view1"], plan.visible)
        prediction = self.network(self.decoder, self.decoder_input(tokens), plan.visible, plan.masked)
        return {"prediction": prediction, "plan1": plan, **present(weights=weights)}
