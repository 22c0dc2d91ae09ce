"""Stopping well: signals that ask a run to end, and the lock that keeps two runs off one directory."""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Stopped):
    """A signal asked the run to stop, and it has: the step is finished and saved.

    Attributes:
        status: the exit status that shells give to that signal, 130 for SIGINT and 143 for SIGTERM.
    """

    def __init__(self, number: int, step: int, saved: bool = True) -> None:
        why = signal.Signals(number).name if number else "another host, or a callback"
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
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


class Hold:
    """A run directory that this process has for itself; the system lets go of it however the process ends.

    Args:
        run_dir: an existing folder.

    Raises:
        ValueError: another process holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        self._root, self._path = run_dir, RunFiles(run_dir).lock
        self._place = _identity(run_dir)
        # Without `flock` there is no lock: a mere file, filelock's way out, would outlive a killed process.
        self._lock = FileLock(self._path, blocking=False, fallback_to_soft=False)
        self._take()

    def _take(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(
                f"run_dir={str(self._root)!r} is in use by process {holder(self._root) or '?'}: "
                f"wait for it, or give another --run_dir"
            ) from None
        who = f"{os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        self._path.write_text(who, encoding="utf-8")
        self._held = _identity(self._path)

    def check(self) -> None:
        """See that the directory is still there and this process'; a lock that a cleaner has removed is made anew.

        Raises:
            lut_tf.errors.Stopped: the directory is gone, or another process has it.
        """
        if _identity(self._root) != self._place:
            raise Stopped(
                f"run_dir={str(self._root)!r} was renamed or removed while the run was on, and nothing more is "
                "written: give the new --run_dir, or put it back, to go on from its last checkpoint"
            )
        if _identity(self._path) == self._held:
            return
        self._lock.release()
        try:
            self._take()
        except ValueError:
            raise Stopped(
                f"{self._path} was removed while the run was on, and process {holder(self._root) or '?'} has taken the "
                "directory: this one stops, and the other goes on from the last checkpoint"
            ) from None
        logger.warning("%s was removed while the run was on: it is made anew; keep cleaners off it", self._path)

    def release(self) -> None:
        """Let go of the directory."""
        self._lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file or folder from another of its name; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


@contextmanager
def locked(run_dir: Path) -> Iterator[Hold]:
    """Hold a run directory while the block runs.

    Raises:
        ValueError: another process holds it.
    """
    hold = Hold(run_dir)
    try:
        yield hold
    finally:
        hold.release()
