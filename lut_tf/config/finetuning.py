"""One fine-tuning run as a tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lut_tf.config.data import DataConfig, FinetuneViews
from lut_tf.config.networks import sides
from lut_tf.config.run import RunConfig
from lut_tf.config.training import CheckpointConfig, OptimizerConfig, RunCompute, RunLogging
from lut_tf.config.types import Count, Decay, NotNegative, Positive, PositiveFraction, show
from lut_tf.errors import told_together


@dataclass(frozen=True)
class ClassifierConfig:
    """What is made of the encoder.

    Args:
        pooling: `mean` of the patch tokens, with a norm of its own (LUT, MAE), or `cls`, the class token.
        drop_path: how often the last block's attention and MLP are left out in training; earlier blocks' less, the
            first's never.
        image_size: side of the square input in pixels, or [height, width]; null takes the encoder's own. Where it is
            another, the positions are resized.
        ema: share of itself that an average of the weights keeps at each step (0.9999); the average is then what is
            measured and kept. 0: none.
    """

    pooling: Literal["mean", "cls"] = "mean"
    drop_path: Decay = 0.1
    image_size: Count | tuple[Count, Count] | None = None
    ema: Decay = 0.0

    def check_encoder(self, patch_size: int, has_class_token: bool, source: str) -> None:
        """Refuse an encoder that cannot take the input size, or has no class token to pool.

        Args:
            patch_size: of the encoder, in pixels.
            has_class_token: whether it has one.
            source: where it is from.

        Raises:
            ValueError: it cannot.
        """
        both = () if self.image_size is None else sides(self.image_size)
        if any(side % patch_size for side in both):
            fitting = [max(1, round(side / patch_size)) * patch_size for side in both]
            nearest = show(fitting[0] if isinstance(self.image_size, int) else fitting).replace(" ", "")
            raise ValueError(
                f"classifier.image_size={show(self.image_size)} is not a multiple of {patch_size}, the patch size of "
                f"init_from={source!r}: give --classifier.image_size {nearest}"
            )
        if self.pooling == "cls" and not has_class_token:
            raise ValueError(
                f"classifier.pooling=cls needs a class token, and the encoder of init_from={source!r} has none: give "
                "--classifier.pooling mean"
            )


@dataclass(frozen=True)
class FinetuneOptimizer(OptimizerConfig):
    """AdamW whose rate falls from layer to layer towards the input, warm-up and half cosine by optimizer step.

    Args:
        rate_rule: `finetune` (LUT: base · sqrt(batch)/8), `sqrt` (base · sqrt(batch)/4), `linear` (MAE: base ·
            batch/256) or `none` (base itself).
        weight_decay: decoupled decay of everything that is neither a bias nor one-dimensional, nor the class token,
            nor a position.
        layer_decay: a layer's rate as a share of that of the layer above it; 1: the same for all.
        minimum_learning_rate: the rate, before layers have their share, that the cosine ends at.
    """

    batch_size: Count = 1024
    base_learning_rate: Positive = 1e-3
    rate_rule: Literal["finetune", "sqrt", "linear", "none"] = "finetune"  # type: ignore[assignment]
    warmup_epochs: NotNegative = 5.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    layer_decay: PositiveFraction = 0.75
    minimum_learning_rate: NotNegative = 1e-6


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """One fine-tuning run; what any run has is in `RunConfig`.

    Args:
        seed: decides the head's first weights, the order of the images, what is done to them, and drop path.
        init_from: the encoder to begin with: a pre-training run's directory, an encoder's .keras file, or weights that
            `lut-tf convert` reads. A run that goes on does not read it again.
        data: where the labelled images come from.
        views: what is done to training images.
        classifier: pooling, drop path, input size, average of the weights.
        optimizer: batch, rate and decay.
        logging: TensorBoard.
        checkpoint: saving and going on.
        compute: precision, XLA, determinism.
    """

    run_dir: str = "runs/finetune"
    epochs: Count = 100
    data: DataConfig = field(default_factory=DataConfig)
    views: FinetuneViews = field(default_factory=FinetuneViews)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    optimizer: FinetuneOptimizer = field(default_factory=FinetuneOptimizer)
    logging: RunLogging = field(default_factory=RunLogging)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    compute: RunCompute = field(default_factory=RunCompute)

    def check(self, name: str) -> None:
        """Refuse no encoder, and groups that contradict each other; see `validate`."""
        told_together(
            lambda: super(FinetuneConfig, self).check(name),
            lambda: self.check_encoder("fine-tuning begins with an encoder"),
        )
