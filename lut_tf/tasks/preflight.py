"""What can be refused before TensorFlow starts: settings, run directory, images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lut_tf.config import Config, validate
from lut_tf.training.run_directory import check_images, check_run_dir

if TYPE_CHECKING:
    from lut_tf.data.reading.listing import Listing


def preflight(config: Config) -> Listing:
    """Refuse a pre-training run that cannot work; return the listing of its images, which the run then reads.

    TensorFlow is imported only where the images lie behind it (`tfds`, `gs://…`). Nothing is written.

    Raises:
        FileNotFoundError: the images do not exist.
        PermissionError: the run directory cannot be written.
        ValueError: settings that cannot be or contradict each other, another run's directory, or a batch or neighbours
            that outnumber the images.
    """
    validate(config)
    check_run_dir(config)
    from lut_tf.data.reading.listing import list_data  # NumPy is not needed to say what a setting may be

    listing = list_data(config.data)
    check_images(config, listing.images)
    checks = [lambda: config.check_images(listing.images)]
    if config.probe.asked and listing.why_no_probes == "":
        checks.append(lambda: config.probe.check_bank(listing.images))
    mistakes = []
    for check in checks:
        try:
            check()
        except ValueError as mistake:
            mistakes.append(str(mistake))
    if mistakes:  # all at once: to mend one and meet the next is tedious
        raise ValueError("; ".join(mistakes))
    return listing
