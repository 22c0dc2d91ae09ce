"""`lut-tf <verb>`: parse, call what the verb names, and say mistakes in one line.

To add a verb, write its file beside this one and name it in `VERBS`.
"""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lut_tf.cli import convert, doctor, export, prepare, show_views, train, verify
from lut_tf.cli.messages import explain, nearest
from lut_tf.errors import Stopped
from lut_tf.startup import quieten_tensorflow

WRONG_USE, INTERRUPTED = 2, 130
PACKAGE = Path(__file__).parents[1]
VERBS = {
    "train": train.VERB,
    "export": export.VERB,
    "verify": verify.VERB,
    "convert": convert.VERB,
    "prepare": prepare.VERB,
    "show-views": show_views.VERB,
    "doctor": doctor.VERB,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lut-tf` on `argv` (the process' arguments by default) and return the exit status.

    The status is 0; 2 after a mistake of the user's; 130 or 143 after SIGINT or SIGTERM (a training run has saved
    itself then); 1 after another end, such as a loss that is no number. One line on stderr says which.
    """
    quieten_tensorflow()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_overview())
            return 0 if words else WRONG_USE
        _run_verb(words[0], words[1:])
    except KeyboardInterrupt:
        print("\nlut-tf: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Stopped as end:
        print(f"lut-tf: {_one_line(end)}", file=sys.stderr)
        return end.status
    except (ValueError, OSError) as error:
        if not _is_users(error):
            raise
        print(f"lut-tf: error: {_one_line(error)}", file=sys.stderr)
        return WRONG_USE
    return 0


def console() -> None:
    """Entry point of the `lut-tf` command."""
    sys.exit(main())


def _overview() -> str:
    lines = [f"  {name:<12}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(["usage: lut-tf VERB [options]", "", *lines, "", "lut-tf VERB --help lists a verb's options"])


def _run_verb(name: str, words: list[str]) -> None:
    if name not in VERBS:
        raise ValueError(f"unknown verb {name!r}{nearest(name, VERBS)}: give one of {', '.join(VERBS)}")
    verb = VERBS[name]
    parser = ArgumentParser(
        prog=f"lut-tf {name}",
        usage=f"%(prog)s {verb.usage}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    verb.add_arguments(parser)
    try:
        arguments = parser.parse_args(verb.complete(words))
    except ArgumentError as error:
        raise ValueError(explain(str(error), parser, name, verb.usage)) from error
    verb.run(parser, arguments)


def _is_users(error: Exception) -> bool:
    """Tell a user's mistake from a defect, whose traceback must stay visible.

    Our modules raise `ValueError` for users; one that comes out of TensorFlow or Keras is nobody's typing mistake.
    Missing files and permissions are the user's to mend wherever they turn up.
    """
    if isinstance(error, OSError):
        return isinstance(error, FileNotFoundError | PermissionError | FileExistsError | NotADirectoryError)
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(PACKAGE)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
