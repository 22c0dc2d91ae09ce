"""What is learned: masking, losses, heads, teacher. The methods take these groups as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal, NamedTuple

from lut_tf.config.networks import sides
from lut_tf.config.tree import joined, option
from lut_tf.config.types import Count, Decay, Fraction, NotNegative, NotNegativeInt, Positive, show


@dataclass(frozen=True)
class HeadConfig:
    """LUT's projector and predictor (multi-layer perceptrons; they exist in pre-training only).

    Args:
        hidden: width of the hidden layers.
        projector_depth: linear layers of the projector; 0 is the identity.
        predictor_depth: linear layers of the predictor; 0 is the identity.
        norm: normalisation after each hidden layer: `batch`, `layer`, or null for none.
        activation: `relu` or `gelu`.
    """

    hidden: Count = 4096
    projector_depth: NotNegativeInt = 2
    predictor_depth: NotNegativeInt = 2
    norm: Literal["batch", "layer"] | None = "batch"
    activation: Literal["relu", "gelu"] = "relu"


LUT_ONLY = (
    "reconstruction_weight", "context_weight", "context_distance", "temperature", "symmetric", "context_source",
    "context_steers", "context_supervision", "teacher_mask_ratio", "momentum", "head",
)  # fmt: skip
READ_BY = {
    **dict.fromkeys(LUT_ONLY, ("lut",)),
    "norm_pix_loss": ("lut", "mae"),
    **dict.fromkeys(("mask_unit", "drop_path"), ("simmim",)),
}
"""Which methods read a setting; those that are not named here are read by all."""


class Places(NamedTuple):
    """Where an image can be masked: a grid of patches, or of SimMIM's units, squares of several patches each.

    Attributes:
        rows: of the grid.
        columns: of the grid.
        side: patches on a side of a place.
        visible: places that the student sees.
        masked: places that it reconstructs.
    """

    rows: int
    columns: int
    side: int
    visible: int
    masked: int

    @property
    def total(self) -> int:
        """Number of places."""
        return self.rows * self.columns


@dataclass(frozen=True)
class MethodConfig:
    """What is learned.

    Args:
        name: `lut` (reconstruction and context), `mae` (reconstruction by a decoder that alone sees where patches are
            masked) or `simmim` (reconstruction by the encoder itself, which sees that they are).
        mask_ratio: share of the patches that the student does not see; LUT needs at least 0.5 for two disjoint views
            (SimMIM: 0.6).
        norm_pix_loss: normalise each target patch by its own mean and variance (LUT and MAE).
        mask_unit: side in pixels of the squares that SimMIM masks; a multiple of the patch size, and they tile the
            image.
        drop_path: how often the last block's attention and MLP are left out in training; earlier blocks' less, the
            first's never (SimMIM: 0.1).
        reconstruction_weight: weight of the reconstruction loss (LUT).
        context_weight: weight of the context loss (LUT; 0.25 for ViT-B, 1.0 for ViT-S).
        context_distance: `l2` (squared, on unit vectors), `infonce` or `smooth_l1`.
        temperature: temperature of `infonce`.
        symmetric: both directions of the context loss as in the reference; false keeps view 1 against the teacher's
            view 2 only, as in the paper's figure (about 40 % cheaper).
        context_source: what an image is to the context loss, the mean of its `patches` or its `class_token`, for
            student and teacher alike; the decoder's tokens are always averaged.
        context_steers: which of the student's tokens the context loss steers: the encoder's of the `visible` patches,
            the decoder's of the `masked` ones, or `both`.
        context_supervision: `pooled` compares an image with an image; `tokens` compares each steered token with the
            teacher's at the same place of the image; `both` is their mean.
        teacher_mask_ratio: share of the patches that the teacher does not see (LUT; 0 is the paper's best).
        momentum: momentum of the teacher at the first step; it rises to 1 along a half cosine.
        head: projector and predictor (LUT).
    """

    name: Literal["lut", "mae", "simmim"] = "lut"
    mask_ratio: Fraction = 0.75
    norm_pix_loss: bool = True
    mask_unit: Count = 32
    drop_path: Decay = 0.0
    reconstruction_weight: NotNegative = 1.0
    context_weight: NotNegative = 0.25
    context_distance: Literal["l2", "infonce", "smooth_l1"] = "l2"
    temperature: Positive = 0.2
    symmetric: bool = True
    context_source: Literal["patches", "class_token"] = "patches"
    context_steers: Literal["visible", "masked", "both"] = "visible"
    context_supervision: Literal["pooled", "tokens", "both"] = "pooled"
    teacher_mask_ratio: Fraction = 0.0
    momentum: Fraction = 0.996
    head: HeadConfig = field(default_factory=HeadConfig)

    def check(self, name: str) -> None:
        """Refuse settings in vain, and those that leave LUT's views or tokens nothing to compare; see `validate`."""
        for setting, readers in READ_BY.items():
            if self.name not in readers and getattr(self, setting) != getattr(MethodConfig(), setting):
                raise ValueError(
                    f"{joined(name, setting)}={_shown(getattr(self, setting))} is not read by "
                    f"{joined(name, 'name')}={self.name}: leave it out, or give {option(name, 'name')} "
                    f"{' or '.join(readers)}"
                )
        if self.name == "lut" and self.mask_ratio < 0.5:
            raise ValueError(
                f"{joined(name, 'mask_ratio')}={show(self.mask_ratio)} leaves no two disjoint views for "
                f"{joined(name, 'name')}=lut, which take at least 0.5: give {option(name, 'mask_ratio')} 0.5 or more, "
                f"or {option(name, 'name')} mae"
            )
        if self.context_supervision != "pooled":
            self._check_tokens(name)

    def _check_tokens(self, name: str) -> None:
        """Refuse what cannot be together with a comparison of each token."""
        supervision = f"{joined(name, 'context_supervision')}={self.context_supervision}"
        pooled = f"{option(name, 'context_supervision')} pooled"
        if self.context_distance == "infonce":
            raise ValueError(
                f"{joined(name, 'context_distance')}=infonce tells images apart, and {supervision} compares places of "
                f"one image: give {option(name, 'context_distance')} l2 or smooth_l1, or {pooled}"
            )
        if self.teacher_mask_ratio > 0:
            raise ValueError(
                f"{joined(name, 'teacher_mask_ratio')}={show(self.teacher_mask_ratio)} leaves holes in the teacher's "
                f"view, and {supervision} asks for its token at every place: give "
                f"{option(name, 'teacher_mask_ratio')} 0, or {pooled}"
            )
        if self.context_supervision == "tokens" and self.context_source == "class_token":
            raise ValueError(
                f"{joined(name, 'context_source')}=class_token is not read by {supervision}, which pools nothing: "
                f"leave it out, or give {pooled} or both"
            )

    def visible(self, patches: int, name: str = "") -> int:
        """Return V = int(L · (1 − m)), the number of visible patches of `patches` L (MAE's and LUT's rounding).

        Raises:
            ValueError: none would be visible, or none masked.
        """
        return self._visible("mask_ratio", patches, name)

    def teacher_visible(self, patches: int, name: str = "") -> int:
        """Return how many of `patches` L the teacher sees, all of them unless its view is masked; see `visible`."""
        return self._visible("teacher_mask_ratio", patches, name) if self.teacher_mask_ratio else patches

    def _visible(self, setting: str, patches: int, name: str) -> int:
        ratio = getattr(self, setting)
        visible = int(patches * (1 - ratio))
        self._check_counts(setting, visible, patches - visible, "patches", name)
        return visible

    def places(self, image_size: int | Sequence[int], patch_size: int, name: str = "") -> Places:
        """Return where an image of an encoder can be masked, and how much of it is.

        Args:
            image_size: side or (height, width) in pixels, multiples of `patch_size`.
            patch_size: side of a patch in pixels.
            name: where the settings stand, for the message.

        Raises:
            ValueError: no place would be visible, or none masked, or SimMIM's units do not tile the image.
        """
        height, width = sides(image_size)
        unit = self._unit(height, width, patch_size, name) if self.name == "simmim" else patch_size
        rows, columns = height // unit, width // unit
        if self.name != "simmim":
            visible = self.visible(rows * columns, name)
        else:
            visible = rows * columns - math.ceil(rows * columns * self.mask_ratio)
            self._check_counts("mask_ratio", visible, rows * columns - visible, f"units of {unit} pixels", name)
        return Places(rows, columns, unit // patch_size, visible, rows * columns - visible)

    def _unit(self, height: int, width: int, patch_size: int, name: str) -> int:
        """Return the side of a unit in pixels, if it is made of patches and tiles the image."""
        both = math.gcd(height, width)
        fitting = [side for side in range(patch_size, both + 1, patch_size) if both % side == 0]
        if self.mask_unit not in fitting:
            nearest = min(fitting, key=lambda side: abs(side - self.mask_unit))
            raise ValueError(
                f"{joined(name, 'mask_unit')}={self.mask_unit} makes no squares of patches of {patch_size} pixels that "
                f"tile an image of {height}×{width}: give {option(name, 'mask_unit')} {nearest}"
            )
        return self.mask_unit

    def _check_counts(self, setting: str, visible: int, masked: int, places: str, name: str) -> None:
        named, remedy = f"{joined(name, setting)}={show(getattr(self, setting))}", option(name, setting)
        count = visible + masked
        if visible <= 0:
            raise ValueError(f"{named} leaves none of {count} {places} visible: give a smaller {remedy}")
        if masked <= 0:
            raise ValueError(f"{named} masks none of {count} {places}: give a larger {remedy}")


def _shown(value: Any) -> str:
    return "{…}" if is_dataclass(value) else show(value)
