"""One file of weights into another: what `lut-tf convert` does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lut_tf.config import Config, FinetuneConfig
from lut_tf.interop.classifiers import holds_classifier, read_classifier, save_classifier, save_classifier_folder
from lut_tf.interop.encoders import LAYOUTS, read_encoder, save_encoder, save_folder
from lut_tf.interop.files import check_target, read_weights
from lut_tf.interop.keras_files import load_keras
from lut_tf.interop.reference import save_reference
from lut_tf.interop.runs import RunClassifier, RunModel, load_classifier_run, load_run, other_step
from lut_tf.methods.base import MaskedImageModel
from lut_tf.models.classifier import ViTClassifier
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.preprocess import Preprocessing
from lut_tf.paths import is_saved_folder
from lut_tf.training.run_directory import RunFiles, Saved, find_saved, verb_of_run
from lut_tf.writing import replacing

logger = logging.getLogger(__name__)

TARGETS = (".keras", ".safetensors", ".pth")


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    layout: str | None = None,
    num_heads: int | None = None,
    image_size: int | Sequence[int] | None = None,
    step: int | None = None,
    layer_norm_eps: float | None = None,
    preprocessing: Preprocessing | None = None,
    classifier: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Read an encoder, or a classifier, in one form and write it in another.

    Args:
        source: .pth, .pt, .bin, .ckpt or .safetensors of timm, Hugging Face or a reference trainer, a folder of
            `save_pretrained` (see `load_encoder`), .keras of an encoder, a classifier or a whole `LUT` or `MAE`
            model, or a run directory, which is a whole model.
        target: ends in .keras, .safetensors or .pth; replaced if it exists. As `huggingface` also a new folder, which
            Hugging Face's `from_pretrained` reads.
        layout: `timm` (the default), `huggingface` or `reference`, of a .safetensors or .pth; a whole model goes out
            whole as `reference`, as its encoder otherwise.
        num_heads: see `load_encoder`; a .keras file and a run know it.
        image_size: see `load_encoder`; the encoder of a .keras file or a run is resized to it.
        step: of a run's checkpoint; None takes the finished model, else the newest checkpoint that is whole.
        layer_norm_eps: see `load_encoder`; a .keras file and a run know it.
        preprocessing: see `load_encoder`; a .keras file and a run know it.
        classifier: write other people's weights as the classifier that they are (see `load_classifier`), not as their
            encoder alone; a classifier's .keras file is one in any case.
        say: called with a line on the preprocessing that was taken, where it is not part of the source, and with one on
            a head that is left out.

    Returns:
        The path written.

    Raises:
        FileExistsError: the target is a folder that exists.
        FileNotFoundError: the source or the target's folder does not exist.
        MissingExtraError: one of them is a .pth and PyTorch is not installed.
        ValueError: see `load_encoder` and `load_classifier`; or an ending, the layout or their combination is not
            known.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout={layout!r} is not known: choose one of {', '.join(LAYOUTS)}")
    path = _check_target(Path(target), layout)
    settings: dict[str, Any] = {
        "num_heads": num_heads,
        "layer_norm_eps": layer_norm_eps,
        "preprocessing": preprocessing,
    }
    is_run = Path(source).is_dir() and not is_saved_folder(Path(source))
    if step is not None and not is_run:
        raise ValueError(f"step={step} is for a run directory: leave it out, {source} is none")
    if is_run or Path(source).suffix == ".keras":
        for setting, value in settings.items():
            if value is not None:
                raise ValueError(f"{setting} is given, but {source} knows its own: leave it out")
        network = _read_run(source, step) if is_run else _read_keras(Path(source))
        if classifier and not isinstance(network, ViTClassifier):
            raise ValueError(f"classifier is asked for, but {source} holds a {type(network).__name__}: leave it out")
        network = network if image_size is None else _encoder_of(network).resized(image_size)
    else:
        network = _read_theirs(source, classifier, image_size, settings, say)
    _write(network, path, layout or "timm")
    return path


def _check_target(path: Path, layout: str | None) -> Path:
    if layout is not None and path.suffix == ".keras":
        raise ValueError(f"layout={layout!r} says nothing about {path}: leave it out, or write .safetensors or .pth")
    if layout != "huggingface" or path.suffix:
        return check_target(path, TARGETS)
    if path.exists():
        raise FileExistsError(f"{path} exists: give the path of a new folder, or end it in .safetensors or .pth")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path.absolute().parent} is not a folder: make it first")
    return path


def _encoder_of(network: Any) -> ViTEncoder | ViTClassifier:
    """Return the encoder of a whole model; encoders and classifiers are what they are."""
    return network.encoder if isinstance(network, MaskedImageModel) else network


def _write(network: Any, path: Path, layout: str) -> None:
    if isinstance(network, MaskedImageModel) and layout == "reference":
        save_reference(network, path)
        return
    network = _encoder_of(network)
    of_classifier = isinstance(network, ViTClassifier)
    if path.suffix == ".keras":
        with replacing(path) as written:
            network.save(written)
    elif not path.suffix:
        (save_classifier_folder if of_classifier else save_folder)(network, path)
    else:
        (save_classifier if of_classifier else save_encoder)(network, path, layout)


def _read_run(source: str | os.PathLike[str], step: int | None) -> MaskedImageModel | ViTClassifier:
    found: RunModel | RunClassifier
    if verb_of_run(RunFiles(Path(source))) == "finetune":
        of_finetuning = find_saved(source, step, tree=FinetuneConfig)
        found = load_classifier_run(of_finetuning, other_step(of_finetuning))
    else:
        saved: Saved[Config] = find_saved(source, step)
        found = load_run(saved, other_step(saved))
    if found.step is not None:
        logger.warning("%s: %s is converted", source, found.origin)
    return found.model if isinstance(found, RunModel) else found.classifier


def _read_theirs(
    source: Any, classifier: bool, image_size: int | Sequence[int] | None, settings: dict[str, Any], say: Any
) -> ViTEncoder | ViTClassifier:
    weights = read_weights(source)
    network, taken = (read_classifier if classifier else read_encoder)(weights, image_size, **settings)
    say(taken)
    if not classifier and holds_classifier(weights):
        say("the classifier's head is left out: give --classifier to keep it")
    return network


def _read_keras(path: Path) -> Any:
    try:
        network = load_keras(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no .keras file of lut_tf ({error})") from error
    if not isinstance(network, ViTEncoder | ViTClassifier | MaskedImageModel):
        raise ValueError(
            f"{path} holds a {type(network).__name__}, not an encoder, a classifier or a pre-training model"
        )
    return network
