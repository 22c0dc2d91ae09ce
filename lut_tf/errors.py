"""Ends that are neither success nor a user's mistake."""

from __future__ import annotations


class Stopped(Exception):
    """Ends a command with one line on stderr instead of a traceback.

    Attributes:
        status: the exit status.
    """

    status = 1
