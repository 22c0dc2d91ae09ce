"""Published encoder sizes (LUT, ECCV 2024, and MAE, arXiv 2111.06377); plain Python, so that checks stay quick."""

from __future__ import annotations

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


def encoder_size(preset: str) -> EncoderSize:
    """Return the size called `preset`.

    Raises:
        ValueError: no preset has that name; the message lists those there are.
    """
    if preset not in ENCODER_SIZES:
        raise ValueError(f"encoder.preset={preset!r} is not known: choose one of {', '.join(ENCODER_SIZES)}")
    return ENCODER_SIZES[preset]
