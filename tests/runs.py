"""Small runs on the digits, in this process and as commands, for the tests of whole runs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lut_tf.config import Config, FinetuneConfig, from_yaml

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
SMALLEST = {
    "epochs": 2,
    "encoder__width": 16,
    "encoder__depth": 1,
    "decoder__width": 16,
    "decoder__depth": 1,
    "method__head__hidden": 16,
    "optimizer__warmup_epochs": 1.0,
    "optimizer__batch_size": 128,
    "probe__every": 1,
    "probe__images": 200,
    "logging__pictures": 2,
}

SMALLEST_FINETUNING = {
    "epochs": 2,
    "classifier__drop_path": 0.4,
    "classifier__ema": 0.6,
    "views__operations": 0,
    "optimizer__warmup_epochs": 1.0,
    "optimizer__batch_size": 256,
    "optimizer__base_learning_rate": 5e-3,
    "logging__tensorboard": False,
}


def small(run_dir: Path, **settings: Any) -> Config:
    """The digits' recipe, smaller; settings are dotted names with `__` for the dot."""
    config = from_yaml((CONFIGS / "digits.yaml").read_text(encoding="utf-8"))
    for name, value in {"run_dir": str(run_dir), **SMALLEST, **settings}.items():
        config = replaced(config, name.split("__"), value)
    return config


def small_finetuning(run_dir: Path, encoder: Path, **settings: Any) -> FinetuneConfig:
    """Fine-tuning on the digits, four steps an epoch, with drop path, an average, mixing and erasing."""
    config: Any = FinetuneConfig(run_dir=str(run_dir), init_from=str(encoder))
    for name, value in {**SMALLEST_FINETUNING, **settings}.items():
        config = replaced(config, name.split("__"), value)
    return config


def replaced(node: Any, path: list[str], value: Any) -> Any:
    new = replaced(getattr(node, path[0]), path[1:], value) if len(path) > 1 else value
    return dataclasses.replace(node, **{path[0]: new})


def has_saved(run_dir: Path) -> None:
    """Put the folder of a checkpoint, empty, where a run would have saved one."""
    (run_dir / "checkpoints" / "step_00000001").mkdir(parents=True)


def command(run_dir: Path, **settings: Any) -> list[str]:
    """The command of the same run."""
    words = [sys.executable, str(ROOT / "train_lut.py"), "--config", str(CONFIGS / "digits.yaml")]
    for name, value in {"run_dir": str(run_dir), **SMALLEST, **settings}.items():
        words += [f"--{name.replace('__', '.')}", str(value).lower() if isinstance(value, bool) else str(value)]
    return words


def start(run_dir: Path, **settings: Any) -> subprocess.Popen[str]:
    """Start the run as a process of its own, its output in a pipe."""
    return start_words(command(run_dir, **settings))


def start_words(words: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def learned_lines(run_dir: Path) -> list[dict[str, float]]:
    """The lines without what the clock says."""
    clock = ("seconds", "images_per_second")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines(run_dir)]


def weights(run_dir: Path) -> dict[str, np.ndarray]:
    """Every array of the run's `model.weights.h5`."""
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(run_dir / "model.weights.h5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def assert_same_run(expected: Path, found: Path) -> None:
    """Weights equal bit for bit, the same metrics, each line once."""
    a, b = weights(expected), weights(found)
    assert a.keys() == b.keys()
    assert len(a) > 20
    different = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert not different, different
    assert learned_lines(expected) == learned_lines(found)


def checkpointed(run_dir: Path) -> list[int]:
    """Steps of the checkpoints that count."""
    return sorted(int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step_*"))
