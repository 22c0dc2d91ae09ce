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


def unit(x: Any) -> Any:
    """Scale the vectors (B, D) to length 1, in float32 (lengths below 1e-12 count as 1e-12)."""
    x = ops.cast(x, "float32")
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)), 1e-12)


def l2_distance(query: Any, key: Any) -> Any:
    """Return the mean of 2 − 2·cos(query, key): the squared distance of unit vectors (LUT eq. for L_BC).

    Args:
        query: (B, D) of the student.
        key: (B, D) of the teacher.
    """
    return ops.mean(2.0 - 2.0 * ops.sum(unit(query) * unit(key), axis=-1))


def smooth_l1_distance(query: Any, key: Any) -> Any:
    """Return the smooth-L1 distance (beta 1) of the unit vectors, mean over images and channels (LUT's ablation)."""
    difference = ops.abs(unit(query) - unit(key))
    return ops.mean(ops.where(difference < 1.0, 0.5 * ops.square(difference), difference - 0.5))


def infonce_distance(query: Any, key: Any, all_keys: Any, temperature: float) -> Any:
    """Return InfoNCE: −log softmax of the own image's key among all keys, mean over images (LUT's ablation).

    Args:
        query: (B, D) of the student.
        key: (B, D) of the teacher, for the same images.
        all_keys: (N, D) of the teacher, for all images of the global micro-batch, those of `key` among them.
        temperature: similarity scale, above 0.
    """
    query = unit(query) / temperature
    similarity = ops.matmul(query, ops.transpose(unit(all_keys)))
    positive = ops.sum(query * unit(key), axis=-1)
    return ops.mean(ops.logsumexp(similarity, axis=-1) - positive)
