"""`lut-tf <verb>`: parse, call one function of a room, print what came of it.

To add a verb, write a function that adds its options to a parser and one that takes what was parsed, and name both in
`VERBS`. Rooms are imported inside those functions, so that `--help` and a typo answer without TensorFlow.
"""

from __future__ import annotations

import difflib
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jsonargparse import ArgumentParser, Namespace

from lut_tf.checks import check, check_files, check_images
from lut_tf.config import ConfigFile, add_config_arguments, config_from, settings
from lut_tf.errors import Stopped
from lut_tf.settings import describe_type
from lut_tf.startup import import_tensorflow, quieten_tensorflow

WRONG_USE, INTERRUPTED = 2, 130


class Verb(NamedTuple):
    """One word of the command line: what it does, its options, the function that does it, and a line on its use."""

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[ArgumentParser, Namespace], None]
    usage: str = "[--setting value] ..."  # the list of options says them once, with the meanings


def _add_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action=ConfigFile, help="YAML file of settings; options after it override it")
    add_config_arguments(parser)


def _train(parser: ArgumentParser, arguments: Namespace) -> None:
    config = config_from(parser, arguments)
    check(config)
    check_files(config)
    import_tensorflow()
    from lut_tf.pretrain import pretrain

    print(pretrain(config).summary())


def _add_export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="RUN_DIR_OR_ENCODER", help="a run directory, or the .keras file of an encoder"
    )
    parser.add_argument(
        "--to", default="saved_model,onnx", help="formats, with commas: saved_model, onnx (default: %(default)s)"
    )
    parser.add_argument("--output", help="directory of the files (default: export/ next to the encoder)")


def _export(parser: ArgumentParser, arguments: Namespace) -> None:
    from lut_tf.export import export_encoder, table

    print(table(export_encoder(arguments.source, arguments.to, arguments.output)))


def _add_verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="an .onnx file, or a SavedModel's directory")
    parser.add_argument(
        "source", metavar="RUN_DIR_OR_ENCODER", help="a run directory, or the .keras file of an encoder"
    )


def _verify(parser: ArgumentParser, arguments: Namespace) -> None:
    from lut_tf.export import verify_file

    print(verify_file(arguments.file, arguments.source))


def _add_convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="weights to read: .pth, .pt, .bin, .safetensors or .keras")
    parser.add_argument("target", metavar="OUT", help="file to write: .keras, .safetensors or .pth")
    parser.add_argument(
        "--layout", choices=("timm", "huggingface", "reference"), help="names in OUT, where it is no .keras file"
    )
    parser.add_argument("--num_heads", type=int, help="attention heads of IN, where 64 channels a head is wrong")
    parser.add_argument(
        "--image_size", type=int, nargs="+", help="input size of IN in pixels, one number or height and width"
    )


def _convert(parser: ArgumentParser, arguments: Namespace) -> None:
    if not Path(arguments.source).is_file():
        raise FileNotFoundError(f"IN={arguments.source} is not a file: give the path of a file of weights")
    import_tensorflow()
    from lut_tf.interop import convert

    size = arguments.image_size
    written = convert(
        arguments.source,
        arguments.target,
        layout=arguments.layout,
        num_heads=arguments.num_heads,
        image_size=size[0] if size and len(size) == 1 else size,
    )
    print(f"written: {written}")


def _add_doctor_arguments(parser: ArgumentParser) -> None:
    """It takes no options."""


def _doctor(parser: ArgumentParser, arguments: Namespace) -> None:
    import_tensorflow()
    from lut_tf.doctor import check_replicas, report

    print(report(), flush=True)
    verdict = check_replicas()
    print(verdict)
    if "FAILED" in verdict:
        raise Stopped("this machine's devices do not compute alike: send the lines above with your report")


def _add_prepare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder of images, or the name of a public data set")
    parser.add_argument(
        "--to",
        default="array_record",
        help="format: array_record, or tfrecord (folders: always) (default: %(default)s)",
    )
    parser.add_argument("--output", help="folder to write to (public data sets: default ~/tensorflow_datasets)")
    parser.add_argument("--shards", type=int, default=0, help="files for a folder; 0: one for 1,000 images")
    parser.add_argument("--workers", type=int, default=0, help="processes for a folder; 0: one for every core")


def _prepare(parser: ArgumentParser, arguments: Namespace) -> None:
    from lut_tf.data.prepare import prepare

    wanted = arguments
    print(prepare(wanted.source, wanted.to, wanted.output, wanted.shards, wanted.workers))


def _add_show_views_arguments(parser: ArgumentParser) -> None:
    _add_train_arguments(parser)
    parser.add_argument("--output", default="views.png", help="the picture to write (default: %(default)s)")
    parser.add_argument("--images", type=int, default=8, help="rows of the picture (default: %(default)s)")
    parser.add_argument("--step", type=int, default=0, help="the optimizer step to show (default: %(default)s)")


def _show_views(parser: ArgumentParser, arguments: Namespace) -> None:
    output, images, step = (arguments.pop(name) for name in ("output", "images", "step"))
    for name, number, least in (("images", images, 1), ("step", step, 0)):
        if number < least:
            raise ValueError(f"--{name}={number} is out of range: give a number from {least} up")
    config = config_from(parser, arguments)
    check(config)
    check_images(config)
    import_tensorflow()
    from lut_tf.analysis.views import show_views

    show_views(config, Path(output), images, step)
    print(f"wrote {output}")


VERBS = {
    "train": Verb("pre-train an encoder", _add_train_arguments, _train),
    "export": Verb(
        "write an encoder as SavedModel and ONNX, verified",
        _add_export_arguments,
        _export,
        "RUN_DIR_OR_ENCODER [--to saved_model,onnx] [--output DIR]",
    ),
    "verify": Verb(
        "compare an exported file with its encoder", _add_verify_arguments, _verify, "FILE RUN_DIR_OR_ENCODER"
    ),
    "convert": Verb(
        "turn other people's weights into an encoder, and back",
        _add_convert_arguments,
        _convert,
        "IN OUT [--layout timm|huggingface|reference] [--num_heads N] [--image_size N]",
    ),
    "prepare": Verb(
        "make a public data set ready, or put a folder into TFRecord files",
        _add_prepare_arguments,
        _prepare,
        "SOURCE [--to array_record|tfrecord] [--output DIR] [--shards N] [--workers N]",
    ),
    "show-views": Verb(
        "draw what a run is fed: views, colours and masks",
        _add_show_views_arguments,
        _show_views,
        "[--output PNG] [--images N] [--step N] [--setting value] ...",
    ),
    "doctor": Verb(
        "say what a bug report should, and check that all devices compute alike", _add_doctor_arguments, _doctor, ""
    ),
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
        raise ValueError(f"unknown verb {name!r}{_nearest(name, VERBS)}: give one of {', '.join(VERBS)}")
    verb = VERBS[name]
    parser = ArgumentParser(
        prog=f"lut-tf {name}",
        usage=f"%(prog)s {verb.usage}",
        description=f"{verb.summary.capitalize()}.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    verb.add_arguments(parser)
    try:
        arguments = parser.parse_args(words)
    except ArgumentError as error:
        raise ValueError(_explain(str(error), _options(parser), name)) from error
    verb.run(parser, arguments)


def _options(parser: ArgumentParser) -> list[str]:
    """Every option's name without its dashes, shorter ones (the top-level settings) first."""
    names = (option.lstrip("-") for action in parser._actions for option in action.option_strings)
    return sorted(names, key=lambda option: option.count("."))


def _explain(message: str, options: list[str], verb: str) -> str:
    """Turn jsonargparse's message into one line that names the setting, the value and the remedy."""
    more = f"lut-tf {verb} --help lists the settings"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        if not found[1].startswith("-"):
            return f"argument {found[1]!r} stands alone: give --name value; {more}"
        name = found[1].lstrip("-").split("=")[0]
        return f"unknown setting --{name}{_nearest(name, options, '--')}; {more}"
    if found := re.match(r"(?:Group '(.+)' does not accept option|Option) '(.+?)'(?: is not accepted)?$", message):
        name = ".".join(filter(None, found.groups()))
        return f"unknown setting {name}{_nearest(name, options)}; {more}"
    if found := re.match(r'Parser key "(.+?)":.*(?:Got|Given) value: (.*)', message, re.DOTALL):
        hint = settings().get(found[1])
        remedy = "another value" if hint is None else describe_type(hint)
        return f"{found[1]}={found[2].strip()} is of the wrong type: give {remedy}"
    if found := re.match(r'Parser key "(.+?)":\s+Unable to load config (.*)', message):
        return f"{found[1]}={found[2].strip()} is no group of settings: give --{found[1]}.NAME value; {more}"
    return f"{' '.join(message.split())}; {more}"


def _nearest(name: str, known: Iterable[str], dashes: str = "") -> str:
    """Return `, did you mean X?` for the known name that is most like `name`, or nothing."""
    candidates = list(known)
    name = name.replace("-", "_")
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [candidate for candidate in candidates if candidate.rsplit(".", 1)[-1] == leaf]
    close = difflib.get_close_matches(name, same_leaf or candidates, n=1, cutoff=0 if same_leaf else 0.6)
    return f", did you mean {dashes}{close[0]}?" if close else ""


def _is_users(error: Exception) -> bool:
    """Tell a user's mistake from a defect, whose traceback must stay visible.

    The rooms raise `ValueError` for users; one that comes out of TensorFlow or Keras is nobody's typing mistake.
    Missing files and permissions are the user's to mend wherever they turn up.
    """
    if isinstance(error, OSError):
        return isinstance(error, FileNotFoundError | PermissionError | FileExistsError | NotADirectoryError)
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    console()
