"""Checkpoints: whole or not there, checked when read, the one before where the newest is damaged."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from replicas_worker import Case, model_of

from lut_tf import LUT
from lut_tf.training.checkpoint import Checkpoints, DamagedCheckpoint, SaveFailed, state


@pytest.fixture(scope="module")
def model() -> LUT:
    return model_of(Case("checkpoint", optimizer="adamw"))


def fill(model: LUT, value: int) -> None:
    """Make every number of the state a function of `value` and its place."""
    for i, variable in enumerate(state(model).values()):
        numbers = value + i + np.arange(np.prod(variable.shape, dtype=int)).reshape(variable.shape)
        variable.assign(tf.cast(numbers, variable.dtype))


def numbers(model: LUT) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in state(model).items()}


@pytest.fixture(scope="module")
def saved(model: LUT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 3 and 7."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("saved") / "checkpoints", model)
    for step in (3, 7):
        fill(model, step)
        checkpoints.save(step)
    return checkpoints.directory


@pytest.fixture
def two(model: LUT, saved: Path, tmp_path: Path) -> Checkpoints:
    """A copy of those of steps 3 and 7; the model holds something else."""
    shutil.copytree(saved, tmp_path / "checkpoints")
    fill(model, 1000)
    return Checkpoints(tmp_path / "checkpoints", model)


def assert_holds(model: LUT, value: int) -> None:
    found = numbers(model)
    fill(model, value)
    for name, expected in numbers(model).items():
        np.testing.assert_array_equal(expected, found[name], err_msg=name)


@pytest.mark.medium
def test_everything_that_a_run_is_comes_back(two: Checkpoints, model: LUT) -> None:
    """Student, teacher, statistics, optimizer, means: every variable, bit for bit, in another model too."""
    assert two.restore() == 7
    assert_holds(model, 7)
    other = model_of(Case("other", optimizer="adamw"))
    assert Checkpoints(two.directory, other).restore() == 7
    assert_holds(other, 7)
    held = {id(variable) for variable in state(model).values()}
    assert all(id(v.value) in held for v in [*model.variables, *model.optimizer.variables])
    assert len(held) > 100


def truncate(folder: Path) -> None:
    path = next(folder.glob("state.data*"))
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder: Path) -> None:
    path = next(folder.glob("state.data*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose(folder: Path) -> None:
    (folder / "state.index").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"step": 7, "files": {"state.in')


def rewritten(**changes: Any) -> Callable[[Path], None]:
    """Damage that leaves a manifest of JSON, without its own sum, in which something is missing or wrong."""

    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest.pop("sha256", None)
        manifest = {name: value for name, value in {**manifest, **changes}.items() if value is not None}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    damage.__name__ = f"rewritten {changes}"
    return damage


def flip_a_name(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("class_token", "clasr_token", 1))


def of_another_step(folder: Path) -> None:
    (folder / "manifest.json").write_text((folder.parent / "step_00000003" / "manifest.json").read_text())


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


DAMAGES = [
    truncate, flip, lose, lose_manifest, cut_manifest, empty, flip_a_name, of_another_step, rewritten(files=None),
    rewritten(files={}), rewritten(files=[1]), rewritten(files={"state.index": {}}), rewritten(step=None),
    rewritten(files={"state.index": 3}), rewritten(files={"state.index": {"bytes": "x", "sha256": 1}}),
]  # fmt: skip
# Of each kind one; a manifest may be rewritten in many ways.
NORMALLY = [*DAMAGES[:8], *(pytest.param(damage, marks=pytest.mark.slow) for damage in DAMAGES[8:])]


@pytest.mark.medium
@pytest.mark.parametrize("damage", NORMALLY, ids=lambda damage: damage.__name__)
def test_of_a_damaged_newest_the_one_before_is_used_and_reported(
    two: Checkpoints, model: LUT, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(two.path(7))
    with caplog.at_level(logging.WARNING):
        assert two.restore() == 3
    assert_holds(model, 3)
    assert "checkpoint of step 7 is damaged" in caplog.text
    assert two.steps() == [3]
    assert (two.directory / "damaged_step_00000007").is_dir()


def test_a_damaged_one_does_not_push_out_good_ones(two: Checkpoints, model: LUT) -> None:
    """With one to keep, step 4 saved after step 7's damage stays."""
    flip(two.path(7))
    one = Checkpoints(two.directory, model, keep=1)
    assert one.restore() == 3
    one.save(4)
    assert one.steps() == [4]
    assert one.restore() == 4


def test_where_none_is_whole_the_message_says_so(two: Checkpoints) -> None:
    flip(two.path(3))
    lose(two.path(7))
    with pytest.raises(DamagedCheckpoint, match=r"none of the 2 checkpoints in .* is whole: .*--run_dir"):
        two.restore()
    assert two.steps() == [3, 7]


def test_names_that_are_no_steps_do_not_count(two: Checkpoints) -> None:
    for name in ("step_²", "step_7", "step_x", "step_-0000007"):
        (two.directory / name).mkdir()
    assert two.steps() == [3, 7]


def test_other_variables_are_refused_and_not_read_into_each_others_places(two: Checkpoints, model: LUT) -> None:
    """A manifest names paths and shapes; one without names, as the first version wrote, is read by its order."""
    rewritten(variables={"model_0000": ["encoder/positions", [17, 16]]})(two.path(7))
    with pytest.raises(
        ValueError,
        match=r"step_00000007 is of a run with other settings, or of another version .* or another --run_dir",
    ):
        two.restore()
    rewritten(variables=None)(two.path(7))
    assert two.restore() == 7
    assert_holds(model, 7)


def test_a_half_written_one_does_not_count_and_is_cleared_away(two: Checkpoints, model: LUT) -> None:
    left = two.directory / "unfinished_host_1"
    left.mkdir()
    (left / "state.index").write_bytes(b"torn")
    assert two.restore() == 7
    assert not left.exists()


def test_no_checkpoint_is_a_fresh_start(model: LUT, tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", model).restore() == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.medium
def test_the_newest_stay_and_some_for_ever(model: LUT, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", model, keep=2, keep_every=4)
    for step in range(1, 11):
        checkpoints.save(step)
    assert checkpoints.steps() == [4, 8, 9, 10]


def test_the_others_of_a_run_on_several_hosts_write_nothing(two: Checkpoints, model: LUT) -> None:
    other = Checkpoints(two.directory, model, chief=False)
    flip(two.path(7))
    assert other.restore() == 3
    other.save(5)
    assert other.steps() == [3, 7]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Have the system refuse to write files beyond `size` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.medium
@pytest.mark.parametrize("size", [0, 20_000], ids=["nothing fits", "a part fits"])
def test_a_full_disk_costs_no_checkpoint(two: Checkpoints, model: LUT, size: int) -> None:
    """The message names the step, the cause and the last good one; later saves work again."""
    before = {path.relative_to(two.directory): path.stat().st_size for path in two.directory.rglob("*")}
    with files_up_to(size), pytest.raises(SaveFailed) as failure:
        two.save(9)
    assert "checkpoint of step 9 could not be written" in str(failure.value)
    assert "File too large" in str(failure.value)
    assert f"the last good one is {two.path(7)}" in str(failure.value)
    assert {path.relative_to(two.directory): path.stat().st_size for path in two.directory.rglob("*")} == before
    assert two.restore() == 7
    assert_holds(model, 7)
    two.save(9)
    assert two.steps() == [7, 9]
