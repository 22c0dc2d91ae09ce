"""What a fine-tuning run begins with: an encoder, or where the run goes on, what it has written down of its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lut_tf.config import FinetuneConfig
from lut_tf.interop.sources import find_encoder, open_encoder
from lut_tf.training.run_directory import RunFiles, Structure, steps_in, structure_of, write_structure

if TYPE_CHECKING:
    from lut_tf.models.classifier import ViTClassifier
    from lut_tf.models.encoder import ViTEncoder

logger = logging.getLogger(__name__)


@dataclass
class Beginning:
    """What a run begins with.

    Attributes:
        origin: where the encoder is from, in words.
        checksum: of the encoder as it lay there; see `lut_tf.interop.sources`.
        encoder: in the host's memory, in the run's precision; None where the run goes on.
        written: what the run has written down; None where it begins.
    """

    origin: str
    checksum: str
    encoder: ViTEncoder | None = None
    written: Structure | None = None

    def make(self, config: FinetuneConfig, classes: int, class_names: list[str] | None) -> ViTClassifier:
        """Make the classifier, once: what was loaded is let go then.

        Raises:
            ValueError: the images have another number of classes than those that the run has begun with.
        """
        from lut_tf.models.classifier import ViTClassifier

        wanted = config.classifier
        if self.written is not None:
            classifier = ViTClassifier.from_config(self.written.classifier)
            if classifier.classes != classes:
                raise ValueError(
                    f"run_dir={config.run_dir!r} has begun with {classifier.classes} classes, and the images have "
                    f"{classes}: give the images of then, or another --run_dir"
                )
            return classifier
        encoder, self.encoder = self.encoder, None
        assert encoder is not None
        classifier = ViTClassifier.from_encoder(
            encoder, classes, wanted.pooling, wanted.drop_path, wanted.image_size, class_names
        )
        grids = encoder.grid, classifier.encoder.grid
        if grids[0] != grids[1]:
            self.origin += "; positions resized from {}×{} to {}×{} patches".format(*grids[0], *grids[1])
        return classifier

    def write(self, files: RunFiles, classifier: ViTClassifier) -> None:
        """Write down what a run that goes on needs."""
        write_structure(files, Structure(self.origin, self.checksum, classifier.get_config()))


def find_beginning(config: FinetuneConfig) -> Beginning | None:
    """Return what a run that goes on has written down; None where it begins, having found its encoder by names alone.

    Raises:
        FileNotFoundError: there is no encoder.
        ValueError: it is something else.
    """
    files = RunFiles(Path(config.run_dir))
    if steps_in(files.checkpoints):
        if (written := structure_of(files)) is not None:
            return Beginning(written.origin, written.checksum, written=written)
        logger.warning("%s is not what a run has written: init_from is read once more", files.structure)
    find_encoder(str(config.init_from), setting="init_from")
    return None


def open_beginning(config: FinetuneConfig) -> Beginning:
    """Return what the run begins with, in the host's memory.

    Raises:
        FileNotFoundError, ValueError: as `find_beginning`, or it cannot be read, or cannot take the input size.
    """
    if (written := find_beginning(config)) is not None:
        return written
    import tensorflow as tf

    from lut_tf.models.encoder import ViTEncoder

    with tf.device("CPU:0"):  # the devices are the run's own
        opened = open_encoder(str(config.init_from), setting="init_from")
        wanted = config.classifier
        own = opened.encoder
        wanted.check_encoder(own.patch_size, own.has_class_token, str(config.init_from))
        encoder = ViTEncoder.from_config({**own.get_config(), "dtype": config.compute.precision})
        for target, source in zip(encoder.variables, own.variables, strict=True):
            target.assign(source)
    return Beginning(opened.origin, opened.checksum, encoder)
