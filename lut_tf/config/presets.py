"""Published encoder sizes (LUT, ECCV 2024, and MAE, arXiv 2111.06377); plain Python, so that checks stay quick."""

from __future__ import annotations

import difflib
from typing import NamedTuple


class EncoderSize(NamedTuple):
    """Patch side in pixels, channels, blocks and attention heads of a Vision Transformer."""

    patch_size: int
    width: int
    depth: int
    heads: int


ENCODER_SIZES = {
    "vit_tiny_patch16": EncoderSize(16, 192, 12, 3),
    "vit_small_patch16": EncoderSize(16, 384, 12, 6),
    "vit_medium_patch16": EncoderSize(16, 512, 12, 8),
    "vit_base_patch16": EncoderSize(16, 768, 12, 12),
    "vit_large_patch16": EncoderSize(16, 1024, 24, 16),
    "vit_huge_patch14": EncoderSize(14, 1280, 32, 16),
}


def unknown_preset(preset: str) -> str:
    """Say that no preset has this name, which one may be meant, and which there are."""
    near = difflib.get_close_matches(preset, ENCODER_SIZES, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    return f"preset={preset!r} is not known{hint}: choose one of {', '.join(ENCODER_SIZES)}"


def encoder_size(preset: str) -> EncoderSize:
    """Return the size called `preset`.

    Raises:
        ValueError: no preset has that name; the message lists those there are.
    """
    if preset not in ENCODER_SIZES:
        raise ValueError(unknown_preset(preset))
    return ENCODER_SIZES[preset]
