"""A callback that wants no more of a run: it is saved, its files are there, and it goes on when it is started again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from networks import tiny_batch, tiny_mae
from runs import checkpointed, lines, small

from lut_tf.export.command import find_encoder
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.checkpoint import Checkpoints
from lut_tf.training.guards import LOOK_EVERY, SaveCheckpoint, StopOnNonFinite
from lut_tf.training.interruption import Interrupted, StopRequest
from lut_tf.training.plan import Plan
from lut_tf.training.run_directory import RunFiles, Saved, is_through

QUICK = {"probe__before_and_after": False, "probe__every": 0, "logging__tensorboard": False, "checkpoint__keep": 3}


class Enough(keras.callbacks.Callback):
    """Stops as the first epoch of a start ends."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.stop_training = True


@pytest.mark.slow
def test_a_run_that_a_callback_has_stopped_is_saved_and_goes_on(tmp_path: Path) -> None:
    """Also where epochs are not saved otherwise; what it left counts until there is something newer."""
    config = small(tmp_path / "run", epochs=3, **QUICK)
    config = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, every_epochs=0))
    for epoch in (1, 2):
        result = pretrain(config, callbacks=[Enough()])
        assert checkpointed(tmp_path / "run")[-1] == 9 * epoch
        assert [line["epoch"] for line in lines(tmp_path / "run")] == list(range(1, epoch + 1))
        assert result.files.encoder.is_file() and not is_through(result.files)
        assert isinstance(find_encoder(tmp_path / "run"), Saved)
    pretrain(config)
    assert checkpointed(tmp_path / "run")[-1] == 27
    assert find_encoder(tmp_path / "run") == result.files.encoder


@pytest.mark.parametrize(
    ("steps", "facts", "through"),
    [
        ([9, 18], {"epochs": 2, "steps_per_epoch": 9}, True),
        ([9], {"epochs": 2, "steps_per_epoch": 9}, False),
        ([], {"epochs": 2, "steps_per_epoch": 9}, True),  # checkpoints were removed: the files are all there is
        ([9], {}, True),
        ([9], {"epochs": "two", "steps_per_epoch": 9}, True),
    ],
)
def test_what_a_run_left_is_its_last(steps: list[int], facts: dict[str, object], through: bool, tmp_path: Path) -> None:
    for step in steps:
        (tmp_path / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
    (tmp_path / "resolved.json").write_text(json.dumps(facts), encoding="utf-8")
    assert is_through(RunFiles(tmp_path)) == through


@pytest.mark.medium
def test_on_several_hosts_all_of_them_stop(tmp_path: Path) -> None:
    """The one with the callback does not leave the others: the step tells all, a few steps later."""
    model = tiny_mae()
    model.compile(keras.optimizers.SGD(0.1))
    plan = Plan(9, 4 * 6, 4)  # epochs of six steps
    checkpoints = Checkpoints(tmp_path, model, 3)
    guard = StopOnNonFinite(0, lambda step: [], checkpoints)
    settings = small(tmp_path).checkpoint
    save = SaveCheckpoint(checkpoints, plan, 0, [], settings, StopRequest(), guard, hosts=2)
    data = tf.data.Dataset.from_tensors(tiny_batch(model)).repeat()
    with pytest.raises(Interrupted, match="another host, or a callback"):
        model.fit(data, epochs=9, steps_per_epoch=6, verbose=0, callbacks=[guard, Enough(), save])
    assert 6 < save.step <= 6 + LOOK_EVERY
    assert [int(path.name[5:]) for path in tmp_path.glob("step_*")] == [save.step]
