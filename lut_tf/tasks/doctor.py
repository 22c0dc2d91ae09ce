"""`lut-tf doctor`: what a bug report should say, and whether this machine's devices compute alike."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time

import keras
import numpy as np
import tensorflow as tf

import lut_tf
from lut_tf.config import Config
from lut_tf.methods.lut import LUT
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead
from lut_tf.training.strategy import build_strategy

PACKAGES = ("tensorflow", "keras", "numpy", "onnx", "tf2onnx", "onnxruntime")
VARIABLES = re.compile(r"(TF(?!_CLI)|KERAS|CUDA|NVIDIA|NCCL|XLA|OMP|SLURM_(JOB_ID|NODELIST|NTASKS|PROCID))(_.*)?$")
STEPS, BATCH = 3, 16
TOLERANCE = 1e-4
"""Relative, on losses: GPUs' convolutions and sums round differently from one run to the next; a missing division by
the number of replicas shows in the first digits."""


def report() -> str:
    """Return versions, machine, devices and the environment's relevant variables, a line each."""
    cluster = {"TF_CONFIG": os.environ.get("TF_CONFIG", "not set")}
    environment = {name: value for name, value in sorted(os.environ.items()) if VARIABLES.match(name)}
    gpus = [_describe(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    facts = {
        "python": platform.python_version(),
        "lut_tf": lut_tf.__version__,
        **{name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "CPUs": f"{os.cpu_count()} ({len(os.sched_getaffinity(0))} for this process)",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "GPUs": "; ".join(gpus) or "none",
        **{**environment, **cluster},
    }
    return "\n".join(f"{name + ':':<24}{value}" for name, value in facts.items())


def check_replicas() -> str:
    """Train a tiny LUT for a few SGD steps on one device and on all (two halves of the CPU where there is no GPU).

    Returns:
        A line that begins with `OK`, `FAILED`, or `skipped` (one GPU has nothing to be compared with).
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus == 1:
        return "replicas: skipped, there is one GPU"
    start = time.perf_counter()
    many = build_strategy(Config(strategy="mirrored", devices=gpus or 2))
    one, several = _losses(tf.distribute.get_strategy()), _losses(many)
    difference = float(np.max(np.abs(several - one) / np.abs(one)))
    kind = "GPUs" if gpus else "halves of the CPU"
    verdict = "OK" if difference <= TOLERANCE else "FAILED"  # NaN fails too
    return (
        f"replicas: {verdict}, {STEPS} steps on 1 and on {many.num_replicas_in_sync} {kind}: the losses differ by "
        f"{difference:.1e} of their size ({TOLERANCE:g} is allowed; {time.perf_counter() - start:.0f} s)"
    )


def _losses(strategy: tf.distribute.Strategy) -> np.ndarray:
    keras.utils.set_random_seed(0)
    batch, random = _batch_size(), np.random.default_rng(0)
    images = {f"view{i}": random.normal(size=(STEPS * batch, 16, 16, 3)).astype("float32") for i in (1, 2)}
    data = tf.data.Dataset.from_tensor_slices({**images, "noise": random.random((STEPS * batch, 16), dtype="float32")})
    with strategy.scope():
        encoder = ViTEncoder(image_size=16, patch_size=4, width=32, depth=1, heads=4)
        heads = {name: MLPHead(32, 32, name=name) for name in ("projector", "predictor")}
        model = LUT(encoder, PixelDecoder(encoder.grid, 4, 32, 16, 1, 4), **heads)
        model.compile(keras.optimizers.SGD(0.1))  # AdamW would hide a gradient of the wrong scale
    seen: list[float] = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(float(logs["loss"])))
    model.fit(data.batch(batch, drop_remainder=True), verbose=0, shuffle=False, callbacks=[record])
    return np.array(seen)


def _batch_size() -> int:
    """Return a batch that all GPUs can share evenly."""
    devices = len(tf.config.list_physical_devices("GPU")) or 2
    return devices * max(2, BATCH // devices)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _describe(gpu: tf.config.PhysicalDevice) -> str:
    details = tf.config.experimental.get_device_details(gpu)
    capability = ".".join(map(str, details.get("compute_capability", ("?",))))
    return f"{details.get('device_name', gpu.name)} (compute capability {capability})"
