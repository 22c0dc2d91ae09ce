"""Which patches the student sees: plans of integer ids of patches, made from noise that comes with the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops


class MaskPlan(NamedTuple):
    """The ids of an image's patches, row by row from 0; the two lists are disjoint.

    Attributes:
        visible: (B, V) int32, patches that the student sees.
        masked: (B, M) int32, patches that the decoder reconstructs.
    """

    visible: Any
    masked: Any


def _shuffled(noise: Any) -> Any:
    return ops.cast(ops.argsort(noise, axis=1), "int32")


def random_plan(noise: Any, visible: int) -> MaskPlan:
    """Keep the patches of the `visible` smallest noises, mask the others (MAE §3).

    Args:
        noise: (B, L) float, uniform.
        visible: V, patches that stay visible, 1 ≤ V < L.
    """
    shuffle = _shuffled(noise)
    return MaskPlan(shuffle[:, :visible], shuffle[:, visible:])


def disjoint_plans(noise: Any, visible: int) -> tuple[MaskPlan, MaskPlan]:
    """Plan two views that see no patch in common (LUT §3): the V smallest noises, and the V next.

    Args:
        noise: (B, L) float, uniform.
        visible: V, patches that stay visible in each view, 2V ≤ L.
    """
    shuffle = _shuffled(noise)
    second_masked = ops.concatenate([shuffle[:, :visible], shuffle[:, 2 * visible :]], axis=1)
    first = MaskPlan(shuffle[:, :visible], shuffle[:, visible:])
    return first, MaskPlan(shuffle[:, visible : 2 * visible], second_masked)
