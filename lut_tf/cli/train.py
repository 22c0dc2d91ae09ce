"""`lut-tf train`."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from lut_tf.cli.verb import Verb
from lut_tf.config import (
    Config,
    RunConfig,
    add_config_arguments,
    config_from,
    differences,
    from_yaml,
    get_setting,
    show,
    validate,
)
from lut_tf.paths import spelled_out
from lut_tf.startup import import_tensorflow
from lut_tf.training.run_directory import GO_ON, RunFiles, read_saved


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser an option for each setting, and one for a file of them."""
    add_config_arguments(parser)


def run(arguments: Namespace) -> None:
    """Pre-train, and print what came of it."""
    from lut_tf.tasks.preflight import preflight

    config = config_from(arguments)
    listing = preflight(config)
    import_tensorflow()
    from lut_tf.tasks.pretrain import pretrain

    print(pretrain(config, listing).summary())


def with_own_settings(words: list[str], tree: type[RunConfig] = Config) -> list[str]:
    """Have a command that names a run's directory, and no file of settings, begin with the settings of that run.

    Args:
        words: of a command that takes the settings of a run.
        tree: of the run's task; pre-training by default.

    Raises:
        FileNotFoundError: there is no run, and nothing is said that would begin one.
        ValueError: the run's settings cannot be read, or are another task's.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--config", "--run_dir"):
        parser.add_argument(option, nargs="?")
    given, left = parser.parse_known_args(words)
    if given.run_dir is None or "--config" in {word.split("=", 1)[0] for word in words}:
        return words
    files = RunFiles(Path(spelled_out(given.run_dir)))
    if not os.path.isfile(files.config):  # also where the path is too long to be asked about
        if not left and not os.path.exists(files.root):
            validate(Config(run_dir=given.run_dir))
            raise FileNotFoundError(
                f"run_dir={given.run_dir!r} holds no run to go on with: give the folder of one, or --config FILE too, "
                "to begin one there"
            )
        return words
    saved = read_saved(files, tree, f"run_dir={given.run_dir!r}", GO_ON)
    written = from_yaml(files.config.read_text(encoding="utf-8"), tree)
    since = [f"--{name}={show(get_setting(saved, name))}" for name in differences(written, saved)]
    return ["--config", str(files.config), *since, *words]


VERB = Verb(
    "pre-train an encoder; started again on its run_dir, a run goes on",
    add_arguments,
    run,
    "[--config FILE] [--setting value] ...",
    "train --config configs/digits.yaml --run_dir runs/mine --epochs 100",
    complete=with_own_settings,
)
