"""What the student's tokens are compared with: LUT's context loss L_BC, apart from masking and reconstruction."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from lut_tf.config import MethodConfig
from lut_tf.models.layers import mean_tokens
from lut_tf.step import Gather


def unit(x: Any) -> Any:
    """Scale the vectors (B, D) to length 1, in float32 (lengths below 1e-12 count as 1e-12)."""
    x = ops.cast(x, "float32")
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-12)


def l2_terms(query: Any, key: Any) -> Any:
    """Return 2 − 2·cos(query, key), the squared distance of unit vectors, of each pair in (N, D), as (N,) float32."""
    return 2.0 - 2.0 * ops.sum(unit(query) * unit(key), axis=-1)


def smooth_l1_terms(query: Any, key: Any) -> Any:
    """Return the smooth-L1 distance (beta 1) of the unit vectors (N, D) in each channel, as (N, D) float32."""
    difference = ops.abs(unit(query) - unit(key))
    return ops.where(difference < 1.0, 0.5 * ops.square(difference), difference - 0.5)


TERMS = {"l2": l2_terms, "smooth_l1": smooth_l1_terms}
"""What a distance is the mean of, by the setting `context_distance`; InfoNCE needs the other images too."""


def l2_distance(query: Any, key: Any) -> Any:
    """Return the mean of 2 − 2·cos(query, key): the squared distance of unit vectors (LUT eq. for L_BC).

    Args:
        query: (B, D) of the student.
        key: (B, D) of the teacher.
    """
    return ops.mean(l2_terms(query, key))


def smooth_l1_distance(query: Any, key: Any) -> Any:
    """Return the smooth-L1 distance (beta 1) of the unit vectors, mean over images and channels (LUT's ablation)."""
    return ops.mean(smooth_l1_terms(query, key))


def infonce_distance(query: Any, key: Any, all_keys: Any, temperature: float) -> Any:
    """Return InfoNCE: −log softmax of the own image's key among all keys, mean over images (LUT's ablation).

    Args:
        query: (B, D) of the student.
        key: (B, D) of the teacher, for the same images.
        all_keys: (N, D) of the teacher, for all images of the global micro-batch, those of `key` among them.
        temperature: similarity scale, above 0.
    """
    query = unit(query) / temperature
    similarity = ops.matmul(query, ops.transpose(unit(all_keys)))
    positive = ops.sum(query * unit(key), axis=-1)
    return ops.mean(ops.logsumexp(similarity, axis=-1) - positive)


def distance_of_places(query: Any, key: Any, inside: Any, distance: str) -> Any:
    """Return the mean distance of an image's tokens from what is at their places, mean over images (LUT's ablation).

    Each image counts alike, so that the mean over replicas is that of the whole batch; an image none of whose places
    lies inside counts 0.

    Args:
        query: (B, T, D) of the student.
        key: (B, T, D) of the teacher at the same places.
        inside: (B, T) float32, 1 where the teacher's view shows the place, else 0.
        distance: `l2` or `smooth_l1`.
    """
    width, tokens = query.shape[-1], query.shape[1]
    terms = TERMS[distance](ops.reshape(query, (-1, width)), ops.reshape(key, (-1, width)))
    each = ops.mean(ops.reshape(terms, (-1, tokens, terms.shape[-1] if len(terms.shape) == 2 else 1)), axis=-1)
    return ops.mean(ops.sum(each * inside, axis=1) / ops.maximum(ops.sum(inside, axis=1), 1.0))


class Form(NamedTuple):
    """One way to compare student and teacher; `ContextLoss` is the mean of one to four.

    Attributes:
        masked: the student's tokens are the decoder's at the masked patches, not the encoder's of the visible ones.
        by_place: each token is compared with the teacher's at its place in the image, not their mean with the mean.
    """

    masked: bool
    by_place: bool

    @property
    def suffix(self) -> str:
        """What the names of `LUT.call`'s outputs end in: nothing for the paper's form."""
        return "_masked" * self.masked + "_tokens" * self.by_place


class ContextLoss:
    """L_BC (LUT §3): a view's pooled visible patch tokens against the teacher's pooled tokens of the other, whole view.

    The settings `context_source`, `context_steers` and `context_supervision` are the paper's ablations of this.

    Args:
        settings: those of the context loss are read.

    Attributes:
        pairs: (student's view, teacher's view) of each term: ½[d(q1, k2) + d(q2, k1)], or d(q1, k2) alone.
        forms: what is compared in each pair; the loss is their mean.
    """

    def __init__(self, settings: MethodConfig) -> None:
        self._settings = settings
        self.pairs = ((1, 2), (2, 1)) if settings.symmetric else ((1, 2),)
        steered = {"visible": [False], "masked": [True], "both": [False, True]}[settings.context_steers]
        by_place = {"pooled": [False], "tokens": [True], "both": [False, True]}[settings.context_supervision]
        self.forms = [Form(masked, placed) for masked in steered for placed in by_place]

    @property
    def student_views(self) -> list[int]:
        """The views that the student must encode for it, in order."""
        return sorted(student for student, _ in self.pairs)

    @property
    def teacher_views(self) -> list[int]:
        """The views that the teacher must encode for it, in order."""
        return sorted(teacher for _, teacher in self.pairs)

    @property
    def steers_masked(self) -> bool:
        """Whether it asks for the decoder's tokens of every view of the student's."""
        return any(form.masked for form in self.forms)

    @property
    def by_place(self) -> bool:
        """Whether it asks where in the image the views lie."""
        return any(form.by_place for form in self.forms)

    def query(self, form: Form, tokens: Any, prefix_tokens: int) -> Any:
        """Return what goes through the student's heads: (B, D) float32, or each token, (B, T, D).

        Args:
            form: what is compared.
            tokens: (B, prefix_tokens + T, D) of the encoder; or (B, T, D) of the decoder at the masked patches.
            prefix_tokens: tokens in front of the encoder's patches.
        """
        patches = tokens if form.masked else tokens[:, prefix_tokens:]
        if form.by_place:
            return patches
        return mean_tokens(patches) if form.masked else self._pooled(tokens, prefix_tokens)

    def key(self, tokens: Any, prefix_tokens: int) -> dict[str, Any]:
        """Return what is kept of the teacher's tokens (B, prefix_tokens + L, D).

        Returns:
            `pooled` (B, D) float32, if a form asks for it; `tokens` (B, L, D) of the patches, likewise.
        """
        kept = {}
        if not all(form.by_place for form in self.forms):
            kept["pooled"] = self._pooled(tokens, prefix_tokens)
        if self.by_place:
            kept["tokens"] = tokens[:, prefix_tokens:]
        return kept

    def _pooled(self, tokens: Any, prefix_tokens: int) -> Any:
        if self._settings.context_source == "class_token":
            return ops.cast(tokens[:, 0], "float32")
        return mean_tokens(tokens[:, prefix_tokens:])

    def __call__(self, outputs: dict[str, Any], gather: Gather) -> Any:
        """Return the mean of the terms, a float32 scalar.

        Args:
            outputs: of `LUT.call`.
            gather: see `compute_losses`.
        """
        return _mean([_mean([self._term(form, *pair, outputs, gather) for pair in self.pairs]) for form in self.forms])

    def _term(self, form: Form, student: int, teacher: int, outputs: dict[str, Any], gather: Gather) -> Any:
        query, key = outputs[f"student{student}{form.suffix}"], outputs[f"teacher{teacher}{form.suffix}"]
        if form.by_place:
            inside = outputs[f"inside{student}{form.suffix}"]
            return distance_of_places(query, key, inside, self._settings.context_distance)
        if self._settings.context_distance == "infonce":
            return infonce_distance(query, key, gather(ops.cast(key, "float32")), self._settings.temperature)
        return {"l2": l2_distance, "smooth_l1": smooth_l1_distance}[self._settings.context_distance](query, key)


def _mean(terms: list[Any]) -> Any:
    return terms[0] if len(terms) == 1 else sum(terms[1:], terms[0]) / len(terms)
