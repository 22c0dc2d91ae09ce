"""What every masked-image method shares: batches in, losses by name out, `fit` around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import keras
from keras import ops

from lut_tf.config import MethodConfig, Places, build_group, changed, validate
from lut_tf.config.presets import encoder_size
from lut_tf.methods.losses import patch_statistics, reconstruction_loss
from lut_tf.methods.masking import MaskPlan, plan_flags
from lut_tf.models.colour import apply_colour
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.layers import gather_tokens, patchify, unpatchify
from lut_tf.models.preprocess import normalise
from lut_tf.step import Gather, TrainableModel


class MaskedImageModel(TrainableModel):
    """Base of `LUT`, `MAE` and `SimMIM`: an encoder that learns by reconstructing what it was not shown.

    A batch is a dict as `lut_tf.data` yields it: `view1` (B, H, W, 3) and, for two-view methods, `view2`, both uint8,
    or float32 and already normalised; `colour` (B, K) float32, the colour decisions of a uint8 `view2`; `noise`
    (B, `noise_length`) float32 in [0, 1), whose order decides the masks; `weights` (B, L) float32 from 0, of each patch
    of view 1, where masking asks the batch for them (`masking.guide` table).

    Args:
        encoder: the network that is kept.
        decoder: the network that reconstructs; None makes the paper's (512 wide, 8 blocks, 16 heads; of SimMIM a
            `LinearDecoder`).
        mask_ratio: the setting of this name.
        norm_pix_loss: the setting of this name.
        settings: the method's group of a configuration; None: the defaults.
        name: of the Keras model.
        dtype: Keras dtype policy of the whole model, that of all its parts; None: the encoder's.
        **changes: other settings of the group by their names.

    Raises:
        ValueError: a setting that is unknown or cannot be, no visible or no masked patch, an encoder without class
            token, or a decoder of another kind or made for another encoder.
    """

    method: Literal["lut", "mae", "simmim"]
    """What the setting `method.name` calls this class."""
    decoder_kind: type[Any] = PixelDecoder
    view_count = 1
    has_teacher = False
    loss_parts: tuple[str, ...] = ("reconstruction",)

    def __init__(
        self,
        encoder: ViTEncoder,
        decoder: Any = None,
        mask_ratio: float | None = None,
        norm_pix_loss: bool | None = None,
        *,
        settings: MethodConfig | None = None,
        name: str | None = None,
        dtype: Any = None,
        **changes: Any,
    ) -> None:
        # Without autocast a batch keeps its precision: noise in bfloat16 would tie.
        super().__init__(name=name, dtype=dtype or encoder.dtype_policy, autocast=False)
        self._check_policy(encoder)
        short = {"mask_ratio": mask_ratio, "norm_pix_loss": norm_pix_loss}
        changes |= {setting: value for setting, value in short.items() if value is not None}
        self.settings = changed(settings or MethodConfig(), {**changes, "name": self.method})
        validate(self.settings)
        if not encoder.has_class_token:
            raise ValueError("class_token=False of the encoder: pre-training here needs one, give class_token=True")
        self.encoder = encoder
        tokens = (encoder.grid, encoder.patch_size, encoder.width)
        self.decoder = decoder or self.decoder_kind(*tokens, dtype=self.dtype_policy)
        if not isinstance(self.decoder, self.decoder_kind):
            kinds = type(self.decoder).__name__, self.decoder_kind.__name__
            raise ValueError(f"decoder is a {kinds[0]}, and {type(self).__name__} has a {kinds[1]}: give one, or none")
        self._check_policy(self.decoder)
        found = (self.decoder.grid, self.decoder.patch_size, self.decoder.encoder_width)
        if found != tokens:
            raise ValueError(
                f"decoder made for (grid, patch size, encoder width) {found}, but the encoder has {tokens}"
            )
        self.places = self.settings.places(encoder.image_size, encoder.patch_size)
        self.visible = self.places.visible * self.places.side**2
        self.built = True  # every part builds itself; Keras would wait for a first call

    def _check_policy(self, part: Any) -> None:
        """Refuse a part of another precision, which would train in it in silence, in float16 without loss scaling."""
        if part.dtype_policy.name != self.dtype_policy.name:
            raise ValueError(
                f"dtype={self.dtype_policy.name!r} of {type(self).__name__}, but {part.name} computes in "
                f"{part.dtype_policy.name}: give all parts the same dtype"
            )

    @classmethod
    def from_preset(cls, preset: str, image_size: int | tuple[int, int] = 224, **settings: Any) -> Any:
        """Make an untrained model around `ViTEncoder.from_preset(preset, image_size)`; `settings` go to the model."""
        size = encoder_size(preset)._asdict()
        return cls(cls.make_encoder(image_size=image_size, **size, dtype=settings.get("dtype")), **settings)

    @classmethod
    def make_encoder(cls, **settings: Any) -> ViTEncoder:
        """Make the untrained encoder that the method begins with; `settings` are `ViTEncoder`'s."""
        return ViTEncoder(**settings)

    @property
    def mask_ratio(self) -> float:
        """Share of the patches that the student does not see."""
        return self.settings.mask_ratio

    @property
    def norm_pix_loss(self) -> bool:
        """Whether each target patch is normalised by its own mean and deviation."""
        return self.settings.norm_pix_loss

    @staticmethod
    def noise_numbers(settings: MethodConfig, places: Places, depth: int) -> int:
        """Return how many uniform numbers an image needs: for its masks, and for what else is drawn in a step.

        Args:
            settings: of the method.
            places: where it can be masked.
            depth: the encoder's blocks.
        """
        return places.total

    @property
    def noise_length(self) -> int:
        """Number of uniform numbers an image needs for its masks."""
        return self.noise_numbers(self.settings, self.places, self.encoder.depth)

    @staticmethod
    def plans(noise: Any, places: Places, weights: Any = None) -> tuple[MaskPlan, ...]:
        """Return the mask plan of each view that the student may see.

        Args:
            noise: (B, `noise_numbers`) float, uniform.
            places: where an image can be masked, and how much of it is.
            weights: (B, L) float of each patch of view 1, where these decide; None: at random.
        """
        raise NotImplementedError("a method must define plans")

    def check_batch(self, batch: Any) -> None:
        """Refuse what is no batch as `lut_tf.data` makes them.

        Raises:
            ValueError: something is missing, or the noise is not for this encoder.
        """
        wanted = ["noise", *("view1", "view2")[: self.view_count]]
        if not isinstance(batch, Mapping) or any(name not in batch for name in wanted):
            held = f"a dict of {', '.join(batch)}" if isinstance(batch, Mapping) else "no dict"
            raise ValueError(
                f"the batch is {held}, and {type(self).__name__} takes a dict with {', '.join(wanted)}: give batches "
                "of lut_tf.data.batches_for(model, images, batch_size)"
            )
        if batch["noise"].shape[1] != self.noise_length:
            raise ValueError(
                f"noise of {batch['noise'].shape[1]} numbers an image, but the mask needs {self.noise_length}: "
                f"give noise_length=model.noise_length"
            )
        masking, patches = self.settings.masking, self.encoder.patches
        weights = batch["weights"].shape[1] if "weights" in batch else 0
        if masking.name == "attention" and masking.guide == "table" and weights != patches:
            raise ValueError(
                f"the batch has weights of {weights} numbers an image, and masking.guide=table asks for {patches}: "
                "give each batch `weights`, one for each patch of view 1, row by row"
            )

    def weights_of(self, batch: dict[str, Any]) -> Any:
        """Return the weights (B, L) of a batch by which it is masked; None where that is at random."""
        return batch["weights"] if self.settings.masking.name == "attention" else None

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Turn uint8 views into normalised float32, view 2 coloured by the batch's decisions; float views stay.

        Raises:
            ValueError: see `check_batch`.
        """
        self.check_batch(batch)
        prepared = dict(batch)
        for name in ("view1", "view2")[: self.view_count]:
            view = batch[name]
            if keras.backend.standardize_dtype(view.dtype) == "uint8":
                if name == "view2" and "colour" in batch:
                    view = self.network(apply_colour, view, batch["colour"])
                prepared[name] = normalise(view, self.encoder.preprocessing)
        return prepared

    def decoder_input(self, tokens: Any) -> Any:
        """Return class token and visible patches (B, 1 + V, D) of the encoder's tokens: register tokens stay behind."""
        prefix = self.encoder.prefix_tokens
        return tokens if prefix == 1 else ops.concatenate([tokens[:, :1], tokens[:, prefix:]], axis=1)

    def reconstruction_target(self, images: Any, ids: Any) -> Any:
        """Return the pixels (B, M, p·p·3) of the patches at `ids`, normalised per patch if the loss is."""
        target = gather_tokens(patchify(ops.cast(images, "float32"), self.encoder.patch_size), ids)
        if not self.norm_pix_loss:
            return target
        mean, deviation = patch_statistics(target)
        return (target - mean) / deviation

    def reconstruction(self, batch: dict[str, Any], outputs: dict[str, Any]) -> Any:
        """Return L_MIM of view 1 from a prepared batch and what `call` made of it."""
        target = self.reconstruction_target(batch["view1"], outputs["plan1"].masked)
        return reconstruction_loss(outputs["prediction"][:, self.visible :], target)

    def compute_losses(
        self, batch: dict[str, Any], training: bool = True, gather: Gather = lambda x: x
    ) -> dict[str, Any]:
        """Return `total` and `reconstruction`, which are the same where there is no other loss."""
        batch = self.prepare(batch)
        loss = self.reconstruction(batch, self(batch, training=training))
        return {"total": loss, "reconstruction": loss}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments: networks serialised by Keras, settings as nested dicts."""
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        serialised = {name: keras.saving.serialize_keras_object(part) for name, part in networks.items()}
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"name": self.name, "dtype": policy, **serialised, "settings": asdict(self.settings)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Make the model that `get_config` described, or an earlier version's, which had the settings one by one."""
        settings = build_group(MethodConfig, config.get("settings", {}))
        parts = {
            name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
            for name, value in config.items()
            if name != "settings"
        }
        return cls(**parts, settings=settings)

    def reconstruct(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what a picture of a reconstruction needs.

        Returns:
            `view1`: (B, H, W, 3) normalised input; `reconstruction`: the same shape, visible patches pasted with the
            predicted ones (brought back to the target patch's mean and deviation where the loss is normalised);
            there also `unaided`: with the mean over the visible patches of theirs, for no one knows the target's;
            `mask`: (B, L) float32, 1 where masked, -1 where thrown (there the reconstruction is the input); `view2`,
            and `mask2` if the student sees it, likewise; `weights` (B, L) where they decide what is masked.
        """
        batch = self.prepare(batch)
        outputs = self(batch, training=False)
        patch_size, plan = self.encoder.patch_size, outputs["plan1"]
        patches = patchify(batch["view1"], patch_size)
        predicted = ops.cast(outputs["prediction"], "float32")
        if plan.thrown is not None:  # nothing is predicted there
            predicted = ops.pad(predicted, [[0, 0], [0, plan.thrown.shape[1]], [0, 0]])
        predicted = gather_tokens(predicted, ops.argsort(plan.ids, axis=1))
        mask = ops.cast(plan_flags(plan), "float32")

        def pasted(predicted: Any) -> Any:
            chosen = ops.where(mask[..., None] > 0, predicted, patches)
            return unpatchify(chosen, self.encoder.grid, patch_size)

        pictures = {"view1": batch["view1"], "mask": mask}
        if self.norm_pix_loss:
            mean, deviation = patch_statistics(patches)
            pictures["reconstruction"] = pasted(predicted * deviation + mean)
            seen = patch_statistics(gather_tokens(patches, plan.visible))
            mean, deviation = (ops.mean(statistic, axis=1, keepdims=True) for statistic in seen)
            pictures["unaided"] = pasted(predicted * deviation + mean)
        else:
            pictures["reconstruction"] = pasted(predicted)
        if self.view_count == 2:
            pictures["view2"] = batch["view2"]
        if any(name.startswith("student2") for name in outputs):
            pictures["mask2"] = ops.cast(plan_flags(outputs["plan2"]), "float32")
        if "weights" in outputs:
            pictures["weights"] = outputs["weights"]
        return pictures


def present(**outputs: Any) -> dict[str, Any]:
    """Return those outputs that there are."""
    return {name: value for name, value in outputs.items() if value is not None}
