"""One linear probe of a frozen encoder as a tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from lut_tf.config.data import DataConfig, check_rising
from lut_tf.config.measuring import check_some
from lut_tf.config.run import RunConfig
from lut_tf.config.training import CheckpointConfig, RunCompute, RunLogging, RunOptimizer, scaled_rate
from lut_tf.config.tree import get_setting, joined, option
from lut_tf.config.types import Count, Decay, NotNegative, Positive, PositiveFraction, show
from lut_tf.errors import told_together

WEIGHT_FILES = (".keras", ".pth", ".pt", ".bin", ".ckpt", ".safetensors")
LARS_ONLY = ("run_dir", "epochs", "seed", "strategy", "devices", "workers", "worker_index",
             "views", "optimizer", "logging", "checkpoint", "compute")  # fmt: skip
"""What the solver `logistic` does not read."""


@dataclass(frozen=True)
class ProbeData(DataConfig):
    """Where the labelled images come from.

    Args:
        holdout: share of the training images that is not trained on but chosen by, so much of every class and always
            the same ones. Where there are no evaluation images, one half of them is chosen by and the other scored on.
    """

    holdout: Decay = 0.05


@dataclass(frozen=True)
class ProbeViews:
    """How training images are cut.

    Args:
        scale: smallest and largest area of the random resized crop.
        flip: flip images horizontally with probability 0.5.
    """

    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    flip: bool = True

    def check(self, name: str) -> None:
        """Refuse a range that starts above its end; see `validate`."""
        check_rising(self.scale, joined(name, "scale"))


@dataclass(frozen=True)
class LarsConfig(RunOptimizer):
    """LARS (momentum 0.9, trust coefficient 0.001, no decay) with warm-up and a half cosine to zero, by step.

    Args:
        accumulate: micro-batches that a step's batch is computed in, one after the other, to save memory; BatchNorm
            takes the statistics of each by itself.
        base_learning_rates: several in one run: each trains a linear layer of its own at the rate base · batch/256 on
            the same features, and the best on images that are held out is the one that is scored. MAE's is 0.1.
    """

    batch_size: Count = 16384
    warmup_epochs: NotNegative = 10.0
    base_learning_rates: tuple[Positive, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

    @property
    def rate_setting(self) -> str:
        """See `RunOptimizer`."""
        return "base_learning_rates"

    @property
    def peaks(self) -> tuple[float, ...]:
        """The rates at the end of the warm-up."""
        return tuple(scaled_rate(base, self.batch_size, "linear") for base in self.base_learning_rates)

    @property
    def peak_learning_rate(self) -> float:
        """The largest of `peaks`."""
        return max(self.peaks)

    def check(self, name: str) -> None:
        """Refuse no rate, and one twice; see `validate`."""
        rates, named = self.base_learning_rates, joined(name, "base_learning_rates")
        check_some(rates, "base_learning_rates", name)
        if len(set(rates)) < len(rates):
            raise ValueError(f"{named}={show(rates)} has a rate twice: give each once")


@dataclass(frozen=True)
class LinearProbeConfig(RunConfig):
    """One linear probe; what any run has is in `RunConfig`.

    Args:
        run_dir: folder of everything the run writes; started again on it, the run goes on from its last checkpoint.
            Left empty, it is `probe` in the encoder's directory, or `NAME_probe` beside its file.
        seed: decides the first weights of the linear layers, the order of the images, crops and flips.
        init_from: the encoder that is measured: a pre-training run's directory, an encoder's .keras file, or weights
            that `lut-tf convert` reads. It stays as it is and is not saved with the run: a run that goes on reads it
            again, and refuses another.
        image_size: side of the square input in pixels, or [height, width]; null takes the encoder's own. Where it is
            another, the positions are resized.
        solver: `lars`, the field's protocol, or `logistic`, for small sets: logistic regression on features of
            images that are not changed; it reads image_size and data alone.
        data: where the labelled images come from.
        views: how training images are cut.
        optimizer: batch and rates.
        logging: TensorBoard.
        checkpoint: saving and going on.
        compute: precision, XLA, determinism.
    """

    run_dir: str = ""
    epochs: Count = 90
    image_size: Count | tuple[Count, Count] | None = None
    solver: Literal["lars", "logistic"] = "lars"
    data: ProbeData = field(default_factory=ProbeData)
    views: ProbeViews = field(default_factory=ProbeViews)
    optimizer: LarsConfig = field(default_factory=LarsConfig)
    logging: RunLogging = field(default_factory=RunLogging)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    compute: RunCompute = field(default_factory=RunCompute)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run_dir == "" and self.init_from and "://" not in self.init_from:
            object.__setattr__(self, "run_dir", _beside(self.init_from))

    def check(self, name: str) -> None:
        """Refuse no encoder, and groups that contradict each other; see `validate`."""
        self.check_encoder("a probe measures an encoder")
        self._check_start()  # without it there is no run directory either
        told_together(lambda: super(LinearProbeConfig, self).check(name), self._check_solver)

    def _check_solver(self) -> None:
        default = LinearProbeConfig(init_from=self.init_from)
        for setting in LARS_ONLY if self.solver == "logistic" else ():
            if get_setting(self, setting) != get_setting(default, setting):
                raise ValueError(f"settings of {setting} are not read by solver=logistic: leave them out")

    @property
    def chooses(self) -> bool:
        """Whether there is something to choose, by images that are neither trained nor scored on."""
        return self.solver == "logistic" or len(self.optimizer.base_learning_rates) > 1

    def check_judges(self, evaluation: bool) -> None:
        """Refuse a choice that no images are held out for, or nothing to score on.

        Args:
            evaluation: whether there are evaluation images beside the training images.

        Raises:
            ValueError: they are.
        """
        part, kind = ("evaluation_split", "PART") if self.data.source == "tfds" else ("evaluation_path", "IMAGES")
        if self.data.holdout:
            return
        if not evaluation:
            raise ValueError(
                f"data.{part}=null and data.holdout=0 leave no images to score on: give {option('data', part)} {kind}, "
                "or --data.holdout 0.1"
            )
        if self.chooses:
            what = "the regularisation" if self.solver == "logistic" else "one of several optimizer.base_learning_rates"
            remedy = "" if self.solver == "logistic" else ", or --optimizer.base_learning_rates 0.1 alone"
            raise ValueError(
                f"data.holdout=0 leaves no images to choose {what} by, and those that are scored on may not choose: "
                f"give --data.holdout 0.05{remedy}"
            )


def _beside(source: str) -> str:
    """Return the run directory of a probe of the encoder at `source`."""
    path = PurePath(source)
    return str(path.with_name(f"{path.stem}_probe") if path.suffix in WEIGHT_FILES else path / "probe")
