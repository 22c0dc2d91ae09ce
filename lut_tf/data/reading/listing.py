"""What a data set holds, found out once: the checks list it, and the run reads what they listed.

TensorFlow is imported only for its own file systems (`gs://…`) and for prepared data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lut_tf.config import DataConfig, validate
from lut_tf.data.reading.digest import all_but, digest_of, digest_of_part, written_of
from lut_tf.data.reading.folder import FolderListing, counted, list_folder
from lut_tf.data.reading.holdout import held_number, held_out
from lut_tf.data.reading.records import RecordListing, list_records, record_files

if TYPE_CHECKING:
    from lut_tf.data.reading.public import SplitListing

    Listed = FolderListing | RecordListing | SplitListing

DIGITS_TRAINING, DIGITS_VALIDATION = 1197, 300  # images of `sources.digits`
NO_LABELS = "the training images have no labels"
UNLABELLED = {
    "image_folder": "is flat: sort it into class folders",
    "tfrecord": "is read without labels: give data.label_feature",
    "tfds": "has no labels: leave {setting} out",
}
"""What is wrong with images that are to be measured on, by their source, and the remedy."""
ONE_CLASS = "the training images are of one class, and there is nothing to tell apart"


@dataclass(frozen=True, eq=False)  # arrays cannot be compared
class Listing:
    """The images that `data` names.

    Attributes:
        images: number of images that are trained on.
        evaluation_images: number of images that probes are scored on while training, or None without any.
        train: what was found out of the training images, held-out ones too; None: the digits, of which all is known.
        evaluation: the same of the evaluation images, or None.
        holdout: share of `train` that is held out (`lut_tf.data.reading.holdout`).
    """

    images: int
    evaluation_images: int | None
    train: Listed | None
    evaluation: Listed | None
    holdout: float = 0.0

    @property
    def why_no_probes(self) -> str:
        """Why nothing can be measured, as far as a listing tells; empty where it can."""
        if self.train is not None and not self.train.labelled:
            return NO_LABELS
        if self.evaluation_images is None:
            return (
                "there are no evaluation images (data.evaluation_path, data.evaluation_split of tfds or data.holdout)"
            )
        if self.train is not None and self.train.classes is not None and len(self.train.classes) == 1:
            return ONE_CLASS
        return ""

    def check_classes(self, data: DataConfig) -> None:
        """Refuse training images of which there is nothing to learn: without labels, or of one class.

        Args:
            data: the settings that name the images.

        Raises:
            ValueError: they are.
        """
        if self.train is None:
            return
        setting, value = ("name", data.name) if data.source == "tfds" else ("path", data.path)
        named = f"data.{setting}={value!r}"
        if not self.train.labelled:
            remedies = {
                "image_folder": "sort the images into a folder a class",
                "tfrecord": "give --data.label_feature NAME",
                "tfds": "give a labelled data set",
            }
            raise ValueError(f"{named}: {NO_LABELS}, which a classifier learns: {remedies[data.source]}")
        if self.train.classes is not None and len(self.train.classes) == 1:
            raise ValueError(f"{named}: {ONE_CLASS}: give images of two classes or more")

    @cached_property
    def digest(self) -> str:
        """Which images these are to train on, in 64 letters (see `digest_of`)."""
        return digest_of_part(self._all, all_but(self.holdout)) if self.holdout else self._all

    @cached_property
    def evaluation_digest(self) -> str:
        """The same of the images that results are reported on."""
        if self.evaluation is None and self.holdout:
            return digest_of_part(self._all, f"{self.holdout!r} held out")
        return digest_of(self.evaluation)

    @cached_property
    def written(self) -> str:
        """What tells that training images, held-out ones too, were written anew under their names (`written_of`)."""
        return written_of(self.train)

    @cached_property
    def evaluation_written(self) -> str:
        """The same of the images that results are reported on."""
        return self.written if self.evaluation is None else written_of(self.evaluation)

    @cached_property
    def _all(self) -> str:
        return digest_of(self.train)

    @property
    def evaluates_training(self) -> bool:
        """Whether the evaluation images are the training images, and say nothing of new ones."""
        return self.evaluation is not None and self.evaluation_digest == self._all

    @property
    def left_out(self) -> str:
        """One line: which files of the folders are no images that can be read; empty where there are none."""
        parts = {"training": self.train, "evaluation": self.evaluation}
        found = {name: part.left_out for name, part in parts.items() if isinstance(part, FolderListing)}
        return "; ".join(f"{counted(left)} of the {name} folder" for name, left in found.items() if left)


def list_data(data: DataConfig) -> Listing:
    """Check that the images are there, and list them for `open_sources`, without reading one.

    Files of TensorFlow's file systems are an exception: to find their records they are read whole, once.

    Raises:
        FileNotFoundError, ValueError: as `validate`, `list_folder`, `record_files`, `list_records`, `builder_of` and
            `list_splits`, the evaluation images have other classes, or training images cannot be held out.
    """
    validate(data, "data")
    path, evaluation = str(data.path), data.evaluation_path
    if data.source == "digits":
        return Listing(DIGITS_TRAINING, DIGITS_VALIDATION, None, None)
    if data.source == "image_folder":
        folder = list_folder(path)
        other_folder = list_folder(evaluation, "data.evaluation_path") if evaluation else None
        return _listing(data, folder, other_folder)
    if data.source == "tfrecord":
        feature = data.label_feature
        records = list_records(record_files(path), feature)
        other_records = list_records(record_files(evaluation, "data.evaluation_path"), feature) if evaluation else None
        return _listing(data, records, other_records)
    return _listing(data, *_list_splits(data))


def _list_splits(data: DataConfig) -> tuple[SplitListing, SplitListing | None]:
    from lut_tf.data.reading.public import builder_of, list_splits  # imports TensorFlow

    wanted = [(data.split, "data.split")]
    if data.evaluation_split:
        wanted.append((data.evaluation_split, "data.evaluation_split"))
    train, *evaluation = list_splits(builder_of(str(data.name), data.path), wanted)
    return train, evaluation[0] if evaluation else None


def _listing(data: DataConfig, train: Listed, evaluation: Listed | None) -> Listing:
    if evaluation is not None:
        _check_classes(data, train, evaluation)
    asked = None if evaluation is None else evaluation.images
    if not data.holdout:
        return Listing(train.images, asked, train, evaluation)
    _check_holdout(data, train)
    held = held_number(train.images, data.holdout)
    return Listing(train.images - held, held, train, evaluation, data.holdout)


def _check_holdout(data: DataConfig, train: Listed) -> None:
    """Refuse to hold out images without labels, or too few; of what is not opened yet, as far as can be told."""
    if not train.labelled:
        part, unlabelled = data.split if data.source == "tfds" else data.path, UNLABELLED[data.source]
        raise ValueError(
            f"data.holdout={data.holdout:g} is for labelled images, but {part!r} "
            f"{unlabelled.format(setting='data.holdout')}"
        )
    if isinstance(train, FolderListing) and train.labels is not None:
        held_out(train.labels, data.holdout)


def _check_classes(data: DataConfig, train: Listed, evaluation: Listed) -> None:
    """Refuse evaluation images without labels, or of other classes than the training images."""
    setting, value = "data.evaluation_path", data.evaluation_path
    if data.source == "tfds":
        setting, value = "data.evaluation_split", data.evaluation_split
    start, unlabelled = f"{setting}: {value!r}", UNLABELLED[data.source].format(setting=setting)
    for listing, part in ((train, data.split if data.source == "tfds" else data.path), (evaluation, value)):
        if not listing.labelled:
            raise ValueError(f"{start} is for labelled images, but {part!r} {unlabelled}")
    if train.classes != evaluation.classes:
        odd = sorted(set(train.classes or []) ^ set(evaluation.classes or []))
        names = ", ".join(odd[:5])
        raise ValueError(f"{start} and data.path {data.path!r} differ in {len(odd)} classes ({names}): make them equal")
