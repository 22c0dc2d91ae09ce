"""Starting TensorFlow without the half screen of notes that it writes before anyone can set its log level."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

NOTES = ("I0000 ", "WARNING: All log messages before absl::InitializeLog()")


def quieten_tensorflow() -> None:
    """Choose TensorFlow's log level, unless the user has; to be called before it is imported.

    Where there is a GPU, a warning may say why TensorFlow cannot use it; elsewhere it logs only that it found none, and
    that as an error.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if any(Path("/dev").glob("nvidia*")) else "3")


def import_tensorflow() -> None:
    """Import TensorFlow; of what it writes to stderr meanwhile, show all but its informational notes.

    They come from C++ before `TF_CPP_MIN_LOG_LEVEL` counts, hence the detour over the file descriptor.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            for line in caught.read().decode(errors="replace").splitlines():
                if not line.startswith(NOTES):
                    print(line, file=sys.stderr)
