"""One process of the equality tests: trains a few small LUTs, each on some devices or hosts, and writes what came out.

    python tests/replicas_worker.py OUT.npz CASES.json [--workers host:port,host:port --index N]

A case is `{"name", "replicas", "optimizer", …}`, see `Case`. Several cases share a process because starting TensorFlow
takes longer than training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from networks import tiny_decoder, tiny_encoder, tiny_lut

from lut_tf import LUT, CosineMomentum
from lut_tf.config import Config, ViewsConfig
from lut_tf.data import digits, pretraining_dataset
from lut_tf.training.optimizer import adamw
from lut_tf.training.strategy import Host, build_strategy, distribute


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained on what.

    Attributes:
        name: prefix of the arrays.
        replicas: devices of this host; with several hosts each has one, and this is not read.
        optimizer: `sgd`, with a momentum so that the gradients can be read off, or `adamw`.
        norm: of the heads.
    """

    name: str
    replicas: int = 1
    optimizer: str = "sgd"
    accumulate: int = 1
    clip_norm: float = 0.0
    jit_compile: bool = False
    max_bad_steps: int = 0
    norm: str = "batch"
    steps: int = 10


class Record(keras.callbacks.Callback):
    """Keeps every step's losses, and the first step's gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[list[float]] = []
        self.gradients: dict[str, np.ndarray] = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.losses.append([float(np.squeeze(logs[name])) for name in ("loss", "reconstruction", "context")])
        if batch == 0:
            slots = self.model.optimizer.variables if self.model.optimizer.name == "sgd" else []
            self.gradients = {f"gradient {v.path}": v.numpy() for v in slots if "momentum" in v.path}


def model_of(case: Case) -> LUT:
    keras.utils.set_random_seed(1)
    encoder = tiny_encoder(name="encoder")
    decoder = tiny_decoder(encoder, name="decoder")
    model = tiny_lut(encoder, decoder=decoder, norm=case.norm, momentum=CosineMomentum(0.9, case.steps), name="lut")
    optimizer = (
        keras.optimizers.SGD(0.05, momentum=0.9, name="sgd") if case.optimizer == "sgd" else adamw(3e-4, model=model)
    )
    model.compile(optimizer, case.accumulate, case.clip_norm, case.jit_compile, case.max_bad_steps)
    return model


def batches(case: Case, model: LUT, host: Host) -> tf.data.Dataset:
    return pretraining_dataset(
        digits("train"),
        batch_size=64,
        image_size=16,
        views=ViewsConfig(),
        seed=3,
        steps=case.steps,
        noise_length=model.noise_length,
        host=host.number,
        hosts=host.total,
    )


def train(case: Case, strategy: tf.distribute.Strategy) -> dict[str, Any]:
    with strategy.scope():
        model = model_of(case)
    record = Record()
    data = distribute(strategy, partial(batches, case, model))
    model.fit(data, steps_per_epoch=case.steps, verbose=0, shuffle=False, callbacks=[record])
    found = {f"variable {v.path}": v.numpy() for v in model.variables}
    return {"losses": np.array(record.losses), **found, **record.gradients}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("cases")
    parser.add_argument("--workers")
    parser.add_argument("--index", type=int)
    arguments = parser.parse_args()
    cases = [Case(**case) for case in json.loads(arguments.cases)]
    hosts = None
    if arguments.workers:
        hosts = build_strategy(Config(strategy="multi_worker", workers=arguments.workers, worker_index=arguments.index))
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        count = max(case.replicas for case in cases)
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    results = {}
    for case in cases:
        strategy = hosts or build_strategy(
            Config(strategy="mirrored" if case.replicas > 1 else "single", devices=case.replicas)
        )
        results |= {f"{case.name}/{name}": value for name, value in train(case, strategy).items()}
    np.savez(arguments.out, **results)


if __name__ == "__main__":
    main()
