"""Which devices a run uses, as one `tf.distribute` strategy."""

from __future__ import annotations

import logging
import os

import tensorflow as tf

logger = logging.getLogger(__name__)


def build_strategy(strategy: str, devices: int | None) -> tf.distribute.Strategy:
    """Choose the devices and return their strategy; the first call of a process decides the logical CPU devices.

    Args:
        strategy: `single`, `mirrored`, or `auto` (mirrored where more than one device is used).
        devices: GPUs to use, or logical CPU devices where there is no GPU; None takes every GPU, or one CPU device.

    Returns:
        TensorFlow's default strategy for one device, or a `MirroredStrategy`.

    Raises:
        ValueError: fewer devices exist than were asked for.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "GPU":
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    elif (devices or 1) > 1:
        _split_cpu(devices or 1)
    available = [device.name for device in tf.config.list_logical_devices(kind)]
    wanted = devices or (1 if strategy == "single" or kind == "CPU" else len(available))
    if wanted > len(available):
        raise ValueError(
            f"devices={wanted} but this process has {len(available)} {kind} device(s): give fewer --devices"
        )
    if strategy == "single" or (strategy == "auto" and wanted == 1):
        return tf.distribute.get_strategy()
    names = [name.split("device:")[-1] for name in available[:wanted]]
    # NCCL moves between GPUs; between logical CPU devices the plain hierarchical copy does.
    ops = None if kind == "GPU" else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(names, cross_device_ops=ops)


def _split_cpu(count: int) -> None:
    """Make `count` logical CPU devices, unless TensorFlow already runs with enough of them."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # too late: TensorFlow has started; the caller counts what there is
        logger.debug("TensorFlow runs already with %d CPU devices", len(tf.config.list_logical_devices("CPU")))
    if count > (os.cpu_count() or 1):
        logger.warning("%d logical CPU devices share %d cores", count, os.cpu_count() or 1)
