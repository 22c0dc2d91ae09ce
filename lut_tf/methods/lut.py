"""LUT: Learning with Unmasked Tokens (arXiv 2310.13593, ECCV 2024)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lut_tf.config import Places
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.context import ContextLoss
from lut_tf.methods.masking import MaskPlan, disjoint_plans
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead
from lut_tf.step import Gather


@keras.saving.register_keras_serializable(package="lut_tf")
class LUT(MaskedImageModel):
    """Masked autoencoder whose visible tokens also learn from the whole image, through a momentum teacher.

    L = reconstruction_weight · L_MIM + context_weight · L_BC. View 1 is reconstructed; the pooled visible tokens of
    each view predict the teacher's pooled tokens of the *other*, whole view: L_BC = ½[d(q1, k2) + d(q2, k1)].

    Args:
        encoder: see `MaskedImageModel`.
        decoder: see `MaskedImageModel`.
        mask_ratio: the setting of this name; at least 0.5, for the two views see disjoint patches.
        norm_pix_loss: the setting of this name.
        momentum: of the teacher: a number, or a schedule of the optimizer step such as `CosineMomentum(0.996, steps)`;
            None: the setting of this name, at every step. A schedule counts for more than the setting.
        projector: maps pooled tokens (B, D) to (B, D), whatever `head` says; None makes what `head` says. The teacher
            has a copy.
        predictor: student only, maps the projector's output on, likewise.
        teacher_dtype: Keras dtype policy that the teacher computes in, for instance `mixed_bfloat16`; its weights, and
            their average, stay float32. None: the student's.
        **settings: see `MaskedImageModel`: `settings`, `name`, `dtype`, and settings by their names.

    Raises:
        ValueError: as `MaskedImageModel`; or a head of another width than the encoder's.
    """

    method = "lut"
    view_count = 2
    has_teacher = True
    loss_parts = ("reconstruction", "context")

    def __init__(
        self,
        encoder: ViTEncoder,
        decoder: PixelDecoder | None = None,
        mask_ratio: float | None = None,
        norm_pix_loss: bool | None = None,
        *,
        momentum: float | CosineMomentum | None = None,
        projector: MLPHead | None = None,
        predictor: MLPHead | None = None,
        teacher_dtype: str | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(momentum, float | int):
            settings["momentum"] = momentum
        super().__init__(encoder, decoder, mask_ratio, norm_pix_loss, **settings)
        self.momentum = momentum if callable(momentum) else self.settings.momentum
        self.context = ContextLoss(self.settings)
        self.projector = projector or self._head("projector", self.settings.head.projector_depth)
        self.predictor = predictor or self._head("predictor", self.settings.head.predictor_depth)
        for head in (self.projector, self.predictor):
            self._check_policy(head)
            if head.width != encoder.width:
                raise ValueError(
                    f"{head.name} of width {head.width}, but the encoder has {encoder.width}: make them equal"
                )
            if not head.built:  # it is where a saved model is loaded
                head.build((None, encoder.width))
        self.teacher_dtype = teacher_dtype
        other = {"dtype": teacher_dtype} if teacher_dtype else {}
        self.teacher_encoder = ViTEncoder.from_config({**encoder.get_config(), **other, "name": "teacher_encoder"})
        self.teacher_projector = MLPHead.from_config(
            {**self.projector.get_config(), **other, "name": "teacher_projector"}
        )
        self.teacher_projector.build((None, encoder.width))
        for part in (self.teacher_encoder, self.teacher_projector):
            part.trainable = False
        self.reset_teacher()

    def _head(self, name: str, depth: int) -> MLPHead:
        head, width = self.settings.head, self.encoder.width
        return MLPHead(width, head.hidden, depth, head.norm, head.activation, name=name, dtype=self.dtype_policy)

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

    def momentum_at(self, step: Any) -> Any:
        """Return the teacher's momentum at optimizer step `step`, float32."""
        return ops.cast(self.momentum(step) if callable(self.momentum) else self.momentum, "float32")

    @staticmethod
    def plans(noise: Any, places: Places) -> tuple[MaskPlan, ...]:
        """Return two plans whose visible patches are disjoint (LUT §3)."""
        return disjoint_plans(noise, places.visible)

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Run student and teacher on a batch.

        Returns:
            `prediction`: (B, L, p·p·3), view 1's visible patches, then its masked ones; `plan1`, `plan2`: the mask
            plans; `student1` (and `student2` if symmetric): the predictor's outputs (B, D); `teacher2` (and
            `teacher1`): the teacher's targets (B, D), without gradient.
        """
        batch = self.prepare(batch)
        plans = dict(enumerate(self.plans(batch["noise"], self.places), start=1))
        tokens = self._student_tokens(batch, plans)
        seen = self.decoder_input(tokens[1])
        outputs = {
            "prediction": self.network(self.decoder, seen, plans[1].visible, plans[1].masked),
            **{f"plan{view}": plan for view, plan in plans.items()},
        }
        for view in self.context.student_views:  # one after the other: BatchNorm's statistics move twice
            query = self.context.query(tokens[view], self.encoder.prefix_tokens)
            for head in (self.projector, self.predictor):
                query = head(query, training=training, replicas=self.replicas)
            outputs[f"student{view}"] = query
        return {**outputs, **{f"teacher{view}": key for view, key in self._targets(batch).items()}}

    def _student_tokens(self, batch: dict[str, Any], plans: dict[int, MaskPlan]) -> dict[int, Any]:
        """Encode the visible patches of the views that the losses ask for, in one pass over all."""
        views = self.context.student_views
        images = _joined([batch[f"view{view}"] for view in views])
        ids = _joined([plans[view].visible for view in views])
        return dict(zip(views, _split(self.network(self.encoder.encode, images, ids), len(views)), strict=True))

    def _targets(self, batch: dict[str, Any]) -> dict[int, Any]:
        """Return the teacher's view of whole images: pooled, projected, in inference mode, without gradient."""
        views = self.context.teacher_views
        images = _joined([batch[f"view{view}"] for view in views])
        pooled = self.network(self._teacher_key, images)
        targets = ops.stop_gradient(self.teacher_projector(pooled, training=False))
        return dict(zip(views, _split(targets, len(views)), strict=True))

    def _teacher_key(self, images: Any) -> Any:
        return self.context.key(self.teacher_encoder, images)

    def compute_losses(
        self, batch: dict[str, Any], training: bool = True, gather: Gather = lambda x: x
    ) -> dict[str, Any]:
        """Return `total`, `reconstruction` (L_MIM) and `context` (L_BC), the parts unweighted."""
        batch = self.prepare(batch)
        outputs = self(batch, training=training)
        reconstruction = self.reconstruction(batch, outputs)
        queries = {view: outputs[f"student{view}"] for view in self.context.student_views}
        keys = {view: outputs[f"teacher{view}"] for view in self.context.teacher_views}
        context = self.context(queries, keys, gather)
        total = self.settings.reconstruction_weight * reconstruction + self.settings.context_weight * context
        return {"total": total, "reconstruction": reconstruction, "context": context}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments: networks and momentum serialised by Keras, settings as nested dicts."""
        parts = {name: getattr(self, name) for name in ("projector", "predictor", "momentum")}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "teacher_dtype": self.teacher_dtype,
        }


def _joined(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=0)


def _split(tensor: Any, count: int) -> list[Any]:
    return [tensor] if count == 1 else ops.split(tensor, count, axis=0)
