"""Which devices and hosts a run uses, as one `tf.distribute` strategy."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from lut_tf.config import RunConfig, check_tf_config

logger = logging.getLogger(__name__)

# What sums gradients between the devices of one host.
ONE_HOST = {
    "nccl": tf.distribute.NcclAllReduce,
    "hierarchical": tf.distribute.HierarchicalCopyAllReduce,
    "one_device": tf.distribute.ReductionToOneDevice,
}


class Host(NamedTuple):
    """This process among those of the run: `number` of `total`; number 0, the chief, writes the files."""

    number: int = 0
    total: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process writes metrics, pictures and encoder."""
        return self.number == 0


def build_strategy(config: RunConfig) -> tf.distribute.Strategy:
    """Choose devices and hosts and return their strategy; to be called before TensorFlow touches a device.

    Args:
        config: its `strategy`, `devices`, `workers`, `worker_index` and `compute` are read.

    Returns:
        TensorFlow's default strategy for one device, a `MirroredStrategy`, or a `MultiWorkerMirroredStrategy`.

    Raises:
        ValueError: fewer devices exist than were asked for, or the hosts are not known.
    """
    if config.compute.deterministic:
        tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if config.strategy == "multi_worker":
        return _several_hosts(config)
    names = _devices(config.strategy, config.devices)
    if config.strategy == "single" or (config.strategy == "auto" and len(names) == 1):
        return tf.distribute.get_strategy()
    # NCCL moves between GPUs; between logical CPU devices a plain sum on one of them does.
    default = "nccl" if "GPU" in names[0] else "one_device"
    reduction = config.compute.all_reduce
    return tf.distribute.MirroredStrategy(
        names, cross_device_ops=ONE_HOST[default if reduction == "auto" else reduction]()
    )


def this_host(strategy: tf.distribute.Strategy) -> Host:
    """Return which of the run's processes this one is."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return Host()
    return Host(resolver.task_id, len(resolver.cluster_spec().job_tasks(resolver.task_type)))


def distribute(
    strategy: tf.distribute.Strategy, dataset: Callable[[Host], tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Return what `fit` takes: the data set of one host, or each host's own share split over its replicas.

    Args:
        strategy: of the run.
        dataset: maps a host to its data set of batches, each that host's share of the global batch.
    """
    host = this_host(strategy)
    if host.total == 1:
        return dataset(host)
    local = strategy.num_replicas_in_sync // host.total

    def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = dataset(Host(context.input_pipeline_id, context.num_input_pipelines))
        size = tf.nest.flatten(batches.element_spec)[0].shape[0]
        return batches.rebatch(size // local, drop_remainder=True)

    return strategy.distribute_datasets_from_function(share)


def _several_hosts(config: RunConfig) -> tf.distribute.Strategy:
    if config.workers is not None:
        cluster = {"worker": config.workers.split(",")}
        task = {"type": "worker", "index": config.worker_index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    else:
        check_tf_config()
    kinds = {"auto": "AUTO", "nccl": "NCCL", "ring": "RING"}
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation[kinds[config.compute.all_reduce]]
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _devices(strategy: str, devices: int | None) -> list[str]:
    """Return the names of the devices to use on this host."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU" and (devices or 1) > 1:
        _split_cpu(devices or 1)
    available = [device.name for device in tf.config.list_logical_devices(kind)]
    wanted = devices or (1 if strategy == "single" or kind == "CPU" else len(available))
    if wanted > len(available):
        raise ValueError(
            f"devices={wanted} but this process has {len(available)} {kind} device(s): give fewer --devices"
        )
    return [name.split("device:")[-1] for name in available[:wanted]]


def _split_cpu(count: int) -> None:
    """Make `count` logical CPU devices, unless TensorFlow already runs with enough of them."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # too late: TensorFlow has started; the caller counts what there is
        logger.debug("TensorFlow runs already with %d CPU devices", len(tf.config.list_logical_devices("CPU")))
    if count > (os.cpu_count() or 1):
        logger.warning("%d logical CPU devices share %d cores", count, os.cpu_count() or 1)
