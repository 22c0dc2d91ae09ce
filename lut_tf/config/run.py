"""What every task's configuration begins with: where it writes, how long, on which devices and hosts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lut_tf.config.tree import get_setting, settings_of, spell_paths_out
from lut_tf.config.types import Count, NotNegativeInt, Seed, show
from lut_tf.errors import told_together
from lut_tf.paths import check_path

if TYPE_CHECKING:
    from lut_tf.config.data import DataConfig
    from lut_tf.config.training import CheckpointConfig, RunCompute, RunLogging, RunOptimizer

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
    "data.evaluation_path",
    "data.evaluation_split",
)

COMPARED_BY_IMAGES = ("data.path",)
"""Settings that say where images lie: a run goes on wherever the same ones do (see `training.run_directory`)."""


HOST = re.compile(r"[^\s:/,]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}")  # host:port, or [IPv6]:port
# What runs did before there was a setting of `data`, where that is not its default: a run begun without it goes on so.
DATA_BEFORE = {"apply_exif": False}


@dataclass(frozen=True)
class RunConfig:
    """The settings of any run that do not depend on its task.

    Args:
        run_dir: folder of everything the run writes; started again on it, the run goes on from its last checkpoint.
        epochs: passes over the training images.
        seed: decides everything random: first weights, the order of the images, and what is done to them.
        strategy: `single` device, `mirrored` over several, `multi_worker` over several hosts, or `auto` (mirrored where
            more than one device is used, else single).
        devices: GPUs to use, or the number of logical CPU devices where there is no GPU; null takes every GPU, or one
            CPU device.
        workers: the hosts of `multi_worker`, as host:port,host:port, the same in each process; null reads TF_CONFIG.
        worker_index: this process' place among the workers, from 0.
    """

    run_dir: str = "runs/lut"
    epochs: Count = 400
    seed: Seed = 0
    strategy: Literal["auto", "single", "mirrored", "multi_worker"] = "auto"
    devices: Count | None = None
    workers: str | None = None
    worker_index: NotNegativeInt | None = None
    init_from: str | None = None

    if TYPE_CHECKING:  # the groups that every task has beside its own; each declares them in its own order

        @property
        def data(self) -> DataConfig: ...  # noqa: D102

        @property
        def optimizer(self) -> RunOptimizer: ...  # noqa: D102

        @property
        def logging(self) -> RunLogging: ...  # noqa: D102

        @property
        def checkpoint(self) -> CheckpointConfig: ...  # noqa: D102

        @property
        def compute(self) -> RunCompute: ...  # noqa: D102

    def __post_init__(self) -> None:
        spell_paths_out(self, "run_dir", "init_from")

    def check(self, name: str) -> None:
        """Refuse a run directory, a schedule, devices and hosts that contradict each other; see `validate`."""
        told_together(
            self._check_run_dir, self._check_schedule, self._check_devices, self._check_hosts, self._check_start
        )

    def _check_run_dir(self) -> None:
        if not self.run_dir.strip():
            raise ValueError("run_dir='' is empty: give --run_dir FOLDER")
        if "://" in self.run_dir:
            raise ValueError(
                f"run_dir={self.run_dir!r} is not on this machine: give --run_dir a local or mounted folder"
            )
        check_path("run_dir", self.run_dir)

    def _check_schedule(self) -> None:
        warmup = self.optimizer.warmup_epochs
        if warmup > self.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs={show(warmup)} is longer than the run of epochs={self.epochs}: "
                f"give --optimizer.warmup_epochs {self.epochs} or less, or more --epochs"
            )

    def _check_devices(self) -> None:
        if self.strategy == "single" and self.devices is not None and self.devices > 1:
            raise ValueError(
                f"devices={self.devices} contradicts strategy=single: give --strategy mirrored, or leave devices out"
            )
        # Where `devices` is null the number is known once TensorFlow has started: the run asks again then.
        self.check_replicas(self.devices if self.devices is not None and self.strategy != "single" else 1)

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

    def _check_start(self) -> None:
        if self.init_from is not None and not self.init_from.strip():
            raise ValueError("init_from='' is empty: give --init_from a run directory or a file, or leave it out")
        if self.init_from is not None:
            check_path("init_from", self.init_from)

    def check_encoder(self, why: str) -> None:
        """Refuse a task without the encoder that it is about.

        Args:
            why: it needs one, in words.

        Raises:
            ValueError: there is none.
        """
        if self.init_from is None:
            raise ValueError(
                f"init_from=null, but {why}: give --init_from a pre-training run's directory, an encoder's .keras file "
                "or other people's weights"
            )

    def _check_hosts(self) -> None:
        told_together(self._check_workers, self._check_reduction)

    def _check_workers(self) -> None:
        several = self.strategy == "multi_worker"
        if not several and (self.workers is not None or self.worker_index is not None):
            raise ValueError(f"workers={self.workers!r} is for several hosts: give --strategy multi_worker too")
        if several and self.devices is not None:
            raise ValueError(
                f"devices={self.devices} is for one host: leave it out, strategy=multi_worker uses every GPU of each "
                "host"
            )
        if several and self.workers is not None:
            hosts = self.workers.split(",")
            if odd := [host for host in hosts if not HOST.fullmatch(host)]:
                raise ValueError(
                    f"workers={show(self.workers)} names {odd[0]!r}, which is not of the form host:port: "
                    "give --workers host:port,host:port"
                )
            count = len(hosts)
            if self.worker_index is None or self.worker_index >= count:
                raise ValueError(
                    f"worker_index={self.worker_index} is none of the {count} workers: "
                    f"give --worker_index 0 to {count - 1}, another to each"
                )

    def _check_reduction(self) -> None:
        several, reduction = self.strategy == "multi_worker", self.compute.all_reduce
        if reduction not in (("auto", "nccl", "ring") if several else ("auto", "nccl", "hierarchical", "one_device")):
            raise ValueError(
                f"compute.all_reduce={reduction} does not go with strategy={self.strategy}: "
                f"give --compute.all_reduce auto"
            )

    def identity(self) -> str:
        """Return as text all the settings that all hosts must share.

        Where images and first weights lie is left out: they are compared themselves.
        """
        places = (*COMPARED_BY_IMAGES, "init_from")
        names = (name for name, _ in settings_of(type(self)) if not may_differ(name) and name not in places)
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


def check_tf_config() -> None:
    """Refuse a variable `TF_CONFIG` that does not say which hosts a run of several has and which this one is.

    Raises:
        ValueError: it is not set, no JSON, or lacks the hosts (`cluster`) or this one's place (`task`).
    """
    text = os.environ.get("TF_CONFIG")
    if text is None:
        raise ValueError(
            "strategy='multi_worker' does not know the hosts: give --workers host:port,host:port and --worker_index N "
            "to each, or set TF_CONFIG"
        )
    try:
        wrong = _wrong_with_hosts(json.loads(text))
    except (ValueError, RecursionError) as error:
        wrong = f"is no JSON ({error})"
    if wrong:
        raise ValueError(
            f"TF_CONFIG={show(text)} {wrong}: set it to "
            '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}, '
            "or give --workers and --worker_index"
        )


def _wrong_with_hosts(said: Any) -> str:
    """Return what is wrong with the JSON of `TF_CONFIG`, or nothing."""
    if not isinstance(said, Mapping):
        return "is no object"
    for part in ("cluster", "task"):
        if not isinstance(said.get(part), Mapping):
            return f"has no object {part}"
    kind, index = said["task"].get("type"), said["task"].get("index")
    hosts = said["cluster"].get(kind) if isinstance(kind, str) else None
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        return f"has no list of hosts for its task's type {kind!r}"
    if type(index) is not int or not 0 <= index < len(hosts):
        return f"has the task's index {index!r}, which is none of its {len(hosts)} hosts"
    return ""


def may_differ(name: str) -> bool:
    """Tell whether a setting may change when a run is started again on its directory."""
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_DIFFER)
