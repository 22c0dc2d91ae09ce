"""What every test sees: two logical CPU devices, a quiet TensorFlow, fixed seeds, and the golden numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported, so it comes first
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's and SciPy's threads would wait for cores that others use

import keras
import numpy as np
import pytest
import tensorflow as tf

GOLDEN = Path(__file__).parent / "golden"


def two_cpu_devices() -> None:
    """Split the CPU in two; it can only be done before anything runs on a device."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


two_cpu_devices()

# Files of whole processes and runs take long for few tests: begun last they would keep one worker busy alone.
LONGEST = ("test_kills", "test_hosts", "test_run", "test_pretrain", "test_settings", "test_fit", "test_doctor")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file stays."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seed Python, NumPy and TensorFlow alike before each test, so that their order does not matter."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Return a function from a name to the arrays of `tests/golden/<name>.npz`."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Put a recorder in the place of `pretrain`, and the working directory somewhere empty."""
    runs: list[Any] = []
    pretrain = ModuleType("lut_tf.tasks.pretrain")

    def record(config: Any, listing: Any) -> SimpleNamespace:
        runs.append(config)
        return SimpleNamespace(summary=lambda: "a table")

    pretrain.pretrain = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lut_tf.tasks.pretrain", pretrain)
    monkeypatch.chdir(tmp_path)
    return runs
