"""How any run is computed, saved and watched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lut_tf.config.tree import joined, option
from lut_tf.config.types import Count, Decay, NotNegative, NotNegativeInt, Positive, show


@dataclass(frozen=True)
class RunOptimizer:
    """What any run's optimizer is asked for.

    Args:
        batch_size: images of one optimizer step, over all devices and micro-batches.
        accumulate: micro-batches that a step's batch is computed in, one after the other, to save memory.
        warmup_epochs: epochs of linear warm-up.
        max_bad_steps: steps with an infinite or undefined loss or gradient that the run skips, changing nothing, before
            it stops; 0 stops at the first.
    """

    batch_size: Count = 4096
    accumulate: Count = 1
    warmup_epochs: NotNegative = 40.0
    max_bad_steps: NotNegativeInt = 0

    @property
    def peak_learning_rate(self) -> float:
        """The rate at the end of the warm-up; of several the largest."""
        raise NotImplementedError

    @property
    def rate_setting(self) -> str:
        """The name of the setting that the rate is scaled from."""
        return "base_learning_rate"


@dataclass(frozen=True)
class OptimizerConfig(RunOptimizer):
    """AdamW with linear warm-up and a half cosine, both by optimizer step.

    Args:
        base_learning_rate: the rate that the rule scales.
        rate_rule: `sqrt` (LUT: base · sqrt(batch)/4), `linear` (MAE: base · batch/256) or `none` (base itself).
        warmup_learning_rate: the rate that the warm-up begins with, whatever the batch (SimMIM: 5e-7).
        minimum_learning_rate: the rate that the cosine ends at, whatever the batch (SimMIM: 5e-6).
        clip_norm: largest global norm of the gradient; 0: no limit.
        weight_decay: decoupled decay of everything that is neither a bias nor one-dimensional.
        betas: decay rates of AdamW's moments.
    """

    base_learning_rate: Positive = 1.5e-4
    rate_rule: Literal["sqrt", "linear", "none"] = "sqrt"
    warmup_learning_rate: NotNegative = 0.0
    minimum_learning_rate: NotNegative = 0.0
    clip_norm: NotNegative = 0.0
    weight_decay: NotNegative = 0.05
    betas: tuple[Decay, Decay] = (0.9, 0.95)

    @property
    def peak_learning_rate(self) -> float:
        """The rate at the end of the warm-up."""
        return scaled_rate(self.base_learning_rate, self.batch_size, self.rate_rule)

    def check(self, name: str) -> None:
        """Refuse a rate that begins or ends above its peak; see `validate`."""
        peak = self.peak_learning_rate
        for setting in ("warmup_learning_rate", "minimum_learning_rate"):
            if getattr(self, setting) > peak:
                raise ValueError(
                    f"{joined(name, setting)}={show(getattr(self, setting))} is above the peak of {peak:.3g}: give a "
                    f"smaller {option(name, setting)}, or a larger {option(name, 'base_learning_rate')}"
                )


def scaled_rate(base: float, batch_size: int, rule: str) -> float:
    """Return the peak rate of a batch size.

    Args:
        base: rate before scaling.
        batch_size: images of one optimizer step, over all devices and micro-batches.
        rule: `sqrt` (LUT's pre-training: base · sqrt(batch)/4), `finetune` (LUT's fine-tuning: base · sqrt(batch)/8),
            `linear` (MAE: base · batch/256) or `none` (base itself).

    Raises:
        ValueError: no rule has that name.
    """
    factors = {
        "sqrt": math.sqrt(batch_size) / 4,
        "finetune": math.sqrt(batch_size) / 8,
        "linear": batch_size / 256,
        "none": 1.0,
    }
    if rule not in factors:
        raise ValueError(f"rule={rule!r} is not known: choose one of {', '.join(factors)}")
    return base * factors[rule]


@dataclass(frozen=True)
class ProbeConfig:
    """k-NN and a logistic-regression probe on frozen features of images that training never saw.

    Args:
        every: epochs between probes on the validation part; 0: none while training.
        before_and_after: measure the pixels (of small images), the untrained and the trained encoder too, for the
            closing table.
        neighbours: neighbours that vote in k-NN.
        images: at most this many training images make the bank of features, evenly spaced.
        queries: at most this many evaluation images are asked about, evenly spaced.
    """

    every: NotNegativeInt = 0
    before_and_after: bool = True
    neighbours: Count = 20
    images: Count = 10000
    queries: Count = 10000

    @property
    def asked(self) -> bool:
        """Whether anything is to be measured."""
        return self.before_and_after or self.every > 0

    def check_bank(self, images: int) -> None:
        """Refuse more neighbours than there are images to learn from.

        Raises:
            ValueError: there are too many.
        """
        bank = min(images, self.images)
        if self.neighbours > bank:
            raise ValueError(
                f"probe.neighbours={self.neighbours} is more than the {bank} images that k-NN may ask: "
                f"give --probe.neighbours {bank} or less"
            )


@dataclass(frozen=True)
class RunLogging:
    """What any run writes while training.

    Args:
        tensorboard: write scalars and pictures for TensorBoard.
    """

    tensorboard: bool = True


@dataclass(frozen=True)
class LoggingConfig(RunLogging):
    """What pre-training writes while training.

    Args:
        pictures_every: epochs between reconstruction pictures; 0 draws the last one only.
        pictures: images in a picture.
    """

    pictures_every: NotNegativeInt = 10
    pictures: Count = 8


@dataclass(frozen=True)
class RunCompute:
    """How any run's numbers are computed.

    Args:
        precision: `float32`, `mixed_bfloat16` (recent GPUs), or `mixed_float16` (with loss scaling). Weights, softmax,
            LayerNorm, losses and averages of weights are float32 in all three.
        jit_compile: let XLA compile the networks.
        all_reduce: what sums gradients over devices: `auto` (NCCL between GPUs), `nccl`, `hierarchical` or `one_device`
            on one host, `nccl` or `ring` between hosts.
        deterministic: the same numbers, bit for bit, in every run on the same machine; slower on GPUs.
    """

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: bool = False
    all_reduce: Literal["auto", "nccl", "hierarchical", "one_device", "ring"] = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class ComputeConfig(RunCompute):
    """How pre-training's numbers are computed.

    Args:
        teacher_precision: what the teacher computes in, for instance mixed_bfloat16 beside a float32 student; null: as
            the student.
    """

    teacher_precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] | None = None


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run saves itself; its end and a stop by SIGINT or SIGTERM are always saved.

    Args:
        every_epochs: epochs between two checkpoints; 0: none by epochs.
        every_steps: optimizer steps between two checkpoints; 0: none by steps.
        every_minutes: minutes between two checkpoints; 0: none by the clock.
        keep: how many of the newest stay.
        keep_every: epochs whose multiples' checkpoints stay for ever; 0: none.
        on_failure: when the disk is full or fails, `stop` with the last good checkpoint, or `continue` and try again
            when the next one is due.
    """

    every_epochs: NotNegativeInt = 1
    every_steps: NotNegativeInt = 0
    every_minutes: NotNegative = 0.0
    keep: Count = 2
    keep_every: NotNegativeInt = 0
    on_failure: Literal["stop", "continue"] = "stop"
