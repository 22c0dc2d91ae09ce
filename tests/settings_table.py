"""Another value for every setting of a run of each task, and configurations that differ from the default's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lut_tf.config import Config, FinetuneConfig, LinearProbeConfig, settings

# Another value for every setting, valid beside the defaults and the digits.
OTHER: dict[str, Any] = {
    "epochs": 300, "seed": 1, "strategy": "mirrored", "devices": 2, "workers": "a:1,b:1", "worker_index": 0,
    "init_from": "earlier",
    "data.source": "tfds", "data.path": "photos", "data.evaluation_path": "more", "data.name": "cifar10",
    "data.split": "test", "data.evaluation_split": "test", "data.holdout": 0.2, "data.image_feature": "png",
    "data.label_feature": "label",
    "data.apply_exif": False, "data.bits": 12, "data.damaged_share": 0.1, "data.parallel_calls": 2,
    "views.crop": "random_resized", "views.padding": 2, "views.scale": (0.3, 1.0), "views.flip": False,
    "views.jitter_probability": 0.5, "views.brightness": 0.1, "views.contrast": 0.1, "views.saturation": 0.1,
    "views.hue": 0.05, "views.one_of_three": False, "views.solarize_threshold": 100, "views.blur_radius": (0.5, 1.0),
    "encoder.preset": "vit_small_patch16", "encoder.image_size": 32, "encoder.patch_size": 8, "encoder.width": 24,
    "encoder.depth": 2, "encoder.heads": 4,
    "decoder.width": 32, "decoder.depth": 2, "decoder.heads": 4,
    "method.name": "mae", "method.mask_ratio": 0.6, "method.norm_pix_loss": False,
    "method.mask_unit": 8, "method.drop_path": 0.5, "method.masking.name": "attention",
    "method.masking.throw_ratio": 0.1, "method.masking.guide": "teacher",
    "method.reconstruction_weight": 0.5, "method.context_weight": 0.5, "method.context_distance": "smooth_l1",
    "method.temperature": 0.1, "method.symmetric": False, "method.context_source": "class_token",
    "method.context_steers": "masked", "method.context_supervision": "tokens", "method.teacher_mask_ratio": 0.5,
    "method.momentum": 0.9, "method.head.hidden": 24,
    "method.head.projector_depth": 1, "method.head.predictor_depth": 1, "method.head.norm": "layer",
    "method.head.activation": "gelu",
    "optimizer.batch_size": 32, "optimizer.accumulate": 2, "optimizer.base_learning_rate": 1e-3,
    "optimizer.rate_rule": "linear", "optimizer.warmup_epochs": 3.0,
    "optimizer.warmup_learning_rate": 1e-5, "optimizer.minimum_learning_rate": 1e-5, "optimizer.clip_norm": 1.0,
    "optimizer.max_bad_steps": 2, "optimizer.weight_decay": 0.1, "optimizer.betas": (0.8, 0.9),
    "probe.every": 2, "probe.before_and_after": False, "probe.neighbours": 10, "probe.images": 500,
    "probe.queries": 100,
    "logging.pictures_every": 3, "logging.pictures": 3, "logging.tensorboard": False,
    "checkpoint.every_epochs": 2, "checkpoint.every_steps": 5, "checkpoint.every_minutes": 1.0, "checkpoint.keep": 3,
    "checkpoint.keep_every": 2, "checkpoint.on_failure": "continue",
    "compute.precision": "mixed_bfloat16", "compute.teacher_precision": "mixed_bfloat16", "compute.jit_compile": True,
    "compute.all_reduce": "hierarchical", "compute.deterministic": True,
}  # fmt: skip

# What fine-tuning has beside those, or needs other values of.
FINETUNING_ALONE: dict[str, Any] = {
    "epochs": 50, "views.operations": 1, "views.magnitude": 5.0, "views.magnitude_std": 0.1, "views.mixup": 0.0,
    "views.cutmix": 0.0, "views.switch": 0.1, "views.smoothing": 0.2, "views.erasing": 1.0,
    "classifier.pooling": "cls", "classifier.drop_path": 0.5, "classifier.image_size": 32, "classifier.ema": 0.9,
    "optimizer.base_learning_rate": 2e-3, "optimizer.layer_decay": 0.5, "optimizer.minimum_learning_rate": 1e-5,
}  # fmt: skip
OTHER_FINETUNING: dict[str, Any] = {
    name: FINETUNING_ALONE.get(name, OTHER.get(name)) for name in settings(FinetuneConfig) if name != "run_dir"
}
PROBING_ALONE: dict[str, Any] = {
    "image_size": 32, "solver": "logistic", "optimizer.base_learning_rates": (0.2,),
}  # fmt: skip
OTHER_PROBING: dict[str, Any] = {
    name: PROBING_ALONE.get(name, OTHER.get(name)) for name in settings(LinearProbeConfig) if name != "run_dir"
}
TABLES: dict[type, dict[str, Any]] = {
    Config: OTHER, FinetuneConfig: OTHER_FINETUNING, LinearProbeConfig: OTHER_PROBING,
}  # fmt: skip


def changed(name: str, value: Any, tree: Any = None) -> Any:
    """Return `tree`, or the default `Config`, with the setting of a dotted name changed."""
    tree = Config() if tree is None else tree
    first, _, rest = name.partition(".")
    return replace(tree, **{first: changed(rest, value, getattr(tree, first)) if rest else value})


def changed_all(values: Mapping[str, Any], tree: Config | None = None) -> Config:
    """Like `changed`, for several settings."""
    for name, value in values.items():
        tree = changed(name, value, tree)
    return tree or Config()
