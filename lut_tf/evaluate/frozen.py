"""What a frozen encoder's features are worth, by the protocols that train no network: k-NN and few-shot.

All that can be refused is, before TensorFlow is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lut_tf.config import DataConfig, validate
from lut_tf.config.measuring import FewShotConfig, FrozenConfig, KnnConfig
from lut_tf.data.reading.folder import FolderListing
from lut_tf.data.reading.listing import NO_LABELS, ONE_CLASS, Listing, list_data
from lut_tf.evaluate.results import Result, accuracy, mean_of_draws, results_path
from lut_tf.interop.sources import data_of, find_encoder, open_encoder
from lut_tf.startup import import_tensorflow
from lut_tf.writing import nearest_existing

if TYPE_CHECKING:
    from lut_tf.data.reading.sources import Parts
    from lut_tf.interop.sources import OpenedEncoder

LABELS_FROM = {
    "image_folder": "sort the images into class folders",
    "tfrecord": "give --data.label_feature NAME",
    "tfds": "give a data set that has them",
}
Source = str | os.PathLike[str]
CheckLabels = Callable[[np.ndarray], None]


def measure_knn(
    source: Source,
    config: KnnConfig | None = None,
    step: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    setting: str = "source",
) -> Result:
    """Classify the evaluation images by the votes of the nearest training images; see `knn_correct`.

    Args:
        source: of the encoder; see `lut_tf.interop.find_encoder`.
        config: images, features and votes; None: the defaults, on the images of the run that the encoder is from.
        step: of a run's checkpoint; None takes the encoder that the finished run left, else the newest checkpoint.
        say: called with lines on what is done.
        setting: what errors call `source`.

    Returns:
        figures `knn10` and so on, one for each k; not yet written (`save_result`).

    Raises:
        FileNotFoundError: there is no encoder, or there are no images.
        PermissionError: nothing can be written beside the encoder.
        ValueError: settings that cannot be, what is no encoder, images without labels or of one class, nothing to
            measure on, fewer training images than neighbours, or an image whose features are not finite.
        lut_tf.errors.Stopped: too many images are damaged.
    """
    config = config or KnnConfig(data=data_of(source, step, setting))
    frozen = _frozen(source, config, step, say, setting, lambda labels: config.check_bank(int(np.sum(labels >= 0))))
    from lut_tf.evaluate.knn import knn_correct

    learned, asked = (frozen.bank, frozen.bank_labels), (frozen.queries, frozen.labels)
    correct = knn_correct(*learned, *asked, config.neighbours, config.temperature)
    figures = {f"knn{k}": accuracy(right, frozen.asked) for k, right in correct.items()}
    return frozen.result("knn", figures, config)


def measure_few_shot(
    source: Source,
    config: FewShotConfig | None = None,
    step: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    setting: str = "source",
) -> Result:
    """Classify the evaluation images by a few labelled images a class; see `few_shot_least_squares`.

    Arguments and errors are those of `measure_knn`; the training images must have `shots` of each class and one more.

    Returns:
        figures `1_shot` and so on, the mean of the draws, whose interval is that of the draws; `details` has the
        accuracy of each and the regularisation that was chosen. Not yet written (`save_result`).
    """
    config = config or FewShotConfig(data=data_of(source, step, setting))

    def check(labels: np.ndarray) -> None:
        _, counts = np.unique(labels[labels >= 0], return_counts=True)
        config.check_bank(int(counts.min()), int(counts.sum()), len(counts))

    frozen = _frozen(source, config, step, say, setting, check)
    from lut_tf.evaluate.least_squares import few_shot_least_squares

    learned, asked = (frozen.bank, frozen.bank_labels), (frozen.queries, frozen.labels)
    found = {
        f"{shots}_shot": few_shot_least_squares(*learned, *asked, shots, config.draws, config.seed)
        for shots in config.shots
    }
    figures = {name: mean_of_draws(each.accuracies) for name, each in found.items()}
    return frozen.result("few_shot", figures, config, {name: each._asdict() for name, each in found.items()})


def data_facts(data: DataConfig, listing: Listing, parts: Parts) -> dict[str, Any]:
    """Return what a result tells of its images (`lut_tf.evaluate.results.Result.data`).

    Args:
        data: the settings.
        listing: what they name.
        parts: the sources that were made of it.
    """
    final, known = parts.final, parts.train.labels
    return {
        "source": data.source,
        "name": data_name(data, data.path),
        "digest": listing.digest,
        "evaluation_digest": listing.evaluation_digest,
        "images": len(parts.train),
        "evaluation_images": len(final) if final is not None else 0,
        "classes": len(np.unique(known[known >= 0])) if known is not None else 0,
        "part": f"{len(final) if final is not None else 0} {parts.name(final)} images",
    }


def check_place(source: Source, setting: str) -> None:
    """Refuse an encoder beside which nothing can be written.

    Raises:
        PermissionError: it lies in such a place.
    """
    place = nearest_existing(results_path(source, "x"))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{setting}={os.fspath(source)!r} cannot be measured where it is, results and features are written beside "
            f"it and there is no write permission in {place}: copy it to another folder"
        )


def features_folder(source: Source) -> Path:
    """Return where the features of the encoder at `source` are kept: beside its results."""
    from lut_tf.evaluate.feature_cache import FOLDER

    return results_path(source, "").parent.parent / FOLDER


def stamp_of(data: DataConfig) -> dict[str, Any]:
    """Return how images are read, for the stamp of their features; see `cached_features`."""
    names = ("source", "image_feature", "apply_exif", "bits")
    return {name: getattr(data, name) for name in names}


def images_of(listing: Listing) -> tuple[dict[str, str], dict[str, str]]:
    """Return which images are learned from and which are asked about, and how they stand, for stamps of features."""
    return (
        {"digest": listing.digest, "written": listing.written},
        {"digest": listing.evaluation_digest, "written": listing.evaluation_written},
    )


def check_labelled(data: DataConfig, listing: Listing) -> None:
    """Refuse images that nothing can be measured on, as far as their listing tells.

    Raises:
        ValueError: they have no labels, one class, or there are none to measure on.
    """
    setting = "data.split" if data.source == "tfds" else "data.path"
    named = f"{setting}={data.split if data.source == 'tfds' else data.path!r}"
    why = listing.why_no_probes
    if why == NO_LABELS:
        raise ValueError(f"{named} has no labels, which measures need: {LABELS_FROM[data.source]}")
    if why == ONE_CLASS:
        raise ValueError(f"{named} has one class, and there is nothing to tell apart: give images of several classes")
    if why:
        part, kind = ("evaluation_split", "PART") if data.source == "tfds" else ("evaluation_path", "IMAGES")
        raise ValueError(
            f"data.{part}=null and data.holdout=0 leave no images to measure on: give --data.{part} {kind}, or "
            "--data.holdout 0.1 to measure on a tenth of the training images"
        )


def data_name(data: DataConfig, path: str | None) -> str:
    """Return what people call the images at a path: the data set's name, or the path's last folders.

    Args:
        data: the settings that name them.
        path: of these images; None: that of the training images, which they were held out of.
    """
    if data.source == "tfds":
        return str(data.name)
    path = path or data.path
    if path is None:
        return data.source
    parts = Path(path).parts
    return "/".join(parts[-3:-1] if data.source == "tfrecord" else parts[-2:]).strip("/") or data.source


@dataclass(frozen=True, eq=False)
class _Frozen:
    """Features of the training and of the evaluation images, with what a result tells of them."""

    opened: OpenedEncoder
    data: dict[str, Any]
    bank: np.ndarray
    bank_labels: np.ndarray
    queries: np.ndarray
    labels: np.ndarray

    @property
    def asked(self) -> int:
        """How many evaluation images have a label."""
        return int(np.sum(self.labels >= 0))

    def result(
        self, protocol: str, figures: dict[str, Any], config: FrozenConfig, details: dict[str, Any] | None = None
    ) -> Result:
        settings = {name: value for name, value in asdict(config).items() if name not in ("data", "image_size")}
        model = {**self.opened.facts, "pooling": config.pooling}
        return Result(protocol, figures, model, self.data, settings, details or {})


def _frozen(
    source: Source, config: FrozenConfig, step: int | None, say: Callable[[str], None], setting: str, check: CheckLabels
) -> _Frozen:
    """Refuse what cannot be, and return the features; `check` refuses the labels (N,) of the training images."""
    listing = _preflight(source, config, step, setting, check)
    import_tensorflow()
    from lut_tf.evaluate.feature_cache import cached_features

    parts = _labelled(config.data, listing, check)
    train, final = parts.train, parts.final
    assert final is not None and train.labels is not None and final.labels is not None
    opened = open_encoder(source, step, config.image_size, setting)
    if config.pooling == "cls" and not opened.encoder.has_class_token:
        raise ValueError(f"pooling=cls needs a class token, and {setting}={os.fspath(source)!r} has none: give mean")
    data = data_facts(config.data, listing, parts)
    say(f"{opened.origin}: {data['images']} training images of {data['name']}, scored on {data['part']}")
    folder, how = features_folder(source), stamp_of(config.data)
    learned, asked = images_of(listing)
    training = {"part": "training", **learned, **how}
    evaluation = {"part": parts.name(final), **asked, **how}
    bank = cached_features(folder, opened, config.pooling, train, training)
    queries = cached_features(folder, opened, config.pooling, final, evaluation)
    say(f"features are kept in {folder}: {(bank.nbytes + queries.nbytes) / 1e6:.1f} MB")
    return _Frozen(opened, data, bank, train.labels, queries, final.labels)


def _preflight(source: Source, config: FrozenConfig, step: int | None, setting: str, check: CheckLabels) -> Listing:
    """Refuse what can be without TensorFlow, and return the listing of the images."""
    validate(config)
    find_encoder(source, step, setting)
    check_place(source, setting)
    listing = list_data(config.data)
    check_labelled(config.data, listing)
    if isinstance(listing.train, FolderListing) and listing.train.labels is not None:
        check(listing.train.labels)
    return listing


def _labelled(data: DataConfig, listing: Listing, check: CheckLabels) -> Parts:
    """Open the images, and refuse labels that nothing can be measured by."""
    from lut_tf.data.reading.sources import open_sources

    parts, named = open_sources(data, listing), f"data.source={data.source}"
    labels = parts.train.labels
    classes = 0 if labels is None else len(np.unique(labels[labels >= 0]))
    if labels is None or classes < 2:
        raise ValueError(
            f"{named}: the labelled training images are of {classes or 'no'} class, and there is nothing to tell "
            "apart: give images of several classes"
        )
    final = parts.final
    if final is None or final.labels is None or not np.any(final.labels >= 0):
        raise ValueError(
            f"{named}: no {parts.name(final)} image has a label, and figures are about those that do: give others, or "
            "--data.holdout 0.1"
        )
    check(labels)
    return parts
