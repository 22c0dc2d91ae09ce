"""What can be refused before TensorFlow starts: settings, run directory, images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lut_tf.config import Config, validate
from lut_tf.tasks.initial import find_initial
from lut_tf.training.run_directory import check_run_dir, check_same_images

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
    validate(config)
    check_run_dir(config)
    find_initial(config)
    from lut_tf.data.reading.digest import digest_of
    from lut_tf.data.reading.listing import list_data  # NumPy is not needed to say what a setting may be

    listing = list_data(config.data)
    check_same_images(config, digest_of(listing))
    config.check_images(listing.images)
    bank = min(listing.images, config.probe.images)
    if listing.evaluation_images is not None and config.probe.neighbours > bank:  # else no k-NN is asked
        raise ValueError(
            f"probe.neighbours={config.probe.neighbours} is more than the {bank} images that k-NN may ask: "
            f"give --probe.neighbours {bank} or less"
        )
    return listing
