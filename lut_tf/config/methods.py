"""What is learned: masking, losses, heads, teacher. The methods take these groups as they are."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

from lut_tf.config.tree import joined, option
from lut_tf.config.types import Count, Fraction, NotNegative, NotNegativeInt, Positive, show


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


@dataclass(frozen=True)
class MethodConfig:
    """What is learned.

    Args:
        name: `lut` (reconstruction and context) or `mae` (reconstruction only).
        mask_ratio: share of the patches that the student does not see; LUT needs at least 0.5 for two disjoint views.
        norm_pix_loss: normalise each target patch by its own mean and variance.
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

    name: Literal["lut", "mae"] = "lut"
    mask_ratio: Fraction = 0.75
    norm_pix_loss: bool = True
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
        for setting in LUT_ONLY:
            if self.name == "mae" and getattr(self, setting) != getattr(MethodConfig(), setting):
                raise ValueError(
                    f"{joined(name, setting)}={_shown(getattr(self, setting))} is not read by "
                    f"{joined(name, 'name')}=mae: leave it out, or give {option(name, 'name')} lut"
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
        named, remedy = f"{joined(name, setting)}={show(ratio)}", option(name, setting)
        if visible == 0:
            raise ValueError(f"{named} leaves none of {patches} patches visible: give a smaller {remedy}")
        if visible == patches:
            raise ValueError(f"{named} masks none of {patches} patches: give a larger {remedy}")
        return visible


def _shown(value: Any) -> str:
    return "{…}" if is_dataclass(value) else show(value)
