"""`lut-tf <verb>`: parse, call what the verb names, and say mistakes in one line.

To add a verb, write its file beside this one and name it in `VERBS`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from lut_tf import __version__
from lut_tf.cli import (
    compare,
    convert,
    doctor,
    export,
    few_shot,
    finetune,
    knn,
    prepare,
    probe,
    show_views,
    train,
    verify,
)
from lut_tf.cli.messages import Parser
from lut_tf.config.suggestions import nearest
from lut_tf.errors import Mistakes, Stopped
from lut_tf.startup import quieten_tensorflow

WRONG_USE, INTERRUPTED = 2, 130
LONGEST_WORD = 300
PACKAGE = Path(__file__).parents[1]
VERBS = {
    "train": train.VERB,
    "finetune": finetune.VERB,
    "probe": probe.VERB,
    "knn": knn.VERB,
    "few-shot": few_shot.VERB,
    "compare": compare.VERB,
    "export": export.VERB,
    "verify": verify.VERB,
    "convert": convert.VERB,
    "prepare": prepare.VERB,
    "show-views": show_views.VERB,
    "doctor": doctor.VERB,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lut-tf` on `argv` (the process' arguments by default) and return the exit status.

    The status is 0; 2 after mistakes of the user's; 130 or 143 after SIGINT or SIGTERM (a training run has saved
    itself then); 1 after another end, such as a loss that is no number. One line on stderr says which, after
    mistakes one for each.
    """
    quieten_tensorflow()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_overview())
            return 0 if words else WRONG_USE
        if words[0] == "--version":
            print(f"lut-tf {__version__}")
            return 0
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
        for line in error.lines if isinstance(error, Mistakes) else [error]:
            print(f"lut-tf: error: {_one_line(line)}", file=sys.stderr)
        return WRONG_USE
    return 0


def console() -> None:
    """Entry point of the `lut-tf` command."""
    sys.exit(main())


def _overview() -> str:
    lines = [f"  {name:<12}{verb.summary}" for name, verb in VERBS.items()]
    usage = "usage: lut-tf VERB [options] | --version"
    return "\n".join([usage, "", *lines, "", "lut-tf VERB --help lists a verb's options"])


def _run_verb(name: str, words: list[str]) -> None:
    if name not in VERBS:
        raise ValueError(f"unknown verb {name!r}{nearest(name, VERBS)}: give one of {', '.join(VERBS)}")
    verb = VERBS[name]
    parser = Parser(
        name,
        verb.usage,
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=f"example: lut-tf {verb.example}",
    )
    verb.add_arguments(parser)
    arguments, left = parser.understood(verb.complete(words))
    given = getattr(arguments, "given", None)
    mistakes = [*parser.unknown(left, given and given.tree), *(given.mistakes if given else [])]
    if mistakes:
        raise Mistakes(mistakes)
    verb.run(arguments)


def _is_users(error: Exception) -> bool:
    """Tell a user's mistake from a defect, whose traceback must stay visible.

    Our modules raise `ValueError` for users; one that comes out of TensorFlow or Keras is nobody's typing mistake.
    Missing files and permissions are the user's to mend wherever they turn up.
    """
    if isinstance(error, OSError):
        return isinstance(error, FileNotFoundError | PermissionError | FileExistsError | NotADirectoryError)
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(PACKAGE)


def _one_line(error: object) -> str:
    """Return a message as one line that a terminal shows as it is; a word longer than a terminal's lines is cut."""
    words = "".join(c if c.isprintable() or c.isspace() else repr(c)[1:-1] for c in str(error)).split()
    return " ".join(word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…" for word in words)
