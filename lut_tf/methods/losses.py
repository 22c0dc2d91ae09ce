"""Losses as pure functions, in float32 whatever the model computes in."""

from __future__ import annotations

from typing import Any

from keras import ops


def patch_statistics(patches: Any) -> tuple[Any, Any]:
    """Return each patch's mean and deviation, sqrt(*unbiased* variance + 1e-6), which normalise targets (MAE §3).

    Args:
        patches: (..., values) float32.

    Returns:
        Two tensors (..., 1).
    """
    mean = ops.mean(patches, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(patches - mean), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, ops.sqrt(variance + 1e-6)


def reconstruction_loss(prediction: Any, target: Any) -> Any:
    """Return the squared error, mean over a patch's values and over the masked patches (LUT's L_MIM).

    Args:
        prediction: (B, M, values), of the masked patches.
        target: (B, M, values).
    """
    difference = ops.cast(prediction, "float32") - ops.cast(target, "float32")
    return ops.mean(ops.square(difference))


def l1_reconstruction_loss(prediction: Any, target: Any) -> Any:
    """Return the absolute error of the masked pixels: sum / (pixels + 1e-5) / 3 colours (SimMIM's loss).

    Args:
        prediction: (B, M, p·p·3), of the masked patches.
        target: (B, M, p·p·3), pixels of the normalised image.
    """
    difference = ops.cast(prediction, "float32") - ops.cast(target, "float32")
    pixels = ops.cast(ops.size(difference), "float32") / 3.0
    return ops.sum(ops.abs(difference)) / (pixels + 1e-5) / 3.0
