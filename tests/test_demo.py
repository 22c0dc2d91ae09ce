"""The demo's promise, over three seeds: what `make demo` learns on the digits is worth something."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lut_tf.config import from_yaml
from lut_tf.tasks.pretrain import pretrain

RECIPE = Path(__file__).parent.parent / "configs" / "digits.yaml"


@pytest.mark.slow
def test_the_digits_recipe_beats_the_random_encoder(tmp_path: Path) -> None:
    """Mean of three seeds on the held-out images: k-NN at least 0.10, linear at least 0.03 above the untrained one."""
    config = from_yaml(RECIPE.read_text(encoding="utf-8"))
    gains = []
    for seed in range(3):
        run = dataclasses.replace(config, seed=seed, run_dir=str(tmp_path / str(seed)))
        probes = pretrain(run).probes
        gains.append([probes["trained encoder"][name] - probes["random encoder"][name] for name in ("knn", "linear")])
    knn, linear = np.mean(gains, axis=0)
    assert knn >= 0.10
    assert linear >= 0.03
