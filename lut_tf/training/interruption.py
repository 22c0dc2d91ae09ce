"""Stopping well: signals that ask a run to end, and the lock that keeps two runs off one directory."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from lut_tf.errors import Stopped
from lut_tf.training.run_directory import RunFiles

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Stopped):
    """A signal asked the run to stop, and it has: the step is finished and saved.

    Attributes:
        status: the exit status that shells give to that signal, 130 for SIGINT and 143 for SIGTERM.
    """

    def __init__(self, number: int, step: int, saved: bool = True) -> None:
        why = signal.Signals(number).name if number else "another host"
        which = "which is saved" if saved else "which could not be saved"
        super().__init__(f"stopped by {why} after step {step}, {which}: start again to go on")
        self.status = 128 + (number or signal.SIGTERM)


class StopRequest:
    """Whether a signal has asked the run to stop, and which (0: none)."""

    number = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; the second one ends the process at once, as if nobody listened."""
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while the block runs (in the main thread; elsewhere none ever comes)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def holder(run_dir: Path) -> str:
    """Return who holds a run directory, or held it last, in words; empty where nobody ever did."""
    path = RunFiles(run_dir).lock
    return path.read_text(encoding="utf-8") if path.exists() else ""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory while the block runs; the system lets go of it when the process dies, however it dies.

    Raises:
        ValueError: another process holds it.
    """
    path = RunFiles(run_dir).lock
    # Without `flock` there is no lock: a mere file, filelock's way out, would outlive a killed process.
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout:
        raise ValueError(
            f"run_dir={str(run_dir)!r} is in use by process {holder(run_dir) or '?'}: "
            f"wait for it, or give another --run_dir"
        ) from None
    with held:
        who = f"{os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        path.write_text(who, encoding="utf-8")
        yield
