"""What can be refused before TensorFlow starts: settings, run directory, images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lut_tf.config import Config, FinetuneConfig, LinearProbeConfig, RunConfig, check_tf_config, validate
from lut_tf.errors import told_together
from lut_tf.interop.sources import find_encoder
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


def preflight_probe(config: LinearProbeConfig) -> Listing:
    """Refuse a linear probe that cannot work; return the listing of its images; see `preflight`.

    Raises:
        FileNotFoundError: the images, or the encoder, do not exist.
        PermissionError: the run directory cannot be written.
        ValueError: as `preflight`; what should be an encoder is none; the images have no labels, or those of one class;
            or there are none to choose by or to score on.
    """
    if config.solver == "logistic":
        validate(config)
        find_encoder(str(config.init_from), setting="init_from")
        listing = _listed_beside(config)
    else:
        _check_run(config)
        find_encoder(str(config.init_from), setting="init_from")
        listing = _listed(config)
    checks = [lambda: listing.check_classes(config.data)]
    if config.solver == "lars":
        checks.append(lambda: config.check_images(listing.images))
    if listing.train is not None:  # the digits have parts of their own
        checks.append(lambda: config.check_judges(listing.evaluation is not None))
    told_together(*checks)
    return listing


def _listed_beside(config: LinearProbeConfig) -> Listing:
    """Return the listing of a measure that no run is made of: it writes beside the encoder."""
    from lut_tf.data.reading.listing import list_data
    from lut_tf.evaluate.frozen import check_place

    check_place(str(config.init_from), "init_from")
    return list_data(config.data)


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
