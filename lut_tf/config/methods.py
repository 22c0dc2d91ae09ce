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


@dataclass(frozen=True)
class MaskingConfig:
    """Which patches are masked (AMT): at random, or rather those that the encoder looks at.

    Args:
        name: `random`; or `attention`, which masks patches with a probability in proportion to their weight, and may
            throw others away, which nothing sees then.
        throw_ratio: share of the patches that are thrown away, beside `method.mask_ratio` (AMT: 0.4, with 0.45 masked).
        guide: where weights come from: `table`, with the batch, as `weights`, in the manner of the paper; or `teacher`,
            from LUT's momentum teacher, which sees the whole view 1 in each step.
    """

    name: Literal["random", "attention"] = "random"
    throw_ratio: Fraction = 0.0
    guide: Literal["table", "teacher"] = "table"

    @property
    def by_teacher(self) -> bool:
        """Whether a momentum teacher's attention decides."""
        return self.name == "attention" and self.guide == "teacher"

    def check(self, name: str) -> None:
        """Refuse settings in vain; see `validate`."""
        for setting in ("throw_ratio", "guide"):
            if self.name == "random" and getattr(self, setting) != getattr(MaskingConfig(), setting):
                raise ValueError(
                    f"{joined(name, setting)}={show(getattr(self, setting))} is not read by {joined(name, 'name')}="
                    f"random: leave it out, or give {option(name, 'name')} attention"
                )


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
        thrown: places that nothing sees.
    """

    rows: int
    columns: int
    side: int
    visible: int
    masked: int
    thrown: int = 0

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
        masking: which patches are masked.
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
    masking: MaskingConfig = field(default_factory=MaskingConfig)
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
        if self.name == "lut" and self.mask_ratio + self.masking.throw_ratio < 0.5:
            raise self._no_two_views(name)
        if self.masking.by_teacher:
            self._check_guide(name)
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

    def _no_two_views(self, name: str) -> ValueError:
        return ValueError(
            f"{joined(name, 'mask_ratio')}={show(self.mask_ratio)} leaves no two disjoint views for "
            f"{joined(name, 'name')}=lut, which take at least 0.5: give {option(name, 'mask_ratio')} 0.5 or more, "
            f"or {option(name, 'name')} mae"
        )

    def _check_guide(self, name: str) -> None:
        """Refuse a teacher as guide that there is not, or that does not see the whole view."""
        guide = f"{joined(name, 'masking')}.guide"
        if self.name != "lut":
            raise ValueError(
                f"{guide}=teacher needs a momentum teacher, and {joined(name, 'name')}={self.name} has none: give "
                f"{option(name, 'name')} lut, or {option(name, 'masking')}.name random"
            )
        if self.teacher_mask_ratio > 0:
            raise ValueError(
                f"{joined(name, 'teacher_mask_ratio')}={show(self.teacher_mask_ratio)} leaves holes in the teacher's "
                f"view, and {guide}=teacher asks for its attention everywhere: give "
                f"{option(name, 'teacher_mask_ratio')} 0, or {option(name, 'masking')}.name random"
            )

    def teacher_visible(self, patches: int, name: str = "") -> int:
        """Return how many of `patches` L the teacher sees, all of them unless its view is masked.

        Raises:
            ValueError: none would be visible, or none masked though some are to be.
        """
        if not self.teacher_mask_ratio:
            return patches
        visible = int(patches * (1 - self.teacher_mask_ratio))
        self._check_counts("teacher_mask_ratio", visible, patches - visible, patches, "patches", name)
        return visible

    def places(self, image_size: int | Sequence[int], patch_size: int, name: str = "") -> Places:
        """Return where an image of an encoder can be masked, and how much of it is, rounded as the papers' programs do.

        With masking at random V = int(L · (1 − m)) places are visible; with attention int(L · m) are masked, and those
        up to int(L · (m + t)) thrown; of SimMIM's units ceil(L · m) and ceil(L · t).

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
        total, thrown, mask, throw = rows * columns, 0, self.mask_ratio, self.masking.throw_ratio
        if self.name == "simmim":
            masked, thrown = math.ceil(total * mask), math.ceil(total * throw)
        elif self.masking.name == "attention":
            masked = int(total * mask)
            thrown = int(total * (mask + throw)) - masked
        else:
            masked = total - int(total * (1 - mask))
        visible, kind = total - masked - thrown, f"units of {unit} pixels" if self.name == "simmim" else "patches"
        if thrown and visible <= 0:
            thrower = joined(name, "masking")
            raise ValueError(
                f"{joined(name, 'mask_ratio')}={show(mask)} and {thrower}.throw_ratio={show(throw)} leave none of "
                f"{total} {kind} visible: give a smaller {option(name, 'masking')}.throw_ratio"
            )
        self._check_counts("mask_ratio", visible, masked, total, kind, name)
        if self.name == "lut" and 2 * visible > total:  # half of an odd number, rounded
            raise self._no_two_views(name)
        return Places(rows, columns, unit // patch_size, visible, masked, thrown)

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

    def _check_counts(self, setting: str, visible: int, masked: int, total: int, places: str, name: str) -> None:
        named, remedy = f"{joined(name, setting)}={show(getattr(self, setting))}", option(name, setting)
        if visible <= 0:
            raise ValueError(f"{named} leaves none of {total} {places} visible: give a smaller {remedy}")
        if masked <= 0:
            raise ValueError(f"{named} masks none of {total} {places}: give a larger {remedy}")


def _shown(value: Any) -> str:
    return "{…}" if is_dataclass(value) else show(value)
