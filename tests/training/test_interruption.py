"""Signals that ask a run to end, and the lock on its directory, with real processes."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lut_tf.errors import Stopped
from lut_tf.training.interruption import Interrupted, holder, locked, stop_requests

HOLD = """
import sys, time
from pathlib import Path
from lut_tf.training.interruption import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
WAIT = """
import time
from lut_tf.training.interruption import stop_requests
with stop_requests() as request:
    print("ready", flush=True)
    while not request.number:
        time.sleep(0.01)
    print("noted", request.number, flush=True)
    time.sleep(60)
"""


def python(code: str, *words: str) -> subprocess.Popen[str]:
    """Start a process and wait for its first line."""
    process = subprocess.Popen([sys.executable, "-c", code, *words], text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_second_run_on_a_directory_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """The message names the process; after its SIGKILL the directory is free at once."""
    process = python(HOLD, str(tmp_path))
    try:
        refusal = rf"run_dir='{tmp_path}' is in use by process {process.pid} on .*--run_dir"
        with pytest.raises(ValueError, match=refusal), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path):
        assert holder(tmp_path).startswith(f"{os.getpid()} on ")
    with locked(tmp_path):
        pass


def test_the_same_process_cannot_hold_a_directory_twice(tmp_path: Path) -> None:
    """And being refused changes nothing: the file still says who holds it, and the lock is let go of once."""
    with locked(tmp_path):
        held = holder(tmp_path)
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"is in use by process {held}: "), locked(tmp_path):
                pass
        assert holder(tmp_path) == held
    assert holder(tmp_path) == held
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        assert os.listdir(tmp_path) == ["lock"]


def test_without_flock_there_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mere file in its stead would keep the directory locked after a kill."""

    def missing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match="not implemented"), locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_ends_the_process(number: signal.Signals) -> None:
    process = python(WAIT)
    assert process.stdout is not None
    process.send_signal(number)
    assert process.stdout.readline() == f"noted {int(number)}\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == -number


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_no_signal_is_listened_for() -> None:
    found = []

    def listen() -> None:
        with stop_requests() as request:
            found.append(request.number)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [0]


def test_the_status_is_the_shells(tmp_path: Path) -> None:
    assert Interrupted(signal.SIGINT, 3).status == 130
    assert Interrupted(signal.SIGTERM, 3).status == 143
    assert Interrupted(0, 3).status == 143
    assert "stopped by another host, or a callback after step 3, which is saved" in str(Interrupted(0, 3))
    assert "could not be saved" in str(Interrupted(signal.SIGINT, 3, saved=False))


def test_a_lock_that_a_cleaner_removes_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(tmp_path) as hold:
        hold.check()
        (tmp_path / "lock").unlink()
        with caplog.at_level(logging.WARNING):
            hold.check()
            hold.check()
        assert caplog.text.count("lock was removed while the run was on: it is made anew") == 1
        with pytest.raises(ValueError, match="is in use by process"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_a_run_stops_when_another_has_taken_its_directory(tmp_path: Path) -> None:
    with locked(tmp_path) as hold:
        (tmp_path / "lock").unlink()
        process = python(HOLD, str(tmp_path))
        try:
            with pytest.raises(Stopped, match=rf"lock was removed .* process {process.pid} on .*: this one stops"):
                hold.check()
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("change", ["renamed", "removed", "replaced"])
def test_a_run_stops_when_its_directory_is_no_longer_there(tmp_path: Path, change: str) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with locked(run_dir) as hold:
        if change == "removed":
            shutil.rmtree(run_dir)
        else:
            run_dir.rename(tmp_path / "elsewhere")
        if change == "replaced":
            run_dir.mkdir()
        with pytest.raises(Stopped, match=rf"^run_dir='{run_dir}' was renamed or removed while the run was on"):
            hold.check()
        assert run_dir.exists() == (change == "replaced")
