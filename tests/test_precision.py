"""Lower precisions train to the same losses and probes: within what another seed changes in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import lines, small

from lut_tf.tasks.pretrain import pretrain

PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "mixed_bfloat16": {"compute__precision": "mixed_bfloat16"},
    "mixed_float16": {"compute__precision": "mixed_float16"},
    "float32, teacher mixed_bfloat16": {"compute__teacher_precision": "mixed_bfloat16"},
}
SEEDS = (0, 1, 2)
SETTINGS: dict[str, Any] = {
    "epochs": 8,
    "encoder__width": 32,
    "decoder__width": 32,
    "method__head__hidden": 64,
    "optimizer__batch_size": 64,
    "probe__every": 0,
    "probe__images": 10_000,
    "logging__tensorboard": False,
    "checkpoint__every_epochs": 0,
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Final losses (loss, reconstruction, context) and probes (k-NN, linear), a row for each seed, by precision."""
    table = {}
    for name, precision in PRECISIONS.items():
        rows = []
        for seed in SEEDS:
            run_dir = tmp_path_factory.mktemp("precision")
            result = pretrain(small(Path(run_dir), seed=seed, **SETTINGS, **precision))
            last, probes = lines(Path(run_dir))[-1], result.probes["trained encoder"]
            rows.append([last["loss"], last["reconstruction"], last["context"], probes["knn"], probes["linear"]])
        table[name] = np.array(rows)
        print(f"{name:<34}", " ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(*summary(table[name]), strict=True)))
    return table


def summary(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=0), rows.std(axis=0, ddof=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRECISIONS if name != "float32"])
def test_losses_and_probes_lie_within_the_spread_of_float32s_seeds(measured: dict[str, np.ndarray], name: str) -> None:
    """The mean over the seeds lies between the worst and the best float32 seed, for every figure."""
    exact, lower = measured["float32"], measured[name].mean(axis=0)
    assert (exact.min(axis=0) <= lower).all()
    assert (lower <= exact.max(axis=0)).all()


@pytest.mark.slow
def test_the_precisions_are_really_others(measured: dict[str, np.ndarray]) -> None:
    losses = {name: tuple(rows[:, 0]) for name, rows in measured.items()}
    assert len(set(losses.values())) == len(PRECISIONS)
