"""What every masked-image method shares: batches in, losses by name out, `fit` around it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from lut_tf.methods.losses import patch_statistics, reconstruction_loss
from lut_tf.methods.masking import visible_patches
from lut_tf.methods.means import StepMean
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.layers import gather_tokens, patchify, unpatchify
from lut_tf.models.preprocess import apply_colour, normalise

if keras.backend.backend() == "tensorflow":
    from lut_tf.methods.train_step import TensorFlowStep as _Step
else:  # networks and losses run under Keras' other backends; training does not

    class _Step(keras.Model):  # type: ignore[no-redef]
        def network(self, function: Callable[..., Any], *arguments: Any) -> Any:
            return function(*arguments)

        def compile(self, *arguments: Any, **kwargs: Any) -> None:
            raise ValueError(f"KERAS_BACKEND={keras.backend.backend()} does not train: set KERAS_BACKEND=tensorflow")


Gather = Callable[[Any], Any]


class MaskedImageModel(_Step):
    """Base of `LUT` and `MAE`: an encoder that learns by reconstructing what it was not shown.

    A batch is a dict as `lut_tf.data` yields it: `view1` (B, H, W, 3) and, for two-view methods, `view2`, both uint8,
    or float32 and already normalised; `colour` (B, K) float32, the colour decisions of a uint8 `view2`; `noise` (B, L)
    float32 in [0, 1), whose order decides the masks.

    Args:
        encoder: the network that is kept.
        decoder: the network that reconstructs; None makes the paper's (512 wide, 8 blocks, 16 heads).
        mask_ratio: share of the patches that the student does not see, in (0, 1).
        norm_pix_loss: normalise each target patch by its own mean and variance.

    Raises:
        ValueError: the mask ratio leaves no visible or no masked patch, the encoder has no class token, or the decoder
            was made for another encoder.
    """

    views = 1
    metric_names: tuple[str, ...] = ("loss", "reconstruction")

    def __init__(
        self,
        encoder: ViTEncoder,
        decoder: PixelDecoder | None = None,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # a batch keeps its precision: noise in bfloat16 would tie
        if not encoder.prefix_tokens:
            raise ValueError("class_token=False of the encoder: pre-training here needs one, give class_token=True")
        self.encoder = encoder
        self.decoder = decoder or PixelDecoder(encoder.grid, encoder.patch_size, encoder.width)
        wanted = (encoder.grid, encoder.patch_size, encoder.width)
        found = (self.decoder.grid, self.decoder.patch_size, self.decoder.encoder_width)
        if found != wanted:
            raise ValueError(
                f"decoder made for (grid, patch size, encoder width) {found}, but the encoder has {wanted}"
            )
        self.mask_ratio, self.norm_pix_loss = mask_ratio, norm_pix_loss
        self.visible = visible_or_refuse(encoder.patches, mask_ratio)
        self.momentum: Any = None
        self.accumulate, self.clip_norm, self.max_bad_steps, self.xla = 1, 0.0, 0, False
        self.built = True  # every part builds itself; Keras would wait for a first call
        self.trackers = {name: StepMean(name) for name in self.metric_names}

    @classmethod
    def from_preset(cls, name: str, image_size: int | tuple[int, int] = 224, **settings: Any) -> Any:
        """Make an untrained model around `ViTEncoder.from_preset(name, image_size)`; `settings` go to the model."""
        return cls(ViTEncoder.from_preset(name, image_size=image_size), **settings)

    @property
    def teacher_pairs(self) -> list[tuple[Any, Any]]:
        """(teacher variable, student variable) for everything the teacher holds; empty where there is none."""
        return []

    @property
    def noise_length(self) -> int:
        """Number of uniform numbers an image needs for its mask."""
        return self.encoder.patches

    def compile(
        self,
        optimizer: Any,
        accumulate: int = 1,
        clip_norm: float = 0.0,
        jit_compile: bool = False,
        max_bad_steps: int = 0,
        **kwargs: Any,
    ) -> None:
        """Make the model ready for `fit`.

        Args:
            optimizer: a Keras optimizer; `lut_tf.training.optimizer.adamw` builds the paper's.
            accumulate: parts a batch is computed in, one after the other, before its single update.
            clip_norm: largest global norm of the gradient, after its reduction over parts and replicas; 0: no limit.
            jit_compile: let XLA compile encoder, decoder and teacher. The rest of the step holds the collectives of
                several replicas, which XLA cannot compile.
            max_bad_steps: above 0, a step whose loss or gradient is not finite leaves weights, optimizer, teacher,
                statistics and metrics as they were (`agreed` counts them). Whoever calls `fit` decides when it is
                enough, as `lut_tf.training.callbacks.StopOnNonFinite` does.
            **kwargs: passed to `keras.Model.compile`.

        Raises:
            ValueError: the optimizer accumulates or clips gradients itself, which Keras cannot do under a strategy.
        """
        for name, instead in (
            ("gradient_accumulation_steps", "accumulate"),
            ("global_clipnorm", "clip_norm"),
            ("clipnorm", "clip_norm"),
            ("clipvalue", "clip_norm"),
        ):
            if getattr(optimizer, name, None):
                raise ValueError(
                    f"{name}={getattr(optimizer, name)} of the optimizer does not work under a strategy: "
                    f"use model.compile(optimizer, {instead}=…) instead"
                )
        self.accumulate, self.clip_norm, self.xla = accumulate, clip_norm, jit_compile
        self.max_bad_steps = max_bad_steps
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that Keras resets each epoch."""
        return list(self.trackers.values())

    def report(self, losses: dict[str, Any], counts: Any = True, **values: Any) -> dict[str, Any]:
        """Add a batch's losses to the running means, if they count; return these, and the given values as they are."""
        self.trackers["loss"].update_state(losses["total"], counts)
        for name in self.metric_names[1:]:
            self.trackers[name].update_state(losses[name], counts)
        means = {name: tracker.result() for name, tracker in self.trackers.items()}
        return {**means, **{name: value for name, value in values.items() if value is not None}}

    def momentum_at(self, step: Any) -> Any:
        """Return the teacher's momentum at optimizer step `step`; None where there is no teacher."""
        if self.momentum is None:
            return None
        return ops.cast(self.momentum(step) if callable(self.momentum) else self.momentum, "float32")

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Turn uint8 views into normalised float32, view 2 coloured by the batch's decisions; float views stay.

        Raises:
            ValueError: the noise is not of this encoder's number of patches.
        """
        if batch["noise"].shape[1] != self.noise_length:
            raise ValueError(
                f"noise of {batch['noise'].shape[1]} numbers an image, but the mask needs {self.noise_length}: "
                f"give noise_length=model.noise_length"
            )
        prepared = dict(batch)
        for name in ("view1", "view2")[: self.views]:
            view = batch[name]
            if keras.backend.standardize_dtype(view.dtype) == "uint8":
                if name == "view2" and "colour" in batch:
                    view = apply_colour(view, batch["colour"])
                prepared[name] = normalise(view)
        return prepared

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
        """Return the scalars `total` and its parts, float32.

        Args:
            batch: see the class.
            training: let BatchNorm use, and move, the batch's statistics.
            gather: concatenates (B, ...) over all replicas; the identity on one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define compute_losses")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, networks serialised."""
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        serialised = {name: keras.saving.serialize_keras_object(part) for name, part in networks.items()}
        return {"name": self.name, **serialised, "mask_ratio": self.mask_ratio, "norm_pix_loss": self.norm_pix_loss}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Make the model that `get_config` described."""
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
                for name, value in config.items()
            }
        )

    def reconstruct(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what a picture of a reconstruction needs.

        Returns:
            `view1`: (B, H, W, 3) normalised input; `reconstruction`: the same shape, visible patches pasted with the
            predicted ones (brought back to the target patch's mean and deviation where the loss is normalised);
            `mask`: (B, L) float32, 1 where masked; `view2`, and `mask2` if the student sees it, likewise.
        """
        batch = self.prepare(batch)
        outputs = self(batch, training=False)
        patch_size, plan = self.encoder.patch_size, outputs["plan1"]
        patches = patchify(batch["view1"], patch_size)
        ids = ops.concatenate([plan.visible, plan.masked], axis=1)
        predicted = gather_tokens(ops.cast(outputs["prediction"], "float32"), ops.argsort(ids, axis=1))
        if self.norm_pix_loss:
            mean, deviation = patch_statistics(patches)
            predicted = predicted * deviation + mean
        mask = plan_mask(plan)
        pasted = ops.where(mask[..., None] > 0, predicted, patches)
        pictures = {
            "view1": batch["view1"],
            "reconstruction": unpatchify(pasted, self.encoder.grid, patch_size),
            "mask": mask,
        }
        if self.views == 2:
            pictures["view2"] = batch["view2"]
        if "student2" in outputs:
            pictures["mask2"] = plan_mask(outputs["plan2"])
        return pictures


def plan_mask(plan: Any) -> Any:
    """Return a plan as (B, L) float32, 1 where masked, in image order (for pictures only)."""
    flags = ops.concatenate([ops.zeros_like(plan.visible), ops.ones_like(plan.masked)], axis=1)
    order = ops.argsort(ops.concatenate([plan.visible, plan.masked], axis=1), axis=1)
    return ops.cast(ops.take_along_axis(flags, order, axis=1), "float32")


def visible_or_refuse(patches: int, mask_ratio: float) -> int:
    """Return the number of visible patches.

    Raises:
        ValueError: none would be visible, or none masked.
    """
    visible = visible_patches(patches, mask_ratio) if 0 < mask_ratio < 1 else 0
    if not 1 <= visible < patches:
        most = math.floor(100 * (1 - 1 / patches)) / 100  # rounded down, so that the remedy itself is accepted
        raise ValueError(
            f"mask_ratio={mask_ratio} of {patches} patches must leave at least one visible and one masked: "
            f"choose one above 0 and up to {most:g}"
        )
    return visible
