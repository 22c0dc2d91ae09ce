"""Files that a kill must not leave half-written."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that at every moment the old or the new one is there, whole (UTF-8).

    Raises:
        OSError: it could not be written; the old one stays.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
