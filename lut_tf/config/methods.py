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
    "reconstruction_weight", "context_weight", "context_distance", "temperature", "symmetric", "momentum", "head",
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
    momentum: Fraction = 0.996
    head: HeadConfig = field(default_factory=HeadConfig)

    def check(self, name: str) -> None:
        """Refuse settings in vain, and a mask ratio that leaves LUT's two views no disjoint patches; see `validate`."""
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

    def visible(self, patches: int, name: str = "") -> int:
        """Return V = int(L · (1 − m)), the number of visible patches of `patches` L (MAE's and LUT's rounding).

        Raises:
            ValueError: none would be visible, or none masked.
        """
        visible = int(patches * (1 - self.mask_ratio))
        named, remedy = f"{joined(name, 'mask_ratio')}={show(self.mask_ratio)}", option(name, "mask_ratio")
        if visible == 0:
            raise ValueError(f"{named} leaves none of {patches} patches visible: give a smaller {remedy}")
        if visible == patches:
            raise ValueError(f"{named} masks none of {patches} patches: give a larger {remedy}")
        return visible


def _shown(value: Any) -> str:
    return "{…}" if is_dataclass(value) else show(value)
