"""What the student's tokens are compared with: LUT's context loss L_BC, apart from masking and reconstruction."""

from __future__ import annotations

from typing import Any

from keras import ops

from lut_tf.config import MethodConfig
from lut_tf.models.layers import mean_tokens
from lut_tf.step import Gather


def unit(x: Any) -> Any:
    """Scale the vectors (B, D) to length 1, in float32 (lengths below 1e-12 count as 1e-12)."""
    x = ops.cast(x, "float32")
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-12)


def l2_distance(query: Any, key: Any) -> Any:
    """Return the mean of 2 − 2·cos(query, key): the squared distance of unit vectors (LUT eq. for L_BC).

    Args:
        query: (B, D) of the student.
        key: (B, D) of the teacher.
    """
    return ops.mean(2.0 - 2.0 * ops.sum(unit(query) * unit(key), axis=-1))


def smooth_l1_distance(query: Any, key: Any) -> Any:
    """Return the smooth-L1 distance (beta 1) of the unit vectors, mean over images and channels (LUT's ablation)."""
    difference = ops.abs(unit(query) - unit(key))
    return ops.mean(ops.where(difference < 1.0, 0.5 * ops.square(difference), difference - 0.5))


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


class ContextLoss:
    """L_BC (LUT §3): a view's pooled visible patch tokens against the teacher's pooled tokens of the other, whole view.

    Args:
        settings: its `symmetric`, `context_distance` and `temperature` are read.

    Attributes:
        pairs: (student's view, teacher's view) of each term: ½[d(q1, k2) + d(q2, k1)], or d(q1, k2) alone.
    """

    def __init__(self, settings: MethodConfig) -> None:
        self._settings = settings
        self.pairs = ((1, 2), (2, 1)) if settings.symmetric else ((1, 2),)

    @property
    def student_views(self) -> list[int]:
        """The views that the student must encode for it, in order."""
        return sorted(student for student, _ in self.pairs)

    @property
    def teacher_views(self) -> list[int]:
        """The views that the teacher must encode for it, in order."""
        return sorted(teacher for _, teacher in self.pairs)

    def query(self, tokens: Any, prefix_tokens: int) -> Any:
        """Return what the projector is given of the student's tokens (B, T, D): the mean of the patches', (B, D)."""
        return mean_tokens(tokens[:, prefix_tokens:])

    def key(self, teacher_encoder: Any, images: Any) -> Any:
        """Return what the teacher's projector is given of whole images (B, H, W, 3): the patches' mean, (B, D)."""
        return teacher_encoder.features(images)

    def __call__(self, queries: dict[int, Any], keys: dict[int, Any], gather: Gather) -> Any:
        """Return the mean of the terms, a float32 scalar.

        Args:
            queries: by view, (B, D) of the student.
            keys: by view, (B, D) of the teacher, without gradient.
            gather: see `compute_losses`.
        """
        terms = [self._distance(queries[student], keys[teacher], gather) for student, teacher in self.pairs]
        return terms[0] if len(terms) == 1 else 0.5 * (terms[0] + terms[1])

    def _distance(self, query: Any, key: Any, gather: Gather) -> Any:
        if self._settings.context_distance == "infonce":
            return infonce_distance(query, key, gather(ops.cast(key, "float32")), self._settings.temperature)
        return {"l2": l2_distance, "smooth_l1": smooth_l1_distance}[self._settings.context_distance](query, key)
