"""Whatever bit of a run directory's small files is flipped, and wherever they are cut: the run goes on, or one line.

Up to the point where training would go on; hundreds of cases a file kind, all drawn from one seed.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import small

from lut_tf.analysis.curves import draw_curves
from lut_tf.cli.program import _is_users
from lut_tf.errors import Stopped
from lut_tf.evaluate.probe import table
from lut_tf.step import TrainableModel
from lut_tf.tasks import pretrain as task
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.callbacks import MetricsLog, TrainingClock
from lut_tf.training.plan import Plan

SETTINGS: dict[str, Any] = {"checkpoint__every_steps": 6, "checkpoint__keep": 3, "probe__queries": 50}
CASES = 60  # of each file


class Enough(Exception):
    """Ends a run where it would train."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has two checkpoints, of the first epoch and before, and is not through."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    pretrain(small(run_dir, epochs=1, **SETTINGS))
    text = (run_dir / "config.yaml").read_text().replace("epochs: 1\n", "epochs: 2\n", 1)
    (run_dir / "config.yaml").write_text(text)
    for name in ("encoder.keras", "model.weights.h5"):
        (run_dir / name).unlink()
    return run_dir


def damaged(whole: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Say and make what may happen to a file: a flipped bit, an end cut off, zeros, an emptied file, bytes doubled."""
    yield "empty", b""
    yield "zeros", bytes(len(whole))
    for _ in range(CASES // 3):
        at = chance.randrange(len(whole))
        yield f"cut at {at}", whole[:at]
    for _ in range(CASES // 3):
        at, bit = chance.randrange(len(whole)), chance.randrange(8)
        yield f"bit {bit} of {at}", whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    for _ in range(CASES // 3):
        at, length = chance.randrange(len(whole)), chance.randrange(1, 64)
        yield f"{length} bytes at {at} again", whole[: at + length] + whole[at:]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Return a function that begins a run, up to its training, and says how that ended; the model is built once."""
    built: list[Any] = []
    compiled, measured = task._compiled, {"knn": 0.5, "linear": 0.5}

    def once(*arguments: Any) -> Any:
        return built[0] if built else built.append(compiled(*arguments)) or built[0]

    def fit(model: Any, *arguments: Any, **options: Any) -> None:
        raise Enough

    monkeypatch.setattr(task, "_compiled", once)
    monkeypatch.setattr(TrainableModel, "fit", fit)
    monkeypatch.setattr("lut_tf.training.run.check_agreement", lambda *arguments: None)
    for name in ("pixel_probe", "encoder_probe"):
        monkeypatch.setattr(f"lut_tf.evaluate.probe.{name}", lambda *arguments: measured)

    def begin(run_dir: Path) -> str:
        try:
            pretrain(small(run_dir, epochs=2, **SETTINGS))
        except Enough:
            return "goes on"
        except (Stopped, ValueError, OSError) as error:
            assert isinstance(error, Stopped) or _is_users(error), repr(error)
            assert len(str(error)) < 2000
            return " ".join(str(error).split())
        raise AssertionError("nothing was trained")

    return begin


FILES = [
    "config.yaml", "resolved.json", "metrics.jsonl", "probes.json", "lock",
    "checkpoints/step_00000009/manifest.json", "checkpoints/step_00000009/state.index",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_survived_or_said_in_a_line(
    stopped: Path, tmp_path: Path, begun: Callable[[Path], str], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And what the closing picture and table read of it can be read."""
    caplog.set_level(logging.CRITICAL)
    ends: dict[str, int] = {}
    for case, content in damaged((stopped / name).read_bytes(), random.Random(f"damage {name}")):
        run_dir = tmp_path / "run"
        shutil.copytree(stopped, run_dir)
        (run_dir / name).write_bytes(content)
        try:
            end = begun(run_dir)
            if end == "goes on":
                MetricsLog(run_dir / "metrics.jsonl", 9, Plan(2, 1197, 128), TrainingClock())
                if (run_dir / "metrics.jsonl").stat().st_size:
                    draw_curves(run_dir / "metrics.jsonl", tmp_path / "curves.png")
                table(json.loads((run_dir / "probes.json").read_text()), "")
        except Exception as error:
            raise AssertionError(f"{name}, {case}") from error
        ends[end[:40]] = ends.get(end[:40], 0) + 1
        shutil.rmtree(run_dir)
    print(name, ends)
    assert sum(ends.values()) >= CASES
