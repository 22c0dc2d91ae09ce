"""What every task's configuration begins with: where it writes, how long, on which devices and hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lut_tf.config.tree import get_setting, settings_of
from lut_tf.config.types import Count, NotNegativeInt, Seed, show

if TYPE_CHECKING:
    from lut_tf.config.data import DataConfig
    from lut_tf.config.training import CheckpointConfig, ComputeConfig, LoggingConfig, OptimizerConfig

# What may change when a run is started again on its directory: nothing here alters what is learned.
MAY_DIFFER = (
    "run_dir",
    "strategy",
    "devices",
    "workers",
    "worker_index",
    "logging",
    "checkpoint",
    "probe",
    "compute.jit_compile",
    "compute.all_reduce",
    "optimizer.max_bad_steps",
    "data.parallel_calls",
    "data.damaged_share",
)

# What runs did before there was a setting of `data`, where that is not its default: a run begun without it goes on so.
DATA_BEFORE = {"apply_exif": False}


@dataclass(frozen=True)
class RunConfig:
    """The settings of any run that do not depend on its task; see the tasks' own for their meaning."""

    run_dir: str = "runs/lut"
    epochs: Count = 400
    seed: Seed = 0
    strategy: Literal["auto", "single", "mirrored", "multi_worker"] = "auto"
    devices: Count | None = None
    workers: str | None = None
    worker_index: NotNegativeInt | None = None

    if TYPE_CHECKING:  # the groups that every task has beside its own; each declares them in its own order

        @property
        def data(self) -> DataConfig: ...  # noqa: D102

        @property
        def optimizer(self) -> OptimizerConfig: ...  # noqa: D102

        @property
        def logging(self) -> LoggingConfig: ...  # noqa: D102

        @property
        def checkpoint(self) -> CheckpointConfig: ...  # noqa: D102

        @property
        def compute(self) -> ComputeConfig: ...  # noqa: D102

    def check(self, name: str) -> None:
        """Refuse a run directory, a schedule, devices and hosts that contradict each other; see `validate`."""
        if not self.run_dir.strip():
            raise ValueError("run_dir='' is empty: give --run_dir FOLDER")
        warmup = self.optimizer.warmup_epochs
        if warmup > self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs={show(warmup)} is longer than the run of epochs={self.epochs}: "
                f"give --optimizer.warmup_epochs {self.epochs} or less, or more --epochs"
            )
        if self.strategy == "single" and self.devices is not None and self.devices > 1:
            raise ValueError(
                f"devices={self.devices} contradicts strategy=single: give --strategy mirrored, or leave devices out"
            )
        # Where `devices` is null the number is known once TensorFlow has started: the run asks again then.
        self.check_replicas(self.devices if self.devices is not None and self.strategy != "single" else 1)
        self._check_hosts()

    def check_replicas(self, replicas: int) -> None:
        """Refuse a batch that cannot be shared out evenly over `replicas` devices and the micro-batches.

        Raises:
            ValueError: the batch is not a multiple of replicas × accumulate.
        """
        batch, accumulate = self.optimizer.batch_size, self.optimizer.accumulate
        shares = replicas * accumulate
        if batch % shares:
            nearest = max(shares, round(batch / shares) * shares)
            raise ValueError(
                f"optimizer.batch_size={batch} cannot be shared evenly by {replicas} device(s) × "
                f"optimizer.accumulate={accumulate}: give a multiple of {shares}, for instance "
                f"--optimizer.batch_size {nearest}"
            )

    def check_images(self, images: int) -> None:
        """Refuse a batch that is larger than the data set.

        Raises:
            ValueError: it is.
        """
        check_batch_size(self.optimizer.batch_size, images)

    def _check_hosts(self) -> None:
        several, reduction = self.strategy == "multi_worker", self.compute.all_reduce
        if not several and (self.workers is not None or self.worker_index is not None):
            raise ValueError(f"workers={self.workers!r} is for several hosts: give --strategy multi_worker too")
        if several and self.devices is not None:
            raise ValueError(
                f"devices={self.devices} is for one host: leave it out, strategy=multi_worker uses every GPU of each "
                "host"
            )
        if several and self.workers is not None:
            count = len(self.workers.split(","))
            if self.worker_index is None or self.worker_index >= count:
                raise ValueError(
                    f"worker_index={self.worker_index} is none of the {count} workers: "
                    f"give --worker_index 0 to {count - 1}, another to each"
                )
        if reduction not in (("auto", "nccl", "ring") if several else ("auto", "nccl", "hierarchical", "one_device")):
            raise ValueError(
                f"compute.all_reduce={reduction} does not go with strategy={self.strategy}: "
                f"give --compute.all_reduce auto"
            )

    def identity(self) -> str:
        """Return as text all the settings that must be the same wherever, and whenever, a run goes on."""
        names = (name for name, _ in settings_of(type(self)) if not may_differ(name))
        return "\n".join(f"{name}={get_setting(self, name)!r}" for name in names)


def check_batch_size(batch_size: int, images: int) -> None:
    """Refuse a batch that is larger than the data set.

    Raises:
        ValueError: it is.
    """
    if batch_size > images:
        raise ValueError(
            f"optimizer.batch_size={batch_size} is larger than the data set of {images} training images: "
            f"give --optimizer.batch_size {images} or less"
        )


def may_differ(name: str) -> bool:
    """Tell whether a setting may change when a run is started again on its directory."""
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_DIFFER)
