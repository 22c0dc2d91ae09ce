"""One line on a terminal that says how far a measure is, and how long it still takes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta


class Line:
    """A line that is written over and over; nothing where stderr is no terminal.

    Args:
        what: is done, in words.
        total: images that it is done with.
        every: seconds between two looks of the line.
    """

    def __init__(self, what: str, total: int, every: float = 0.5) -> None:
        self._what, self._total, self._every = what, total, every
        self._begun = self._shown_at = time.monotonic()
        self._shown, self._on = "", sys.stderr.isatty()

    def at(self, done: int) -> None:
        """Show that so many images are done, if it is time."""
        now = time.monotonic()
        if not self._on or now - self._shown_at < self._every or not done:
            return
        self._shown_at, each = now, (now - self._begun) / done
        left = timedelta(seconds=round(each * (self._total - done)))
        self._show(f"{self._what}: {done}/{self._total}  {1 / each:.0f} images/s  {left} left")

    def end(self) -> None:
        """Leave no half line."""
        if self._shown:
            self._show("")

    def _show(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]  # a longer one would break, and stay
        print(f"\r{text:<{len(self._shown)}}", end="" if text else "\r", file=sys.stderr, flush=True)
        self._shown = text


@contextmanager
def line(what: str, total: int) -> Iterator[Line]:
    """Give a `Line` that is gone at the end, whatever the end is."""
    shown = Line(what, total)
    try:
        yield shown
    finally:
        shown.end()
