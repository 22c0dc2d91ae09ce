"""How a command ends that does not succeed: several mistakes of the user's at once, or none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Stopped(Exception):
    """Ends a command with one line on stderr instead of a traceback.

    Attributes:
        status: the exit status.
    """

    status = 1


class Mistakes(ValueError):
    """Several mistakes of the user's, told at once: a line each.

    Attributes:
        lines: each a mistake with the setting, the value and the remedy.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(dict.fromkeys(lines))
        super().__init__("\n".join(self.lines))


def told_together(*checks: Callable[[], object]) -> None:
    """Ask every check, and raise what they refuse as one.

    Raises:
        Mistakes: a check raised a ValueError.
    """
    lines: list[str] = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            lines += error.lines if isinstance(error, Mistakes) else [str(error)]
    if lines:
        raise Mistakes(lines)
