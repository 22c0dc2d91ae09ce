"""What can be refused before TensorFlow starts: settings, run directory, images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lut_tf.config import Config, FinetuneConfig, RunConfig, check_tf_config, validate
from lut_tf.errors import told_together
from lut_tf.tasks.begun import find_beginning
from lut_tf.tasks.initial import find_initial
from lut_tf.training.going_on import check_run_dir, check_same_images

if TYPE_CHECKING:
    from lut_tf.data.reading.listing import Listing


def preflight(config: Config) -> Listing:
    """Refuse a pre-training run that cannot work; return the listing of its images, which the run then reads.

    TensorFlow is imported only where the images lie behind it (`tfds`, `gs://…`). Nothing is written.

    Raises:
        FileNotFoundError: the images, or the weights to start from, do not exist.
        PermissionError: the run directory cannot be written.
        ValueError: settings that cannot be or contradict each other, another run's directory, other images than the run
            has begun with, weights that do not fit, or a batch or neighbours that outnumber the images.
    """
    _check_run(config)
    find_initial(config)
    listing = _listed(config)
    checks = [lambda: config.check_images(listing.images)]
    if config.probe.asked and listing.why_no_probes == "":
        checks.append(lambda: config.probe.check_bank(listing.images))
    told_together(*checks)
    return listing


def preflight_finetuning(config: FinetuneConfig) -> Listing:
    """Refuse a fine-tuning run that cannot work; return the listing of its images; see `preflight`.

    Raises:
        FileNotFoundError: the images, or the encoder to begin with, do not exist.
        PermissionError: the run directory cannot be written.
        ValueError: as `preflight`; what should be an encoder is none; or the images have no labels, or those of one
            class.
    """
    _check_run(config)
    find_beginning(config)
    listing = _listed(config)
    told_together(lambda: config.check_images(listing.images), lambda: listing.check_classes(config.data))
    return listing


def _check_run(config: RunConfig) -> None:
    validate(config)
    if config.strategy == "multi_worker" and config.workers is None:
        check_tf_config()
    check_run_dir(config)


def _listed(config: RunConfig) -> Listing:
    from lut_tf.data.reading.listing import list_data  # NumPy is not needed to say what a setting may be

    listing = list_data(config.data)
    check_same_images(config, listing.digest, listing.images)
    return listing
