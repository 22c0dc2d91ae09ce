"""The networks: encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lut_tf.config.presets import ENCODER_SIZES, EncoderSize, encoder_size, unknown_preset
from lut_tf.config.tree import joined, option
from lut_tf.config.types import Count, check_value, show


@dataclass(frozen=True)
class EncoderConfig:
    """The Vision Transformer that is trained and kept.

    Args:
        preset: a published size (`vit_tiny_patch16`, `vit_small_patch16`, `vit_medium_patch16`, `vit_base_patch16`,
            `vit_large_patch16`, `vit_huge_patch14`), or null when the four numbers below are given.
        image_size: side of the square input in pixels, or [height, width]; multiples of the patch size.
        patch_size: side of a patch in pixels; null takes the preset's.
        width: channels of a token, a multiple of 4 and of the heads; null takes the preset's.
        depth: number of transformer blocks; null takes the preset's.
        heads: attention heads; null takes the preset's.
    """

    preset: str | None = "vit_base_patch16"
    image_size: Count | tuple[Count, Count] = 224
    patch_size: Count | None = None
    width: Count | None = None
    depth: Count | None = None
    heads: Count | None = None

    def size(self, name: str = "") -> EncoderSize:
        """Return patch, width, depth and heads: those given, and the preset's for those that are null.

        Raises:
            ValueError: no such preset, or neither a preset nor all four numbers.
        """
        given = {part: getattr(self, part) for part in EncoderSize._fields}
        missing = [part for part, value in given.items() if value is None]
        if self.preset is not None:
            if self.preset not in ENCODER_SIZES:
                raise ValueError(joined(name, unknown_preset(self.preset)))
            return encoder_size(self.preset)._replace(**{k: v for k, v in given.items() if v is not None})
        if missing:
            raise ValueError(
                f"{joined(name, missing[0])}=null, and {joined(name, 'preset')}=null gives no size: give "
                f"{option(name, 'preset')}, or all of {', '.join(option(name, part) for part in missing)}"
            )
        return EncoderSize(**given)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        patch_size, (height, width) = self.size().patch_size, sides(self.image_size)
        return height // patch_size, width // patch_size

    @property
    def patches(self) -> int:
        """Number L of patches of an image."""
        return self.grid[0] * self.grid[1]

    def check(self, name: str) -> None:
        """Refuse sizes that do not fit together; see `validate`."""
        check_encoder(self.size(name), self.image_size, name)


@dataclass(frozen=True)
class DecoderConfig:
    """The small transformer that paints the masked patches; it exists in pre-training only.

    Args:
        width: channels of a token, a multiple of 4 and of the heads.
        depth: number of transformer blocks.
        heads: attention heads.
    """

    width: Count = 512
    depth: Count = 8
    heads: Count = 16

    def check(self, name: str) -> None:
        """Refuse a width that does not fit; see `validate`."""
        check_tokens(name, self.width, self.heads)


def sides(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of an input: of a square one its side twice.

    Raises:
        ValueError: it is neither a number nor two.
    """
    both = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(both, Sequence) or len(both) != 2:
        raise ValueError(f"image_size={show(image_size)} must be a whole number or (height, width)")
    return int(both[0]), int(both[1])


def check_encoder(size: EncoderSize, image_size: int | Sequence[int], name: str = "") -> None:
    """Refuse sizes of an encoder that do not fit together.

    Args:
        size: patch, width, depth and heads.
        image_size: side of the input, or height and width, in pixels.
        name: where the settings stand, for the message.

    Raises:
        ValueError: one is below 1, or the width or a side does not fit.
    """
    both = sides(image_size)
    for part, value in [*size._asdict().items(), *(("image_size", side) for side in both)]:
        check_value(joined(name, part), value, Count)
    check_tokens(name, size.width, size.heads)
    if any(side % size.patch_size for side in both):
        fitting = [max(1, round(side / size.patch_size)) * size.patch_size for side in both]
        nearest = show(fitting[0] if isinstance(image_size, int) else fitting).replace(" ", "")
        raise ValueError(
            f"{joined(name, 'image_size')}={show(image_size)} is not a multiple of the patch size {size.patch_size}: "
            f"give {option(name, 'image_size')} {nearest}, or another {option(name, 'patch_size')}"
        )


def check_tokens(name: str, width: int, heads: int) -> None:
    """Refuse a width that cannot be shared by the heads, or by the positions' four parts.

    Raises:
        ValueError: it cannot.
    """
    unit = math.lcm(4, heads)
    nearest = max(unit, round(width / unit) * unit)
    named, remedy = f"{joined(name, 'width')}={width}", f"give {option(name, 'width')} {nearest}"
    if width % heads:
        raise ValueError(f"{named} is not a multiple of {joined(name, 'heads')}={heads}: {remedy}")
    if width % 4:
        raise ValueError(
            f"{named} is not a multiple of 4, which the sine and cosine positions of rows and columns need: {remedy}"
        )
