"""Classifiers of timm, Hugging Face and the reference trainers, in and out, head included."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lut_tf.config import FinetuneConfig
from lut_tf.config.networks import sides
from lut_tf.interop.encoders import (
    asked,
    encoder_tensors,
    huggingface_config,
    make_encoder,
    spelled,
    write_folder,
    write_layout,
)
from lut_tf.interop.files import Source, Tensors, check_target, describe, read_weights
from lut_tf.interop.keras_files import load_keras
from lut_tf.interop.names import ENCODER_LAYOUTS, HEADS, Row, Slot, bind
from lut_tf.interop.runs import load_classifier_run, other_step
from lut_tf.interop.shapes import detect_layout, need
from lut_tf.interop.tensors import assign, read, write
from lut_tf.interop.told import Told
from lut_tf.models.classifier import POOLINGS, ViTClassifier
from lut_tf.models.preprocess import Preprocessing
from lut_tf.paths import is_saved_folder, spelled_out
from lut_tf.training.run_directory import find_saved

# What stands beside a classifier and does not change its logits.
_BESIDE = re.compile(r"mask_token$|masked_embed$|embeddings\.mask_token$|decoder|pooler\.|.*num_batches_tracked$")


def load_classifier(
    source: Source,
    *,
    num_heads: int | None = None,
    pooling: str | None = None,
    image_size: int | Sequence[int] | None = None,
    layer_norm_eps: float | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
) -> ViTClassifier:
    """Load a classifier that was fine-tuned here, by LUT or MAE, or that timm or Hugging Face (`ViT*`) wrote.

    Layout and pooling are told by the names: a norm after the pooling (`fc_norm`: LUT, MAE, timm's
    `global_pool="avg"`) means the mean of the patches, a final norm of the tokens the class token. Positions become
    trainable. Of a trainer's file it is the student.

    Args:
        source: as `load_encoder` takes it; or the path of a classifier's .keras file, or of a fine-tuning run (its last
            classifier, or of one that is not finished that of its newest checkpoint): these know all that follows but
            `image_size`.
        num_heads: see `load_encoder`.
        pooling: `mean` or `cls`, to be refused where the file holds the other.
        image_size: see `load_encoder`.
        layer_norm_eps: see `load_encoder`.
        preprocessing: see `load_encoder`.

    Returns:
        The classifier, without drop path where a file does not say it; a folder's names of classes are its own.

    Raises:
        FileNotFoundError: there is no such file, or the run has saved nothing.
        MissingExtraError: the file needs PyTorch, which is not installed.
        lut_tf.training.checkpoint.DamagedCheckpoint: every checkpoint of the run is damaged.
        ValueError: see `load_encoder`; or the source has no linear layer to classify, or pools in a way that is not
            known here.
    """
    if pooling not in (None, *POOLINGS):
        raise ValueError(f'pooling={pooling!r} is not known: choose "mean" or "cls"')
    settings = {"num_heads": num_heads, "layer_norm_eps": layer_norm_eps, "preprocessing": preprocessing}
    if isinstance(source, str | os.PathLike):
        path = Path(spelled_out(source))
        if path.suffix == ".keras" or (path.is_dir() and not is_saved_folder(path)):
            return _of_ours(path, image_size, pooling=pooling, **settings)
    return read_classifier(source, image_size, pooling, **settings)[0]


def _of_ours(path: Path, image_size: int | Sequence[int] | None, **settings: Any) -> ViTClassifier:
    for setting, value in settings.items():
        if value is not None:
            raise ValueError(f"{setting} is given, but {path} knows its own: leave it out")
    classifier = _of_keras(path) if path.suffix == ".keras" else _of_run(path)
    if not isinstance(classifier, ViTClassifier):
        raise ValueError(
            f"{path} holds a {type(classifier).__name__}, not a classifier: give the file of one, or put a new head on "
            "an encoder with ViTClassifier.from_encoder"
        )
    return classifier if image_size is None else classifier.resized(image_size)


def _of_keras(path: Path) -> Any:
    try:
        return load_keras(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no .keras file of lut_tf ({error})") from error


def _of_run(path: Path) -> ViTClassifier:
    saved = find_saved(path, tree=FinetuneConfig)
    return load_classifier_run(saved, other_step(saved)).classifier


def read_classifier(
    source: Source, image_size: int | Sequence[int] | None = None, pooling: str | None = None, **settings: Any
) -> tuple[ViTClassifier, str]:
    """Return what `load_classifier` does of other people's weights, and a line on the preprocessing that was taken."""
    what = describe(source)
    weights = read_weights(source)
    arrays = {name: array for name, array in spelled(weights.student, what).items() if not _BESIDE.match(name)}
    layout = detect_layout(arrays, what)
    classes = _count_classes(arrays, _kernel(_rows(layout)), what)
    found = _pooling(arrays, weights.told, pooling, what)
    wanted = None if image_size is None else sides(image_size)
    made = make_encoder(arrays, layout, asked(weights.told, **settings), wanted, what, learned=True)
    names = _class_names(weights.told, classes, what)
    classifier = ViTClassifier(made.encoder, classes, found, class_names=names)
    assign(read(_slots(classifier, layout), made.arrays, what))
    resized = classifier if wanted in (None, classifier.image_size) else classifier.resized(wanted)
    return resized, made.taken


def holds_classifier(source: Source) -> bool:
    """Tell whether weights are those of a classifier that `load_classifier` may read, of the names alone."""
    names = read_weights(source).student
    return any(_kernel(rows) in names for rows in HEADS.values())


def _rows(layout: str) -> tuple[Row, ...]:
    return HEADS[layout.split()[0]]


def _kernel(rows: tuple[Row, ...]) -> str:
    """Return what the linear layer's matrix is called."""
    return next(row.theirs for row in rows if row.ours == "head.kernel")


def _slots(classifier: ViTClassifier, layout: str) -> list[Slot]:
    """Return every tensor of a classifier; with the mean of the patches the encoder's final norm is none of it."""
    encoder = bind(ENCODER_LAYOUTS[layout], classifier.encoder)
    if classifier.pooling == "mean":
        encoder = [slot for slot in encoder if not slot.row.ours.startswith("norm.")]
    return encoder + bind(_rows(layout), classifier)


def _count_classes(arrays: Tensors, kernel: str, what: str) -> int:
    """Return how many classes the linear layer has whose matrix is `kernel`.

    Raises:
        ValueError: there is none.
    """
    if kernel not in arrays:
        raise ValueError(
            f"{what} holds no classifier, {kernel} is missing: give a fine-tuned file, or put a new head on its "
            "encoder with load_encoder and ViTClassifier.from_encoder"
        )
    need(arrays, kernel, 2, what)
    return arrays[kernel].shape[0]


def _pooling(arrays: Tensors, told: Told, asked_for: str | None, what: str) -> str:
    """Return how the classifier that the tensors are of pools its tokens.

    Raises:
        ValueError: in a way that is not known here, or in another than was asked for.
    """
    found = "mean" if "fc_norm.weight" in arrays else "cls"
    if told.pooling not in (None, found):
        norm = "a norm after the pooling" if found == "mean" else "a final norm of the tokens"
        raise ValueError(
            f"{what} cannot be loaded: it pools by {told.pooling!r} and has {norm}, and classifiers here pool by the "
            "mean with a norm after it, or by the class token with one before"
        )
    if asked_for not in (None, found):
        raise ValueError(f"pooling={asked_for!r}, but the names in {what} say {found!r}: leave it out")
    return found


def _class_names(told: Told, classes: int, what: str) -> tuple[str, ...] | None:
    if told.class_names is not None and len(told.class_names) != classes:
        raise ValueError(
            f"{what} is damaged: it names {len(told.class_names)} classes, and its linear layer has {classes}"
        )
    return told.class_names


def classifier_tensors(classifier: ViTClassifier, layout: str) -> Tensors:
    """Return the weights, head included, as float32 arrays by the names of `layout`.

    Raises:
        ValueError: the layout is not known, or has no place for such a classifier.
    """
    tensors = encoder_tensors(classifier.encoder, layout)
    if classifier.pooling == "mean":
        tensors = {name: array for name, array in tensors.items() if not name.startswith("norm.")}
    if layout == "huggingface":
        _check_huggingface(classifier)
        tensors = {f"vit.{name}": array for name, array in tensors.items()}
    return tensors | write(bind(_rows(layout), classifier))


def _check_huggingface(classifier: ViTClassifier) -> None:
    if classifier.pooling != "cls":
        raise ValueError(
            f'layout="huggingface" classifies by the class token, and this classifier has pooling='
            f'{classifier.pooling!r}: choose "timm"'
        )
    if classifier.encoder.layer_scale:
        raise ValueError(
            'layout="huggingface" with LayerScale joins the class token and the mean of the patches, which this '
            'classifier does not: choose "timm"'
        )


def save_classifier(classifier: ViTClassifier, path: str | os.PathLike[str], layout: str = "timm") -> None:
    """Write a classifier, head included, for timm, Hugging Face (`ViTForImageClassification`) or the reference.

    As in `save_encoder` heads, image size and `layer_norm_eps` do not stand in such a file, nor do names of classes.

    Args:
        classifier: any; written in float32.
        path: ends in .safetensors or .pth (which needs PyTorch); replaced if it exists.
        layout: `timm` (`global_pool="avg"` or `"token"`), `reference` (the same names; a .pth has them under `model`)
            or `huggingface`, which has `pooling="cls"` only.

    Raises:
        FileNotFoundError: the folder does not exist.
        MissingExtraError: a .pth is wanted and PyTorch is not installed.
        ValueError: the layout or the path's ending is not known, or the layout has no place for the classifier.
    """
    write_layout(check_target(path), classifier_tensors(classifier, layout), layout)


def save_classifier_folder(classifier: ViTClassifier, folder: str | os.PathLike[str]) -> None:
    """Write a classifier as a new folder that Hugging Face's `from_pretrained` reads, names of classes included.

    Args:
        classifier: with `pooling="cls"`; written in float32.
        folder: replaced if it exists.

    Raises:
        ValueError: Hugging Face has no place for the classifier; see `classifier_tensors`.
    """
    tensors = classifier_tensors(classifier, "huggingface")
    names = classifier.class_names or [f"LABEL_{i}" for i in range(classifier.classes)]
    config = huggingface_config(classifier.encoder) | {
        "architectures": ["ViTForImageClassification"],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    write_folder(folder, tensors, config, classifier.encoder)
