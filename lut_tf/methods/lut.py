"""LUT: Learning with Unmasked Tokens (arXiv 2310.13593, ECCV 2024)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lut_tf.methods.base import Gather, MaskedImageModel
from lut_tf.methods.losses import infonce_distance, l2_distance, smooth_l1_distance
from lut_tf.methods.masking import disjoint_plans
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead
from lut_tf.models.layers import mean_tokens

DISTANCES = ("l2", "infonce", "smooth_l1")


@keras.saving.register_keras_serializable(package="lut_tf")
class LUT(MaskedImageModel):
    """Masked autoencoder whose visible tokens also learn from the whole image, through a momentum teacher.

    L = reconstruction_weight · L_MIM + context_weight · L_BC. View 1 is reconstructed; the pooled visible tokens of
    each view predict the teacher's pooled tokens of the *other*, whole view: L_BC = ½[d(q1, k2) + d(q2, k1)].

    Args:
        encoder: see `MaskedImageModel`.
        decoder: see `MaskedImageModel`.
        mask_ratio: see `MaskedImageModel`; at least 0.5, for the two views see disjoint patches.
        norm_pix_loss: see `MaskedImageModel`.
        reconstruction_weight: weight of L_MIM.
        context_weight: weight of L_BC.
        context_distance: `l2` (squared, on unit vectors), `infonce` or `smooth_l1`.
        temperature: of `infonce`.
        symmetric: both directions; False keeps d(q1, k2) only, as the paper's figure draws (about 40 % cheaper).
        momentum: of the teacher: a number, or a schedule of the optimizer step such as `CosineMomentum(0.996, steps)`.
        projector: maps pooled tokens (B, D) to (B, D); None makes the paper's `MLPHead`. The teacher has a copy.
        predictor: student only, maps the projector's output on; None makes the paper's `MLPHead`.
        teacher_dtype: Keras dtype policy that the teacher computes in, for instance `mixed_bfloat16`; its weights, and
            their average, stay float32. None: the student's.

    Raises:
        ValueError: a mask ratio that leaves no visible patch or too few for two disjoint views, an unknown distance, a
            head of another width than the encoder's, or a number outside its range.
    """

    views = 2
    metric_names = ("loss", "reconstruction", "context")

    def __init__(
        self,
        encoder: ViTEncoder,
        decoder: PixelDecoder | None = None,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = True,
        reconstruction_weight: float = 1.0,
        context_weight: float = 0.25,
        context_distance: str = "l2",
        temperature: float = 0.2,
        symmetric: bool = True,
        momentum: float | CosineMomentum = 0.996,
        projector: MLPHead | None = None,
        predictor: MLPHead | None = None,
        teacher_dtype: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, mask_ratio, norm_pix_loss, **kwargs)
        if 2 * self.visible > encoder.patches:
            raise ValueError(
                f"mask_ratio={mask_ratio} leaves {self.visible} of {encoder.patches} patches visible, and LUT's two "
                f"views must not share any: choose at least 0.5"
            )
        if context_distance not in DISTANCES:
            raise ValueError(
                f"context_distance={context_distance!r} is not known: choose one of {', '.join(DISTANCES)}"
            )
        for name, weight in (("reconstruction", reconstruction_weight), ("context", context_weight)):
            if weight < 0:
                raise ValueError(f"{name}_weight={weight} must be 0 or more")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        if isinstance(momentum, float | int) and not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum} must lie between 0 and 1")
        self.reconstruction_weight, self.context_weight = reconstruction_weight, context_weight
        self.context_distance, self.temperature, self.symmetric = context_distance, temperature, symmetric
        self.momentum = momentum
        self.projector = projector or MLPHead(encoder.width, name="projector")
        self.predictor = predictor or MLPHead(encoder.width, name="predictor")
        for head in (self.projector, self.predictor):
            if head.width != encoder.width:
                raise ValueError(
                    f"{head.name} of width {head.width}, but the encoder has {encoder.width}: make them equal"
                )
            if not head.built:  # it is where a saved model is loaded
                head.build((None, encoder.width))
        self.teacher_dtype = teacher_dtype
        policy = {"dtype": teacher_dtype} if teacher_dtype else {}
        self.teacher_encoder = ViTEncoder.from_config({**encoder.get_config(), **policy, "name": "teacher_encoder"})
        self.teacher_projector = MLPHead.from_config(
            {**self.projector.get_config(), **policy, "name": "teacher_projector"}
        )
        self.teacher_projector.build((None, encoder.width))
        for part in (self.teacher_encoder, self.teacher_projector):
            part.trainable = False
        self.reset_teacher()

    @property
    def teacher_pairs(self) -> list[tuple[Any, Any]]:
        """(teacher variable, student variable) of encoder and projector, BatchNorm's running statistics included."""
        students = self.encoder.variables + self.projector.variables
        teachers = self.teacher_encoder.variables + self.teacher_projector.variables
        return list(zip(teachers, students, strict=True))

    def reset_teacher(self) -> None:
        """Make the teacher equal to the student, as at the start of training."""
        for teacher, student in self.teacher_pairs:
            teacher.assign(student)

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Run student and teacher on a prepared batch.

        Returns:
            `prediction`: (B, L, p·p·3), view 1's visible patches, then its masked ones; `plan1`, `plan2`: the mask
            plans; `student1` (and `student2` if symmetric): the predictor's outputs (B, D); `teacher2` (and
            `teacher1`): the teacher's targets (B, D), without gradient.
        """
        plan1, plan2 = disjoint_plans(batch["noise"], self.visible)
        tokens = self._student_tokens(batch, plan1, plan2)
        outputs = {
            "prediction": self.network(self.decoder, tokens[0], plan1.visible, plan1.masked),
            "plan1": plan1,
            "plan2": plan2,
        }
        for i, view_tokens in enumerate(tokens, start=1):  # one after the other: BatchNorm's statistics move twice
            pooled = mean_tokens(view_tokens[:, 1:])
            outputs[f"student{i}"] = self.predictor(self.projector(pooled, training=training), training=training)
        return {**outputs, **self._targets(batch)}

    def _student_tokens(self, batch: dict[str, Any], plan1: Any, plan2: Any) -> list[Any]:
        """Encode the visible patches of view 1 (and 2), in one pass over both."""
        if not self.symmetric:
            return [self.network(self.encoder.encode, batch["view1"], plan1.visible)]
        images = ops.concatenate([batch["view1"], batch["view2"]], axis=0)
        ids = ops.concatenate([plan1.visible, plan2.visible], axis=0)
        return ops.split(self.network(self.encoder.encode, images, ids), 2, axis=0)

    def _targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the teacher's view of whole images: pooled, projected, in inference mode, without gradient."""
        names = ("view1", "view2") if self.symmetric else ("view2",)
        images = ops.concatenate([batch[name] for name in names], axis=0)
        pooled = self.network(self.teacher_encoder.features, images)
        targets = ops.stop_gradient(self.teacher_projector(pooled, training=False))
        return {f"teacher{name[-1]}": x for name, x in zip(names, ops.split(targets, len(names), axis=0), strict=True)}

    def compute_losses(
        self, batch: dict[str, Any], training: bool = True, gather: Gather = lambda x: x
    ) -> dict[str, Any]:
        """Return `total`, `reconstruction` (L_MIM) and `context` (L_BC), the parts unweighted."""
        batch = self.prepare(batch)
        outputs = self(batch, training=training)
        reconstruction = self.reconstruction(batch, outputs)
        context = self._distance(outputs["student1"], outputs["teacher2"], gather)
        if self.symmetric:
            context = 0.5 * (context + self._distance(outputs["student2"], outputs["teacher1"], gather))
        total = self.reconstruction_weight * reconstruction + self.context_weight * context
        return {"total": total, "reconstruction": reconstruction, "context": context}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, networks and momentum schedule serialised."""
        parts = {name: getattr(self, name) for name in ("projector", "predictor", "momentum")}
        plain = (
            "reconstruction_weight",
            "context_weight",
            "context_distance",
            "temperature",
            "symmetric",
            "teacher_dtype",
        )
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            **{name: getattr(self, name) for name in plain},
        }

    def _distance(self, query: Any, key: Any, gather: Gather) -> Any:
        if self.context_distance == "infonce":
            return infonce_distance(query, key, gather(ops.cast(key, "float32")), self.temperature)
        return {"l2": l2_distance, "smooth_l1": smooth_l1_distance}[self.context_distance](query, key)
