"""Which patches the student sees: plans of integer ids of patches, made from noise that comes with the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from lut_tf.config import Places


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


def unit_plan(noise: Any, places: Places) -> MaskPlan:
    """Mask the units of the smallest noises, whole squares of patches (SimMIM §3.1).

    Args:
        noise: (B, units) float, uniform.
        places: the units, and how many are masked.
    """
    shuffle = _shuffled(noise)
    visible, masked = shuffle[:, places.masked :], shuffle[:, : places.masked]
    return MaskPlan(patches_in(visible, places), patches_in(masked, places))


def patches_in(ids: Any, places: Places) -> Any:
    """Return the ids (B, N · side²) of the patches in the places with ids (B, N), both row by row from 0."""
    if places.side == 1:
        return ids
    across = places.columns * places.side  # patches in a row of the image
    inside = (np.arange(places.side)[:, None] * across + np.arange(places.side)).reshape(-1).astype("int32")
    first = (ids // places.columns * across + ids % places.columns) * places.side
    return ops.reshape(first[..., None] + inside, (ops.shape(ids)[0], ids.shape[1] * len(inside)))
