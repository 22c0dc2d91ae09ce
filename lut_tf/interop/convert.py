"""One encoder file into another: what `lut-tf convert` does."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lut_tf.interop.encoders import LAYOUTS, load_encoder, save_encoder
from lut_tf.interop.files import check_target
from lut_tf.interop.keras_files import load_keras
from lut_tf.interop.reference import save_reference
from lut_tf.interop.runs import load_run
from lut_tf.methods.base import MaskedImageModel
from lut_tf.models.encoder import ViTEncoder
from lut_tf.training.run_directory import find_saved
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
) -> Path:
    """Read an encoder in one form and write it in another.

    Args:
        source: .pth, .pt, .bin or .safetensors of timm, Hugging Face or a reference trainer (see `load_encoder`), or
            .keras of an encoder or a whole `LUT` or `MAE` model, or a run directory, which is a whole model.
        target: ends in .keras, .safetensors or .pth; replaced if it exists.
        layout: `timm` (the default), `huggingface` or `reference`, of a .safetensors or .pth; a whole model goes out
            whole as `reference`, as its encoder otherwise.
        num_heads: see `load_encoder`; a .keras file and a run know it.
        image_size: see `load_encoder`; a .keras file and a run know it.
        step: of a run's checkpoint; None takes the finished model, else the newest checkpoint that is whole.

    Returns:
        The path written.

    Raises:
        FileNotFoundError: the source or the target's folder does not exist.
        MissingExtraError: one of them is a .pth and PyTorch is not installed.
        ValueError: see `load_encoder`; or an ending, the layout or their combination is not known.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout={layout!r} is not known: choose one of {', '.join(LAYOUTS)}")
    path = check_target(target, TARGETS)
    if layout is not None and path.suffix == ".keras":
        raise ValueError(f"layout={layout!r} says nothing about {path}: leave it out, or write .safetensors or .pth")
    is_run = Path(source).is_dir()
    if step is not None and not is_run:
        raise ValueError(f"step={step} is for a run directory: leave it out, {source} is a file")
    if is_run or Path(source).suffix == ".keras":
        if num_heads is not None or image_size is not None:
            raise ValueError(f"{source} knows its heads and image size: leave num_heads and image_size out")
        network = _read_run(source, step) if is_run else _read_keras(Path(source))
    else:
        network = load_encoder(source, num_heads=num_heads, image_size=image_size)
    _write(network, path, layout or "timm")
    return path


def _write(network: Any, path: Path, layout: str) -> None:
    if isinstance(network, MaskedImageModel) and layout == "reference":
        save_reference(network, path)
        return
    encoder = network.encoder if isinstance(network, MaskedImageModel) else network
    if path.suffix == ".keras":
        with replacing(path) as written:
            encoder.save(written)
    else:
        save_encoder(encoder, path, layout)


def _read_run(source: str | os.PathLike[str], step: int | None) -> MaskedImageModel:
    found = load_run(find_saved(source, step))
    if found.step is not None:
        logger.warning("%s: %s is converted", source, found.origin)
    return found.model


def _read_keras(path: Path) -> Any:
    try:
        network = load_keras(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no .keras file of lut_tf ({error})") from error
    if not isinstance(network, ViTEncoder | MaskedImageModel):
        raise ValueError(f"{path} holds a {type(network).__name__}, not an encoder or a pre-training model of lut_tf")
    return network
