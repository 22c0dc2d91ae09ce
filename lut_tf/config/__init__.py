"""A run's settings as trees of frozen dataclasses (no TensorFlow, no Keras).

A setting's type and range stand at the setting, in the words of `lut_tf.config.types`; a group's own contradictions in
its `check`, those between groups in the `check` of the task's tree. `validate` asks them all. The docstrings are the
texts of `--help`.
"""

from __future__ import annotations

from lut_tf.config.data import DataConfig, FinetuneViews, ViewsConfig
from lut_tf.config.finetuning import ClassifierConfig, FinetuneConfig, FinetuneOptimizer
from lut_tf.config.methods import HeadConfig, MaskingConfig, MethodConfig, Places
from lut_tf.config.networks import DecoderConfig, EncoderConfig
from lut_tf.config.pretraining import Config
from lut_tf.config.probing import LarsConfig, LinearProbeConfig, ProbeData, ProbeViews
from lut_tf.config.run import (
    COMPARED_BY_IMAGES,
    MAY_DIFFER,
    RunConfig,
    check_batch_size,
    check_tf_config,
    may_differ,
)
from lut_tf.config.training import (
    CheckpointConfig,
    ComputeConfig,
    LoggingConfig,
    OptimizerConfig,
    ProbeConfig,
    RunCompute,
    RunLogging,
    RunOptimizer,
)
from lut_tf.config.tree import build_group, changed, differences, get_setting, hints_of, validate
from lut_tf.config.types import Count, Fraction, Seed, check_value, describe, show
from lut_tf.lazy import lazy_names

_READING = ("add_config_arguments", "config_from", "from_yaml", "settings", "to_yaml")
_TASKS = ("TREES", "verb_of")

__all__ = [
    "COMPARED_BY_IMAGES", "MAY_DIFFER", "CheckpointConfig", "ClassifierConfig", "ComputeConfig", "Config", "Count",
    "DataConfig", "DecoderConfig", "EncoderConfig", "FinetuneConfig", "FinetuneOptimizer", "FinetuneViews", "Fraction",
    "HeadConfig", "LarsConfig", "LinearProbeConfig", "LoggingConfig", "MaskingConfig", "MethodConfig",
    "OptimizerConfig", "Places", "ProbeConfig",
    "ProbeData", "ProbeViews", "RunCompute", "RunConfig", "RunLogging", "RunOptimizer",
    "Seed", "ViewsConfig", "build_group", "changed", "check_batch_size", "check_tf_config", "check_value",
    "describe", "differences", "get_setting", "hints_of", "may_differ", "show", "validate", *_READING,
    *_TASKS,
]  # fmt: skip
# PyYAML takes its time to import, which the methods need not wait for.
__getattr__, __dir__ = lazy_names(
    __name__,
    {**dict.fromkeys(_READING, "lut_tf.config.reading"), **dict.fromkeys(_TASKS, "lut_tf.config.tasks")},
)
