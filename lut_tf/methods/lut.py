"""LUT: Learning with Unmasked Tokens (arXiv 2310.13593, ECCV 2024)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lut_tf.config import MethodConfig, Places
from lut_tf.methods.base import MaskedImageModel, present
from lut_tf.methods.context import ContextLoss, Form
from lut_tf.methods.locations import locations_of, tokens_at
from lut_tf.methods.masking import MaskPlan, attention_weights, disjoint_plans, guided_plan, random_plan, second_plan
from lut_tf.methods.momentum import CosineMomentum
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead
from lut_tf.step import Gather


@keras.saving.register_keras_serializable(package="lut_tf")
class LUT(MaskedImageModel):
    """Masked autoencoder whose visible tokens also learn from the whole image, through a momentum teacher.

    L = reconstruction_weight · L_MIM + context_weight · L_BC. View 1 is reconstructed; the pooled visible tokens of
    each view predict the teacher's pooled tokens of the *other*, whole view: L_BC = ½[d(q1, k2) + d(q2, k1)]. The
    paper's ablations of this are settings: `teacher_mask_ratio`, and those of `ContextLoss`.

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
        ValueError: as `MaskedImageModel`; or a head of another width than the encoder's, or nothing for the teacher to
            see.

    Attributes:
        masked_map: where masked tokens are steered, the linear layer from the decoder's width to the encoder's; else
            there is none.
    """

    method = "lut"
    view_count = 2
    has_teacher = True
    loss_parts = ("reconstruction", "context")
    masked_map: keras.layers.Dense

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
        self.teacher_visible = self.settings.teacher_visible(encoder.patches)
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
        if self.context.steers_masked:
            self.masked_map = keras.layers.Dense(encoder.width, dtype=self.dtype_policy, name="masked_map")
            self.masked_map.build((None, self.decoder.width))

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

    @property
    def noise_length(self) -> int:
        """Number of uniform numbers an image needs: the student's L first, then L for each view that the teacher sees.

        Where the teacher sees whole views, only the student's.
        """
        whole = self.teacher_visible == self.encoder.patches
        return super().noise_length + (0 if whole else len(self.context.teacher_views) * self.encoder.patches)

    def check_batch(self, batch: Any) -> None:
        """Refuse what is no batch of this model; see `MaskedImageModel`.

        Raises:
            ValueError: also where tokens are compared by place and the batch does not say where its views lie.
        """
        super().check_batch(batch)
        missing = [name for name in ("geometry1", "geometry2") if name not in batch]
        if self.context.by_place and missing:
            raise ValueError(
                f"the batch has no {' and no '.join(missing)}, and context_supervision="
                f"{self.settings.context_supervision} asks where its views lie: give batches of "
                "lut_tf.data.batches_for(model, images, batch_size), or context_supervision pooled"
            )

    @staticmethod
    def noise_numbers(settings: MethodConfig, places: Places, depth: int) -> int:
        """Return how many uniform numbers an image needs: L, which both views share, or L each where weights decide."""
        return places.total * (2 if settings.masking.name == "attention" else 1)

    @staticmethod
    def plans(noise: Any, places: Places, weights: Any = None) -> tuple[MaskPlan, ...]:
        """Return two plans whose visible patches are disjoint (LUT §3).

        Where weights decide it is view 1 that they mask; view 2 sees others than view 1 does, at random.
        """
        if weights is None:
            return disjoint_plans(noise, places.visible)
        first = guided_plan(noise[:, : places.total], weights, places)
        return first, second_plan(noise[:, places.total : 2 * places.total], first, places)

    def call(self, batch: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Run student and teacher on a batch.

        Returns:
            `prediction`: (B, V + M, p·p·3), view 1's visible patches, then its masked ones; `plan1`, `plan2`: the mask
            plans; `weights` (B, L): those by which view 1 is masked, if any; `student1` (and `student2` if symmetric):
            the predictor's outputs (B, D); `teacher2` (and `teacher1`): the teacher's targets (B, D), without
            gradient. The forms of the context loss that are not the paper's end in `_masked`, `_tokens` or
            `_masked_tokens`: those of tokens are (B, T, D), the target being at the places of the student's tokens,
            with `inside1_tokens` and so on, (B, T) float32: 1 where the teacher's view shows the place, else 0.
        """
        batch = self.prepare(batch)
        seen = self._teacher_look(batch)
        weights = seen["weights"] if self.settings.masking.by_teacher else self.weights_of(batch)
        noise = batch["noise"][:, : super().noise_length]
        plans = dict(enumerate(self.plans(noise, self.places, weights), start=1))
        tokens = self._student_tokens(batch, plans)
        prediction, painted = self._painted(tokens, plans)
        outputs = {
            "prediction": prediction,
            **present(weights=weights),
            **{f"plan{view}": plan for view, plan in plans.items()},
        }
        for view in self.context.student_views:  # one after the other: BatchNorm's statistics move with each
            for form in self.context.forms:
                steered = painted[view] if form.masked else tokens[view]
                query = self.context.query(form, steered, self.encoder.prefix_tokens)
                outputs[f"student{view}{form.suffix}"] = self._predicted(form, query, training)
        return {**outputs, **self._targets(seen, batch, plans)}

    def _student_tokens(self, batch: dict[str, Any], plans: dict[int, MaskPlan]) -> dict[int, Any]:
        """Encode the visible patches of the views that the losses ask for, in one pass over all."""
        views = self.context.student_views
        images = _joined([batch[f"view{view}"] for view in views])
        ids = _joined([plans[view].visible for view in views])
        return dict(zip(views, _split(self.network(self.encoder.encode, images, ids), len(views)), strict=True))

    def _painted(self, tokens: dict[int, Any], plans: dict[int, MaskPlan]) -> tuple[Any, dict[int, Any]]:
        """Return view 1's prediction; and, if masked tokens are steered, the decoder's there, (B, M, width), by view.

        View 2 is decoded for them, and only for them, as view 1 is: from what the student sees of it. Its masked
        patches are all others, those that view 1 shows among them.
        """
        views = self.context.student_views if self.context.steers_masked else [1]
        seen = _joined([self.decoder_input(tokens[view]) for view in views])
        visible, masked = (_joined([getattr(plans[view], ids) for view in views]) for ids in ("visible", "masked"))
        if not self.context.steers_masked:
            return self.network(self.decoder, seen, visible, masked), {}
        decoded = _split(self.network(self.decoder.decode, seen, visible, masked), len(views))
        painted = {view: x[:, self.visible :] for view, x in zip(views, decoded, strict=True)}
        return self.network(self.decoder.pixels, decoded[0]), painted

    def _predicted(self, form: Form, query: Any, training: bool | None) -> Any:
        """Take what is steered through the student's heads."""
        if form.masked:
            query = self.masked_map(query)
        return _through((self.projector, self.predictor), query, training=training, replicas=self.replicas)

    @property
    def teacher_views(self) -> list[int]:
        """The views that the teacher sees, in order: the context loss', and view 1 if its attention masks that."""
        return sorted({*self.context.teacher_views, *[1] * self.settings.masking.by_teacher})

    def _teacher_look(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept of the teacher's tokens, view after view; and view 1's weights, if these guide."""
        images = _joined([batch[f"view{view}"] for view in self.teacher_views])
        return self.network(self._teacher_key, images, self._teacher_ids(batch["noise"]))

    def _targets(self, kept: dict[str, Any], batch: dict[str, Any], plans: dict[int, MaskPlan]) -> dict[str, Any]:
        """Return the teacher's part of `call`'s outputs: projected, in inference mode, without gradient."""
        views = self.teacher_views
        targets: dict[str, Any] = {}
        if "pooled" in kept:
            projected = ops.stop_gradient(self.teacher_projector(kept["pooled"], training=False))
            keys = dict(zip(views, _split(projected, len(views)), strict=True))
            pooled = [form for form in self.context.forms if not form.by_place]
            targets |= {f"teacher{view}{form.suffix}": key for view, key in keys.items() for form in pooled}
        if "tokens" in kept:
            tokens = dict(zip(views, _split(kept["tokens"], len(views)), strict=True))
            for form in (form for form in self.context.forms if form.by_place):
                for pair in self.context.pairs:
                    targets |= self._target_at_places(form, pair, tokens, batch, plans)
        return targets

    def _teacher_ids(self, noise: Any) -> Any:
        """Return the patches that the teacher sees of its views, which lie one after the other; None: all of them."""
        patches, start = self.encoder.patches, super().noise_length
        if self.teacher_visible == patches:
            return None
        starts = [start + i * patches for i in range(len(self.context.teacher_views))]
        return _joined([random_plan(noise[:, i : i + patches], self.teacher_visible).visible for i in starts])

    def _teacher_key(self, images: Any, ids: Any) -> dict[str, Any]:
        if not self.settings.masking.by_teacher:
            return self.context.key(self.teacher_encoder.encode(images, ids), self.encoder.prefix_tokens)
        tokens, looked = self.teacher_encoder.encode_and_look(images)
        first = _split(attention_weights(looked), len(self.teacher_views))[0]
        return {**self.context.key(tokens, self.encoder.prefix_tokens), "weights": ops.stop_gradient(first)}

    def _target_at_places(
        self,
        form: Form,
        pair: tuple[int, int],
        tokens: dict[int, Any],
        batch: dict[str, Any],
        plans: dict[int, MaskPlan],
    ) -> dict[str, Any]:
        """Return the teacher's tokens of one view at the places of the student's in the other, and which lie inside."""
        student, teacher = pair
        ids = plans[student].masked if form.masked else plans[student].visible
        locations = locations_of(ids, batch[f"geometry{student}"], batch[f"geometry{teacher}"], self.encoder.grid)
        found = tokens_at(tokens[teacher], locations, self.encoder.grid)
        key = ops.stop_gradient(_through((self.teacher_projector,), found, training=False))
        inside = ops.cast(locations.inside, "float32")
        return {f"teacher{teacher}{form.suffix}": key, f"inside{student}{form.suffix}": inside}

    def compute_losses(
        self, batch: dict[str, Any], training: bool = True, gather: Gather = lambda x: x
    ) -> dict[str, Any]:
        """Return `total`, `reconstruction` (L_MIM) and `context` (L_BC), the parts unweighted."""
        batch = self.prepare(batch)
        outputs = self(batch, training=training)
        reconstruction = self.reconstruction(batch, outputs)
        context = self.context(outputs, gather)
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


def _through(heads: tuple[MLPHead, ...], x: Any, **how: Any) -> Any:
    """Take each vector of (..., D) through heads, one after the other; they take (N, D)."""
    rows = ops.reshape(x, (-1, x.shape[-1])) if len(x.shape) > 2 else x
    for head in heads:
        rows = head(rows, **how)
    return ops.reshape(rows, (-1, *x.shape[1:])) if len(x.shape) > 2 else rows


def _joined(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=0)


def _split(tensor: Any, count: int) -> list[Any]:
    return [tensor] if count == 1 else ops.split(tensor, count, axis=0)
