"""What encoders of others were shown: read from what stands beside their weights, or known of their makers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lut_tf.models.preprocess import HALF, IMAGENET, Preprocessing

PREPROCESSOR = "preprocessor_config.json"
"""What Hugging Face calls the file."""

KNOWN = {"imagenet": IMAGENET, "half": HALF}
"""By the names that the command line gives them: ImageNet's mean and deviation, or 0.5 for both."""

_PILLOW = {2: "bilinear", 3: "bicubic"}


def of_timm(pretrained: Mapping[str, Any], where: str) -> Preprocessing | None:
    """Return what timm's `pretrained_cfg` says; None where it says nothing.

    Raises:
        ValueError: a value is out of range.
    """
    named = {"mean": "mean", "std": "std", "crop_share": "crop_pct", "interpolation": "interpolation"}
    found = {ours: pretrained[theirs] for ours, theirs in named.items() if pretrained.get(theirs) is not None}
    return _checked(found, where) if "mean" in found and "std" in found else None


def of_huggingface(config: Mapping[str, Any], where: str) -> Preprocessing:
    """Return what an image processor's configuration says.

    Raises:
        ValueError: a value is out of range, or images are not scaled to 0 … 1 before their mean is taken.
    """
    factor = config.get("rescale_factor", 1 / 255)
    if (
        config.get("do_rescale") is False
        or type(factor) is not float
        or not math.isclose(factor, 1 / 255, rel_tol=1e-3)
    ):
        raise ValueError(
            f"{where} scales bytes by {factor!r}, and encoders here see 1/255 of them: give preprocessing=…"
        )
    found: dict[str, Any] = {"crop_share": 1.0, "interpolation": _PILLOW.get(config.get("resample", 2), "bicubic")}
    if config.get("do_normalize") is False:
        found |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    else:
        found |= {"mean": config.get("image_mean", HALF.mean), "std": config.get("image_std", HALF.std)}
    crop, size = (_shorter(config.get(name)) for name in ("crop_size", "size"))
    if crop and size and config.get("do_center_crop") is True:
        found["crop_share"] = min(1.0, crop / size)
    return _checked(found, where)


def _shorter(size: Any) -> float | None:
    """Return the shorter side of a size as Hugging Face writes it."""
    sides = size.values() if isinstance(size, Mapping) else [size]
    return min((side for side in sides if type(side) in (int, float) and side > 0), default=None)


def _checked(found: Mapping[str, Any], where: str) -> Preprocessing:
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    try:
        return Preprocessing.of(tuples)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is damaged: {error}") from error


def to_huggingface(preprocessing: Preprocessing, image_size: tuple[int, int]) -> dict[str, Any]:
    """Return the configuration of an image processor that does the same with images for an input of `image_size`."""
    height, width = image_size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": min(preprocessing.resized_to(image_size))},
        "resample": next(number for number, name in _PILLOW.items() if name == preprocessing.interpolation),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def usual(layout: str, of_trainer: bool, own_training: bool) -> tuple[Preprocessing, str]:
    """Return what encoders of a kind are usually shown, and a word on why.

    Args:
        layout: one of `ENCODER_LAYOUTS`.
        of_trainer: the weights lie in a trainer's file.
        own_training: a decoder, a fixed sine-cosine table, LayerScale or register tokens say that MAE, LUT, MoCo v3,
            DINOv2 or DeiT III was trained.
    """
    if of_trainer or own_training or "dinov2" in layout:
        return IMAGENET, "usual in trainers' files"
    if layout.startswith("huggingface"):
        return HALF, "usual in Hugging Face's ViT"
    return HALF, "usual in timm's vit_*; for DINO's or iBOT's bare weights give preprocessing imagenet"


def line(preprocessing: Preprocessing, where: str) -> str:
    """Return a line on what is taken, and from where."""
    numbers = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    mean, std = numbers
    return f"preprocessing: mean {mean}; std {std} ({where})"
