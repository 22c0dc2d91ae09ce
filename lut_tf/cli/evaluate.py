"""`lut-tf evaluate`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from lut_tf.cli.measuring import OTHER_IMAGES
from lut_tf.cli.verb import Verb
from lut_tf.config import FinetuneConfig, add_config_arguments, config_from, get_setting, settings, validate
from lut_tf.config.evaluating import EvaluateConfig
from lut_tf.interop.classifier_sources import find_classifier
from lut_tf.paths import spelled_out
from lut_tf.startup import import_tensorflow
from lut_tf.training.run_directory import RunFiles, read_saved

OTHERS = ("suite", *OTHER_IMAGES)
HOW_READ = ("data.source", "data.image_feature", "data.label_feature", "data.apply_exif", "data.bits")
"""Settings that say how images are read: those of a run hold of other images (`data.path`, `data.name`) too."""


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the classifier, and what it is measured on."""
    parser.add_argument(
        "classifier",
        metavar="CLASSIFIER",
        help="a fine-tuning run's directory, a classifier's .keras file, or a fine-tuned file of LUT, MAE, timm or "
        "Hugging Face (.pth, .safetensors, a folder of save_pretrained)",
    )
    add_config_arguments(parser, EvaluateConfig)


def run(arguments: Namespace) -> None:
    """Evaluate, and print the table and where the result is."""
    own = _own_images(arguments)
    if any(name in arguments.given.values for name in OTHERS):
        arguments.given.values = {name: own[name] for name in HOW_READ if name in own} | arguments.given.values
        own = {}
    arguments.given.values = own | arguments.given.values
    config = config_from(arguments)
    validate(config)
    find_classifier(arguments.classifier)
    _check_images(arguments.classifier, config, own, arguments.given.values)
    from lut_tf.tasks.evaluate import evaluate, preflight

    listed = preflight(arguments.classifier, config)
    import_tensorflow()
    print(evaluate(arguments.classifier, config, listed).summary())


def _own_images(arguments: Namespace) -> dict[str, Any]:
    """Return the settings of `data` of the fine-tuning run of a classifier; none where a source or suite is given."""
    path = Path(spelled_out(arguments.classifier))
    files = RunFiles(path if path.is_dir() else path.parent)
    of_run = path.is_dir() or path in (files.classifier, files.best)
    given = any(name in arguments.given.values for name in ("suite", "data.source"))
    if given or not of_run or not files.structure.is_file():
        return {}
    named = f"CLASSIFIER={arguments.classifier!r}"
    config = read_saved(files, FinetuneConfig, named, "give the images, --data.source and --data.path")
    return {name: get_setting(config, name) for name in settings(FinetuneConfig) if name.startswith("data.")}


def _check_images(source: str, config: EvaluateConfig, own: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse to measure on no images that were named, and on those that a run has trained on without a word.

    Args:
        source: the classifier.
        config: what it is measured on.
        own: the settings of `data` of its run, where the images are the run's own; else empty.
        given: the settings that were given, `own` among them.

    Raises:
        ValueError: it would be so.
    """
    if not any(name in given for name in OTHERS):
        raise ValueError(
            f"CLASSIFIER={source!r} does not say what to measure it on: give --data.source and --data.path of labelled "
            "images, or --suite all"
        )
    data = config.data
    if not own or data.evaluation_path or data.evaluation_split or data.source == "digits":
        return
    if data.holdout != own["data.holdout"]:
        raise ValueError(
            f"data.holdout={data.holdout:g} are not the images that the run of CLASSIFIER={source!r} has held out, "
            f"whose data.holdout is {own['data.holdout']:g}, and it has trained on some of them: leave --data.holdout "
            "out, or give other labelled images, --data.source and --data.path"
        )
    if not data.holdout:
        raise ValueError(
            f"CLASSIFIER={source!r} was trained on all images of its run's data: give other labelled ones, "
            "--data.source and --data.path, or --suite all"
        )


VERB = Verb(
    "measure a classifier on labelled images, or on ImageNet's robustness sets",
    add_arguments,
    run,
    "CLASSIFIER [--suite v2,real,a,r,o,sketch,objectnet,si_score|all --suite_path FOLDER | --data.source SOURCE ...]",
    "evaluate runs/imagenet --suite all --suite_path robustness",
)
