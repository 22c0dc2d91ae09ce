"""`lut-tf predict`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from lut_tf.cli.verb import Verb
from lut_tf.startup import import_tensorflow


def add_arguments(parser: ArgumentParser) -> None:
    """Give the parser the classifier, the images, and what to make of the answers."""
    parser.add_argument(
        "classifier",
        metavar="CLASSIFIER",
        help="a fine-tuning run's directory, a classifier's .keras file, or a fine-tuned file of LUT, MAE, timm or "
        "Hugging Face",
    )
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="image files, folders of them (with all below), and patterns such as 'photos/*.jpg'; one that is damaged "
        "is named, the others go on, and the exit status is 1",
    )
    parser.add_argument(
        "--output", metavar="PNG", help="a picture to write: the images as the classifier sees them, with its answers"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table: a list, an object an image")


def run(arguments: Namespace) -> None:
    """Ask, and print the answers."""
    from lut_tf.interop.classifier_sources import find_classifier
    from lut_tf.tasks.predict import find_images, predict

    find_classifier(arguments.classifier)
    paths = find_images(arguments.images)
    output = None
    if arguments.output is not None:
        from lut_tf.cli.show_views import check_output

        output = Path(check_output(arguments.output))
    import_tensorflow()
    predictions = predict(arguments.classifier, paths, output)
    print(predictions.as_json() if arguments.json else predictions.table())
    predictions.check_all_read()


VERB = Verb(
    "say what is in images: the five likeliest classes of each",
    add_arguments,
    run,
    "CLASSIFIER IMAGES... [--output PNG] [--json]",
    "predict runs/pets photos holiday/*.jpg --output answers.png",
)
