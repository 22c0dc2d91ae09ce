"""Which patches the student sees: plans of integer ids of patches, made from noise that comes with the batch.

With attention-driven masking (AMT) also from weights: how much the encoder looks at each patch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from lut_tf.config import Places

SMALLEST = 1e-30
"""What stands for a weight, or a number, of 0 where its logarithm is taken or something is divided by it."""


class MaskPlan(NamedTuple):
    """The ids of an image's patches, row by row from 0; the lists are disjoint, and together all patches.

    Attributes:
        visible: (B, V) int32, patches that the student sees.
        masked: (B, M) int32, patches that are reconstructed.
        thrown: (B, T) int32, patches that neither encoder nor decoder nor loss sees, T = 0 where there are none; a plan
            made by hand may leave it out.
    """

    visible: Any
    masked: Any
    thrown: Any = None

    @property
    def ids(self) -> Any:
        """(B, L) all of them: the visible ones, the masked ones, the thrown ones."""
        return ops.concatenate([part for part in self if part is not None], axis=1)


def _shuffled(noise: Any) -> Any:
    return ops.cast(ops.argsort(noise, axis=1), "int32")


def random_plan(noise: Any, visible: int) -> MaskPlan:
    """Keep the patches of the `visible` smallest noises, mask the others (MAE §3).

    Args:
        noise: (B, L) float, uniform.
        visible: V, patches that stay visible, 1 ≤ V < L.
    """
    shuffle = _shuffled(noise)
    return MaskPlan(shuffle[:, :visible], shuffle[:, visible:], shuffle[:, :0])


def disjoint_plans(noise: Any, visible: int) -> tuple[MaskPlan, MaskPlan]:
    """Plan two views that see no patch in common (LUT §3): the V smallest noises, and the V next.

    Args:
        noise: (B, L) float, uniform.
        visible: V, patches that stay visible in each view, 2V ≤ L.
    """
    shuffle = _shuffled(noise)
    second_masked = ops.concatenate([shuffle[:, :visible], shuffle[:, 2 * visible :]], axis=1)
    none = shuffle[:, :0]
    first = MaskPlan(shuffle[:, :visible], shuffle[:, visible:], none)
    return first, MaskPlan(shuffle[:, visible : 2 * visible], second_masked, none)


def unit_plan(noise: Any, places: Places) -> MaskPlan:
    """Mask the units of the smallest noises, whole squares of patches (SimMIM §3.1).

    Args:
        noise: (B, units) float, uniform.
        places: the units, and how many are masked.
    """
    shuffle = _shuffled(noise)
    visible, masked = shuffle[:, places.masked :], shuffle[:, : places.masked]
    return MaskPlan(patches_in(visible, places), patches_in(masked, places), shuffle[:, :0])


def patches_in(ids: Any, places: Places) -> Any:
    """Return the ids (B, N · side²) of the patches in the places with ids (B, N), both row by row from 0."""
    if places.side == 1:
        return ids
    across = places.columns * places.side  # patches in a row of the image
    inside = (np.arange(places.side)[:, None] * across + np.arange(places.side)).reshape(-1).astype("int32")
    first = (ids // places.columns * across + ids % places.columns) * places.side
    return ops.reshape(first[..., None] + inside, (ops.shape(ids)[0], ids.shape[1] * len(inside)))


def attention_weights(attention: Any) -> Any:
    """Return how much the encoder looks at each patch (AMT), (B, L) float32 from 0 to 1.

    Each head's attention less its minimum, divided by its maximum then; their mean.

    Args:
        attention: (B, heads, L) of the class token to the patches, of the last block (`ViTEncoder.encode_and_look`).
    """
    above = ops.cast(attention, "float32")
    above = above - ops.min(above, axis=-1, keepdims=True)
    return ops.mean(above / ops.maximum(ops.max(above, axis=-1, keepdims=True), SMALLEST), axis=1)


def weighted_order(noise: Any, weights: Any) -> Any:
    """Return an order of the places (B, L) int32, drawn one after the other in proportion to the weights of those left.

    By Gumbel's keys, log w − log(−log u), sorted downwards: exact draws without replacement, and a pure function.

    Args:
        noise: (B, L) float u, uniform in [0, 1).
        weights: (B, L) float w, at least 0; places of weight 0 come last, in an order at random.
    """
    uniform = ops.clip(ops.cast(noise, "float32"), SMALLEST, 1.0 - 2.0**-24)
    weights = ops.maximum(ops.cast(weights, "float32"), SMALLEST)
    keys = ops.log(weights) - ops.log(-ops.log(uniform))
    return _shuffled(-keys)


def guided_plan(noise: Any, weights: Any, places: Places) -> MaskPlan:
    """Mask the first places of `weighted_order`, throw the next away, show the rest (AMT).

    Args:
        noise: (B, places) float, uniform.
        weights: (B, L) float of each patch, at least 0; a place of several has their mean.
        places: how many are what.
    """
    order = weighted_order(noise, _weights_of_places(weights, places))
    hidden = places.masked + places.thrown
    parts = order[:, hidden:], order[:, : places.masked], order[:, places.masked : hidden]
    return MaskPlan(*(patches_in(part, places) for part in parts))


def second_plan(noise: Any, first: MaskPlan, places: Places) -> MaskPlan:
    """Plan a second view at random, which sees no patch that the first one sees.

    Args:
        noise: (B, L) float, uniform, of its own.
        first: the first view's plan.
        places: patches, and how many are what, in both views.
    """
    seen = ops.argsort(first.ids, axis=1) < places.visible
    order = _shuffled(ops.where(seen, 1.0, 0.0) + ops.cast(noise, "float32"))
    hidden = places.visible + places.masked
    return MaskPlan(order[:, : places.visible], order[:, places.visible : hidden], order[:, hidden:])


def _weights_of_places(weights: Any, places: Places) -> Any:
    """Return the weight of each place (B, places), the mean of its patches' (B, L)."""
    rows, columns, side = places.rows, places.columns, places.side
    if side == 1:
        return weights
    squares = ops.reshape(ops.cast(weights, "float32"), (ops.shape(weights)[0], rows, side, columns, side))
    return ops.reshape(ops.mean(squares, axis=(2, 4)), (ops.shape(weights)[0], rows * columns))


def plan_flags(plan: MaskPlan) -> Any:
    """Return a plan as (B, L) int32 in image order, 1 where masked, -1 where thrown, else 0 (for pictures only)."""
    parts = zip(plan, (0, 1, -1), strict=True)
    flags = [flag * ops.ones_like(ids) for ids, flag in parts if ids is not None]
    order = ops.argsort(plan.ids, axis=1)
    return ops.take_along_axis(ops.cast(ops.concatenate(flags, axis=1), "int32"), order, axis=1)


def plan_mask(plan: MaskPlan) -> Any:
    """Return a plan as (B, L) float32, 1 where masked, in image order (for pictures only)."""
    return ops.cast(plan_flags(plan) > 0, "float32")
