"""Keras' other backends: networks and losses are written for all, and one that is not TensorFlow computes them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# Without TensorFlow, as where it is not installed: whoever looks for it finds nothing.
LOSSES = """
import sys


class WithoutTensorFlow:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [WithoutTensorFlow(finder) for finder in sys.meta_path]
sys.path[:0] = sys.argv[1:]

import ast

import keras
import numpy as np

from lut_tf.interop import load_reference

assert keras.backend.backend() == "torch"
with np.load(f"{sys.argv[1]}/golden/lut_tiny.npz", allow_pickle=False) as file:
    arrays = dict(file)
config = ast.literal_eval(str(arrays["config"]))


def group(prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


model = load_reference(
    group("init/student/"),
    teacher=group("init/teacher/"),
    num_heads=config["num_heads"],
    decoder_num_heads=config["decoder_num_heads"],
    head_norm={"BN": "batch", "LN": "layer"}[config["head_norm"]],
    head_activation=config["head_act"].lower(),
    mask_ratio=config["mask_ratio"],
    norm_pix_loss=config["norm_pix_loss"],
    context_weight=config["w_bc"],
)
noise = np.argsort(arrays["step0/shuffle"], axis=1).astype("float32")
batch = {"view1": arrays["step0/view1"], "view2": arrays["step0/view2"], "noise": noise}
losses = model.compute_losses({name: keras.ops.convert_to_tensor(x) for name, x in batch.items()}, training=True)
for ours, theirs in (("reconstruction", "reconstruction"), ("context", "context"), ("total", "total")):
    np.testing.assert_allclose(float(losses[ours]), arrays[f"step0/loss_{theirs}"], rtol=1e-5)
try:
    model.compile(keras.optimizers.SGD(0.1))
except ValueError as refusal:
    print(refusal)
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_computes_the_golden_losses_without_tensorflow() -> None:
    """1e-5 relative at step 0 of the reference program's numbers; training is refused, and the line says what to do."""
    ended = subprocess.run(
        [sys.executable, "-c", LOSSES, str(TESTS), str(TESTS.parent)],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "KERAS_BACKEND=torch does not train: set KERAS_BACKEND=tensorflow"
