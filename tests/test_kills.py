"""Runs that are killed, stopped and started again as processes of their own end as the run that nobody stopped."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from runs import assert_same_run, checkpointed, learned_lines, start

SETTINGS: dict[str, Any] = {
    "epochs": 4,
    "compute__deterministic": True,
    "checkpoint__every_steps": 2,
    "probe__every": 0,
    "logging__tensorboard": False,
}
LIMIT = 240  # seconds that one process may take on a busy machine


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end and return what was printed."""
    return process.communicate(timeout=LIMIT)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the run that nobody stops."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    process = start(run_dir, **SETTINGS)
    output = finish(process)
    assert process.returncode == 0, output
    assert len(learned_lines(run_dir)) == 4
    return run_dir


def train_on(process: subprocess.Popen[str], run_dir: Path, checkpoints: int) -> None:
    """Wait until the process has saved some checkpoints of its own, or has ended."""
    before, deadline, seen = set(checkpointed(run_dir)), time.monotonic() + LIMIT, set[int]()
    while len(seen) < checkpoints and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint came"
        seen |= set(checkpointed(run_dir)) - before
        time.sleep(0.01)


def saving(run_dir: Path) -> set[str]:
    """The folders of saves that are half done; only names are read, for they may vanish meanwhile."""
    folder = run_dir / "checkpoints"
    return {name for name in os.listdir(folder) if name.startswith("unfinished_")} if folder.is_dir() else set()


def in_a_save(process: subprocess.Popen[str], run_dir: Path) -> None:
    """Wait until a save has begun."""
    deadline = time.monotonic() + LIMIT
    before = saving(run_dir)
    while process.poll() is None and not saving(run_dir) - before:
        assert time.monotonic() < deadline, "no save came"


def kill(process: subprocess.Popen[str]) -> bool:
    """SIGKILL the process and tell whether that is what ended it."""
    process.kill()
    finish(process)
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_kill_during_a_save_and_a_signal_leave_the_same_run_bitwise(whole: Path, tmp_path: Path) -> None:
    """SIGKILL in a save of the first process, SIGTERM to the second, which is saved, then the end."""
    run_dir = tmp_path / "run"
    process = start(run_dir, **SETTINGS)
    train_on(process, run_dir, 1)
    in_a_save(process, run_dir)
    assert kill(process)
    killed_at = checkpointed(run_dir)[-1]
    assert 0 < killed_at < 36
    process = start(run_dir, **SETTINGS)
    train_on(process, run_dir, 1)
    stopped_at = stopped(process, run_dir, signal.SIGTERM, f"going on after step {killed_at} of 36")
    process = start(run_dir, **SETTINGS)
    output = finish(process)
    assert process.returncode == 0, output
    assert f"going on after step {stopped_at} of 36" in output
    assert_same_run(whole, run_dir)


def stopped(process: subprocess.Popen[str], run_dir: Path, number: signal.Signals, said: str = "") -> int:
    """Send the signal, check status and last line, and return the step that is saved."""
    process.send_signal(number)
    output = finish(process)
    assert process.returncode == 128 + number, output
    assert said in output
    step = checkpointed(run_dir)[-1]
    last = f"lut-tf: stopped by {number.name} after step {step}, which is saved: start again to go on"
    assert output.splitlines()[-1] == last
    return step


@pytest.mark.slow
def test_three_kills_and_what_is_left_is_bitwise_the_same(whole: Path, tmp_path: Path) -> None:
    run_dir, chance = tmp_path / "run", random.Random(1)
    for checkpoints in (1, 2):
        process = start(run_dir, **SETTINGS)
        train_on(process, run_dir, checkpoints)
        time.sleep(chance.uniform(0, 0.3))
        assert kill(process)
    process = start(run_dir, **SETTINGS)
    train_on(process, run_dir, 1)
    in_a_save(process, run_dir)
    assert kill(process)
    stopped_at = checkpointed(run_dir)[-1]
    assert 0 < stopped_at < 36
    process = start(run_dir, **SETTINGS)
    output = finish(process)
    assert process.returncode == 0, output
    assert f"going on after step {stopped_at} of 36" in output
    assert_same_run(whole, run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_the_run_goes_on_bitwise(
    whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Status 143 after SIGTERM, 130 after SIGINT; the step that the message names is saved."""
    run_dir, settings = tmp_path / "run", {**SETTINGS, "checkpoint__every_steps": 5}
    process = start(run_dir, **settings)
    train_on(process, run_dir, 1)
    step = stopped(process, run_dir, number)
    process = start(run_dir, **settings)
    assert f"going on after step {step} of 36" in finish(process)
    assert_same_run(whole, run_dir)


@pytest.mark.slow
def test_thirty_kills_at_random_moments_and_during_saves(whole: Path, tmp_path: Path) -> None:
    """Kills at any moment from the start of the process on, 10 of them during a save; then the same run bit for bit."""
    run_dir, chance, kills, saves = tmp_path / "run", random.Random(7), 0, set[str]()
    settings = {**SETTINGS, "checkpoint__every_steps": 1}
    while kills < 30:
        process, began = start(run_dir, **settings), time.monotonic()
        if kills % 3 == 2:
            in_a_save(process, run_dir)
        elif kills % 3 == 1:  # while starting, or soon after
            time.sleep(chance.uniform(0, 12))
        else:
            train_on(process, run_dir, 1)
            time.sleep(chance.uniform(0, 0.2))
        if not kill(process):  # it was through: begin a new run, the kills count on
            assert process.returncode == 0
            assert_same_run(whole, run_dir)
            shutil.rmtree(run_dir)
            continue
        kills, saves = kills + 1, saves | saving(run_dir)
        print(f"kill {kills} after {time.monotonic() - began:.1f} s at step {(checkpointed(run_dir) or [0])[-1]}")
    process = start(run_dir, **settings)
    output = finish(process)
    assert process.returncode == 0, output
    assert len(saves) >= 5
    assert_same_run(whole, run_dir)


def fill_the_disk(process: subprocess.Popen[str], full: bool) -> None:
    """Have the system refuse, or allow again, to write more than a kilobyte to a file."""
    hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024 if full else hard, hard))


@pytest.mark.slow
@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_a_full_disk_stops_the_run_in_one_line_or_is_waited_out(whole: Path, tmp_path: Path, on_failure: str) -> None:
    """`stop`: status 1, the line names the last good checkpoint. `continue`: with room again, nothing is missing.

    The limit is the system's, on the running process.
    """
    run_dir, settings = tmp_path / "run", {**SETTINGS, "checkpoint__on_failure": on_failure}
    process = start(run_dir, **settings)
    train_on(process, run_dir, 1)
    fill_the_disk(process, True)
    if on_failure == "stop":
        output = finish(process)
        assert process.returncode == 1, output
        last = output.splitlines()[-1]
        assert last.startswith("lut-tf: the checkpoint of step ")
        assert f"the last good one is {run_dir / 'checkpoints'}/step_{checkpointed(run_dir)[-1]:08d}: make room" in last
        assert "Traceback" not in output
        return
    time.sleep(1)
    fill_the_disk(process, False)
    output = finish(process)
    assert process.returncode == 0, output
    assert "could not be written" in output
    assert_same_run(whole, run_dir)


@pytest.mark.slow
def test_checkpoints_that_are_all_damaged_are_one_line(whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for path in (run_dir / "checkpoints").glob("step_*/state.index"):
        path.unlink()
    process = start(run_dir, **SETTINGS)
    output = finish(process)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("lut-tf: none of the 2 checkpoints in ")
