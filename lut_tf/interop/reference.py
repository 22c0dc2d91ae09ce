"""Whole pre-training models of the LUT and MAE reference trainers, in and out."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from lut_tf.config import MethodConfig
from lut_tf.interop.encoders import make_encoder
from lut_tf.interop.files import Source, Tensors, check_target, describe, read_weights, write_weights
from lut_tf.interop.names import REFERENCE_DECODER, REFERENCE_ENCODER, Slot, bind, head_rows
from lut_tf.interop.shapes import count_blocks, infer_head, infer_heads
from lut_tf.interop.tensors import assign, read, write
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.lut import LUT
from lut_tf.models.decoder import PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead

_DECODER = re.compile(r"mask_token$|decoder_")
_HEADS = re.compile(r"(?:head|predictor)\.\d+\.")
_DINO_HEAD = re.compile(r"head\d*\.(?:mlp|last_layer|last_norm)|masked_embed$")  # iBOT's too
# PyTorch counts BatchNorm's batches; with a fixed momentum nothing reads the number, and Keras keeps none.
_COUNTER = "num_batches_tracked"


def load_reference(
    source: Source,
    *,
    teacher: Mapping[str, Any] | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int = 16,
    image_size: int | Sequence[int] | None = None,
    head_norm: str | None = "infer",
    head_activation: str = "relu",
    **settings: Any,
) -> LUT:
    """Load a checkpoint of the LUT or MAE reference trainer as a `LUT` model that trains on.

    Sizes and depths are inferred from the shapes. What a file does not hold stays freshly initialised, and a warning
    says so: the decoder (MAE's released encoders), projector and predictor (MAE has none). Where one of the two heads
    is there, or a teacher is, an absent head is one of depth 0.

    Args:
        source: path of a .pth, .pt, .bin or .safetensors file, or a mapping of names to arrays.
        teacher: names to arrays of the momentum teacher (encoder and projector; decoder and predictor are not read);
            None takes the file's `model_ema`, else the student.
        num_heads: the encoder's attention heads; None means one for each 64 channels.
        decoder_num_heads: the decoder's attention heads.
        image_size: (height, width) in pixels, where the positions are neither a square nor sine-cosine ones.
        head_norm: `batch`, `layer`, None, or `infer` from the names (`batch` where these do not tell).
        head_activation: `relu` or `gelu`.
        **settings: passed to `LUT`: `mask_ratio`, `norm_pix_loss`, `context_weight`, `momentum` and so on.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: the file is damaged or refused, a setting is unknown or must be given, or tensors are missing,
            misshapen or not known; the message lists them.
    """
    _refuse_unknown(settings)
    what = describe(source)
    weights = read_weights(source)
    arrays = _trained(weights.student)
    teacher_arrays = weights.teacher if teacher is None else read_weights(teacher).student
    encoder, arrays = make_encoder(arrays, REFERENCE_ENCODER, num_heads, image_size, what)
    decoder = _make_decoder(arrays, encoder, decoder_num_heads)
    has_heads = teacher_arrays is not None or any(map(_HEADS.match, arrays))
    heads = _make_heads(arrays, encoder.width, head_norm, head_activation) if has_heads else {}
    model = LUT(encoder, decoder, **heads, **settings)
    slots = _student_slots(model, decoder is not None, has_heads)
    values = read(slots, arrays, what)
    teacher_values = [] if teacher_arrays is None else _read_teacher(model, teacher_arrays, f"the teacher of {what}")
    assign(values)
    model.reset_teacher()
    assign(teacher_values)
    _warn_of_fresh(what, decoder is None, not has_heads)
    return model


def to_reference(model: MaskedImageModel, teacher: bool = False) -> Tensors:
    """Return the weights as float32 arrays by the reference's names and in its forms.

    Args:
        model: `LUT` or `MAE`.
        teacher: the momentum teacher's (encoder and projector) instead of the student's.

    Returns:
        Linear weights (out, in), the patch embedding (D, 3, p, p), positions (1, 1 + L, D); beside BatchNorm's
        statistics `num_batches_tracked`, int64, always 0: Keras does not count, and nothing reads it.

    Raises:
        ValueError: the model has no teacher.
    """
    if teacher and not model.teacher_pairs:
        raise ValueError(f"teacher=True, but {type(model).__name__} has no teacher")
    slots = _teacher_slots(model) if teacher else _student_slots(model)
    tensors = write(slots)
    counters = [name.replace("running_var", _COUNTER) for name in tensors if name.endswith("running_var")]
    return {**tensors, **{name: np.zeros((), "int64") for name in counters}}


def save_reference(model: MaskedImageModel, path: str | os.PathLike[str]) -> None:
    """Write a model as the reference trainer writes its checkpoints (weights only), for `load_reference` or PyTorch.

    A .pth has the student under `model` and the teacher under `model_ema`, whose names start with `ema.`; a
    .safetensors file has both side by side. The reference's teacher copies decoder and predictor too, though nothing
    reads them: here these are the student's.

    Args:
        model: `LUT` or `MAE`.
        path: ends in .pth (which needs PyTorch) or .safetensors; replaced if it exists.

    Raises:
        FileNotFoundError: the folder does not exist.
        MissingExtraError: a .pth is wanted and PyTorch is not installed.
        ValueError: the path's ending is not known.
    """
    target = check_target(path)
    student = to_reference(model)
    content: dict[str, Any] = {"model": student}
    if model.teacher_pairs:
        copied = {**student, **to_reference(model, teacher=True)}
        content["model_ema"] = {f"ema.{name}": value for name, value in copied.items()}
    if target.suffix == ".safetensors":
        content = {name: value for group in content.values() for name, value in group.items()}
    write_weights(target, content)


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(MethodConfig) if field.name not in ("name", "head")] + ["teacher_dtype"]
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(f"{', '.join(unknown)}: no such setting of a loaded model: give some of {', '.join(known)}")


def _trained(arrays: Tensors) -> Tensors:
    """Leave out what no network here has: batch counters, and the heads that DINO and iBOT train with."""
    return {k: v for k, v in arrays.items() if not k.endswith(f".{_COUNTER}") and not _DINO_HEAD.match(k)}


def _make_decoder(arrays: Tensors, encoder: ViTEncoder, heads: int) -> PixelDecoder | None:
    """Build the decoder that the tensors describe; None where there are none of it."""
    found = {name: value for name, value in arrays.items() if _DECODER.match(name)}
    if not found:
        return None
    telling = ("decoder_embed.bias", "mask_token", "decoder_pos_embed", "decoder_norm.weight")
    width = next((found[name].shape[-1] for name in telling if name in found and found[name].ndim), 512)
    return PixelDecoder(
        encoder.grid,
        encoder.patch_size,
        encoder.width,
        width,
        count_blocks(found, REFERENCE_DECODER),
        infer_heads(width, heads, "decoder_num_heads"),
    )


def _make_heads(arrays: Tensors, width: int, norm: str | None, activation: str) -> dict[str, MLPHead]:
    shapes = {"projector": infer_head(arrays, "head"), "predictor": infer_head(arrays, "predictor")}
    told = [shape.pop("norm") for shape in shapes.values() if "norm" in shape]
    if norm == "infer":
        norm = told[0] if told else "batch"
    elif told and told[0] != norm:
        raise ValueError(f"head_norm={norm!r}, but the names and shapes of the heads say {told[0]!r}: leave it out")
    return {k: MLPHead(width, norm=norm, activation=activation, name=k, **shape) for k, shape in shapes.items()}


def _student_slots(model: MaskedImageModel, decoder: bool = True, heads: bool = True) -> list[Slot]:
    slots = bind(REFERENCE_ENCODER, model.encoder)
    if decoder:
        slots += bind(REFERENCE_DECODER, model.decoder)
    if heads and isinstance(model, LUT):
        slots += bind(head_rows("head", model.projector), model.projector)
        slots += bind(head_rows("predictor", model.predictor), model.predictor)
    return slots


def _teacher_slots(model: LUT) -> list[Slot]:
    return bind(REFERENCE_ENCODER, model.teacher_encoder) + bind(
        head_rows("head", model.teacher_projector), model.teacher_projector
    )


def _read_teacher(model: LUT, arrays: Tensors, what: str) -> list[tuple[Any, np.ndarray]]:
    unread = re.compile(rf"{_DECODER.pattern}|predictor\.")
    kept = {name: value for name, value in _trained(arrays).items() if not unread.match(name)}
    return read(_teacher_slots(model), kept, what)


def _warn_of_fresh(what: str, decoder: bool, heads: bool) -> None:
    fresh = ["the decoder"] * decoder + ["projector", "predictor"] * heads
    if fresh:
        warnings.warn(f"{what} does not hold {', '.join(fresh)}: they stay freshly initialised", stacklevel=3)
