"""Whole pre-training models of the LUT, MAE and SimMIM reference trainers and of Hugging Face's MAE, in and out."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, NamedTuple

import numpy as np

from lut_tf.config import MaskingConfig, MethodConfig
from lut_tf.config.networks import sides
from lut_tf.interop.classifiers import classifier_tensors, save_classifier
from lut_tf.interop.encoders import asked, make_encoder, respelled
from lut_tf.interop.files import Source, Tensors, check_target, describe, read_weights, write_weights
from lut_tf.interop.names import (
    ENCODER_LAYOUTS,
    HUGGINGFACE_DECODER,
    REFERENCE_DECODER,
    REFERENCE_ENCODER,
    SIMMIM_DECODER,
    SIMMIM_ENCODER,
    Row,
    Slot,
    bind,
    head_rows,
)
from lut_tf.interop.shapes import (
    block_numbers,
    check_held,
    count_blocks,
    detect_layout,
    infer_head,
    infer_heads,
    sizes_of,
)
from lut_tf.interop.tensors import assign, read, write
from lut_tf.interop.told import Told
from lut_tf.methods.base import MaskedImageModel
from lut_tf.methods.lut import LUT
from lut_tf.methods.mae import MAE
from lut_tf.methods.registry import METHODS
from lut_tf.methods.simmim import SimMIM
from lut_tf.models.classifier import ViTClassifier
from lut_tf.models.decoder import LinearDecoder, PixelDecoder
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.heads import MLPHead

_DECODER = re.compile(r"mask_token$|decoder[_.]")
_LINEAR = "decoder.0.weight"  # SimMIM's linear layer
_HEADS = re.compile(r"(?:head|predictor)\.\d+\.")
_DINO_HEAD = re.compile(r"head\d*\.(?:mlp|last_layer|last_norm)|masked_embed$")  # iBOT's too
# PyTorch counts BatchNorm's batches; with a fixed momentum nothing reads the number, and Keras keeps none.
_COUNTER = "num_batches_tracked"


def load_reference(
    source: Source,
    *,
    method: Literal["lut", "mae", "simmim"] = "lut",
    teacher: Mapping[str, Any] | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    image_size: int | Sequence[int] | None = None,
    layer_norm_eps: float | None = None,
    head_norm: str | None = "infer",
    head_activation: str = "relu",
    masking: Literal["random", "attention"] | MaskingConfig = "random",
    throw_ratio: float = 0.0,
    **settings: Any,
) -> LUT | MAE | SimMIM:
    """Load a checkpoint of a reference trainer (LUT, MAE, SimMIM), or a `ViTMAEForPreTraining`, as a model to train on.

    Sizes and depths are inferred from the shapes. What a file does not hold stays freshly initialised, and a warning
    says so: the decoder (MAE's released encoders), and as a `LUT` projector and predictor (MAE has none). Where one of
    the two heads is there, or a teacher is, an absent head is one of depth 0.

    Args:
        source: path of a .pth, .pt, .bin, .ckpt or .safetensors file, or of a folder of `save_pretrained`, or a mapping
            of names to arrays.
        method: `lut` makes a `LUT`; `mae` a `MAE` of encoder and decoder, a file's heads and teacher are not read;
            `simmim` a `SimMIM` of a file of SimMIM's, with absolute positions.
        teacher: names to arrays of the momentum teacher (encoder and projector; decoder and predictor are not read);
            None takes the file's `model_ema`, else the student.
        num_heads: the encoder's attention heads; None means a folder's, else one for each 64 channels.
        decoder_num_heads: the decoder's attention heads; None means a folder's, else 16.
        image_size: (height, width) in pixels, where the positions are neither a square nor sine-cosine ones.
        layer_norm_eps: see `load_encoder`; of the encoder alone, the decoder's norms have 1e-6.
        head_norm: `batch`, `layer`, None, or `infer` from the names (`batch` where these do not tell).
        head_activation: `relu` or `gelu`.
        masking: the model's group `masking`, or its `name` alone, `random` or `attention`.
        throw_ratio: of `masking` where that is a name.
        **settings: passed to the model: `mask_ratio`, `norm_pix_loss`, `context_weight`, `momentum`, `mask_unit` and so
            on.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: the file is damaged or refused, a setting is unknown or must be given, or tensors are missing,
            misshapen, no finite floats or not known; the message lists them.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not known: choose one of {', '.join(METHODS)}")
    if not METHODS[method].has_teacher and teacher is not None:
        raise ValueError(f'teacher is given, but method="{method}" has none: leave it out')
    _refuse_unknown(settings)
    if not isinstance(masking, MaskingConfig):
        masking = MaskingConfig(name=masking, throw_ratio=throw_ratio)
    settings["masking"] = masking
    what = describe(source)
    weights = read_weights(source)
    told = asked(weights.told, num_heads=num_heads, decoder_num_heads=decoder_num_heads, layer_norm_eps=layer_norm_eps)
    arrays = respelled(_trained(weights.student), what)
    if method == "mae":
        arrays = {name: array for name, array in arrays.items() if not _HEADS.match(name)}
    make_decoder = _make_linear_decoder if method == "simmim" else _make_decoder
    encoder, decoder, slots, arrays = _networks(arrays, told, image_size, what, make_decoder)
    if method != "lut":
        values = read(slots, arrays, what)
        model: MAE | SimMIM = (MAE if method == "mae" else SimMIM)(encoder, decoder, **settings)
        assign(values)
        _warn_of_fresh(what, decoder is None, False)
        return model
    teacher_arrays = weights.teacher if teacher is None else read_weights(teacher).student
    has_heads = teacher_arrays is not None or holds_heads(arrays)
    heads = _make_heads(arrays, encoder.width, head_norm, head_activation, what) if has_heads else {}
    lut = LUT(encoder, decoder, **heads, **settings)
    values = read(slots + (_head_slots(lut) if has_heads else []), arrays, what)
    teacher_values = [] if teacher_arrays is None else _read_teacher(lut, teacher_arrays, f"the teacher of {what}")
    assign(values)
    lut.reset_teacher()
    assign(teacher_values)
    _warn_of_fresh(what, decoder is None, not has_heads, hasattr(lut, "masked_map"))
    return lut


class _Networks(NamedTuple):
    """Encoder and, where there is one, decoder, both fresh; their slots, and the tensors without what none has."""

    encoder: ViTEncoder
    decoder: PixelDecoder | LinearDecoder | None
    slots: list[Slot]
    arrays: Tensors


def _networks(
    arrays: Tensors, told: Told, image_size: int | Sequence[int] | None, what: str, make_decoder: Callable[..., Any]
) -> _Networks:
    """Build the encoder and the decoder that the tensors describe."""
    layout = detect_layout(arrays, what)
    encoder, arrays = _whole_encoder(arrays, layout, told, image_size, what)
    decoder = make_decoder(arrays, layout, encoder, told.decoder_num_heads or 16, what)
    slots = bind(ENCODER_LAYOUTS[layout], encoder)
    if decoder is None:
        return _Networks(encoder, None, slots, without_decoder(arrays))
    rows = SIMMIM_DECODER if isinstance(decoder, LinearDecoder) else _decoder_rows(layout)
    return _Networks(encoder, decoder, slots + bind(rows, decoder), arrays)


def _whole_encoder(
    arrays: Tensors, layout: str, told: Told, image_size: int | Sequence[int] | None, what: str
) -> tuple[ViTEncoder, Tensors]:
    """Return what `make_encoder` does; a model with a decoder keeps its size."""
    wanted = None if image_size is None else sides(image_size)
    encoder, arrays, _ = make_encoder(arrays, layout, told, wanted, what)
    if wanted not in (None, encoder.image_size):
        raise ValueError(
            f"{what}: image_size={image_size} does not fit its {encoder.patches} patches of side {encoder.patch_size}, "
            f"and a whole model keeps its size: leave it out, or give {encoder.image_size}"
        )
    return encoder, arrays


def to_reference(model: MaskedImageModel | ViTClassifier, teacher: bool = False) -> Tensors:
    """Return the weights as float32 arrays by the reference's names and in its forms.

    Args:
        model: `LUT`, `MAE` or `SimMIM`, or a `ViTClassifier`, head included; a `LUT`'s `masked_map` has no name there
            and is left out.
        teacher: the momentum teacher's (encoder and projector) instead of the student's.

    Returns:
        Linear weights (out, in), the patch embedding (D, 3, p, p), positions (1, 1 + L, D); beside BatchNorm's
        statistics `num_batches_tracked`, int64, always 0: Keras does not count, and nothing reads it.

    Raises:
        ValueError: the model has no teacher.
    """
    if teacher and (isinstance(model, ViTClassifier) or not model.teacher_pairs):
        raise ValueError(f"teacher=True, but {type(model).__name__} has no teacher")
    if isinstance(model, ViTClassifier):
        return classifier_tensors(model, "reference")
    slots = _teacher_slots(model) if teacher else _student_slots(model)
    tensors = write(slots)
    if isinstance(model, SimMIM):  # whose program keeps the mask token in the encoder
        tensors = {name if name.startswith("decoder.") else f"encoder.{name}": x for name, x in tensors.items()}
    counters = [name.replace("running_var", _COUNTER) for name in tensors if name.endswith("running_var")]
    return {**tensors, **{name: np.zeros((), "int64") for name in counters}}


def save_reference(model: MaskedImageModel | ViTClassifier, path: str | os.PathLike[str]) -> None:
    """Write a model as the reference trainer writes its checkpoints (weights only), for `load_reference` or PyTorch.

    A .pth has the student under `model` and the teacher under `model_ema`, whose names start with `ema.`; a
    .safetensors file has both side by side. The reference's teacher copies decoder and predictor too, though nothing
    reads them: here these are the student's.

    Args:
        model: `LUT`, `MAE` or `SimMIM`; or a `ViTClassifier`, as `save_classifier` writes it.
        path: ends in .pth (which needs PyTorch) or .safetensors; replaced if it exists.

    Raises:
        FileNotFoundError: the folder does not exist.
        MissingExtraError: a .pth is wanted and PyTorch is not installed.
        ValueError: the path's ending is not known.
    """
    if isinstance(model, ViTClassifier):
        save_classifier(model, path, "reference")
        return
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


def _decoder_rows(layout: str) -> tuple[Row, ...]:
    return HUGGINGFACE_DECODER if layout.startswith("huggingface") else REFERENCE_DECODER


def decoder_width(arrays: Tensors, layout: str) -> int | None:
    """Return the width of the decoder that tensors are of; None where there is none.

    A mask token alone makes none, nor does SimMIM's linear layer.
    """
    found = {name: value for name, value in arrays.items() if _DECODER.match(name)}
    if all(name.endswith("mask_token") for name in found) or _LINEAR in arrays:
        return None
    ours = ("embedding.bias", "mask_token", "positions", "norm.gamma")
    telling = [row.theirs for row in _decoder_rows(layout) if row.ours in ours]
    return next((found[name].shape[-1] for name in telling if name in found and found[name].ndim), 512)


def without_decoder(arrays: Tensors) -> Tensors:
    """Return the tensors that are not a decoder's."""
    return {name: array for name, array in arrays.items() if not _DECODER.match(name)}


def holds_heads(arrays: Tensors) -> bool:
    """Return whether there are tensors of a projector or a predictor."""
    return any(map(_HEADS.match, arrays))


def _make_decoder(arrays: Tensors, layout: str, encoder: ViTEncoder, heads: int, what: str) -> PixelDecoder | None:
    """Build the decoder that the tensors describe; None where there is none of it."""
    width = decoder_width(arrays, layout)
    if width is None:
        return None
    found = {name: value for name, value in arrays.items() if _DECODER.match(name)}
    depth = count_blocks(found, _decoder_rows(layout), what)
    numbers = block_numbers(width, depth) + width * (encoder.patches + encoder.width + 3 * encoder.patch_size**2)
    check_held(numbers, sizes_of(arrays), what)
    heads = infer_heads(width, heads, "decoder_num_heads")
    return PixelDecoder(encoder.grid, encoder.patch_size, encoder.width, width, depth, heads)


def _make_linear_decoder(arrays: Tensors, layout: str, encoder: ViTEncoder, *others: Any) -> LinearDecoder | None:
    """Build SimMIM's linear layer and mask token; None where there is none of it."""
    if _LINEAR not in arrays:
        return None
    return LinearDecoder(encoder.grid, encoder.patch_size, encoder.width)


def _make_heads(arrays: Tensors, width: int, norm: str | None, activation: str, what: str) -> dict[str, MLPHead]:
    names = {"projector": "head", "predictor": "predictor"}
    shapes = {ours: infer_head(arrays, theirs, width, what) for ours, theirs in names.items()}
    told = [shape.pop("norm") for shape in shapes.values() if "norm" in shape]
    if norm == "infer":
        norm = told[0] if told else "batch"
    elif told and told[0] != norm:
        raise ValueError(f"head_norm={norm!r}, but the names and shapes of the heads say {told[0]!r}: leave it out")
    return {k: MLPHead(width, norm=norm, activation=activation, name=k, **shape) for k, shape in shapes.items()}


def _student_slots(model: MaskedImageModel) -> list[Slot]:
    if isinstance(model, SimMIM):
        return bind(SIMMIM_ENCODER, model.encoder) + bind(SIMMIM_DECODER, model.decoder)
    slots = bind(REFERENCE_ENCODER, model.encoder) + bind(REFERENCE_DECODER, model.decoder)
    return slots + (_head_slots(model) if isinstance(model, LUT) else [])


def _head_slots(model: LUT) -> list[Slot]:
    heads = {"head": model.projector, "predictor": model.predictor}
    return [slot for name, head in heads.items() for slot in bind(head_rows(name, head), head)]


def _teacher_slots(model: LUT) -> list[Slot]:
    return bind(REFERENCE_ENCODER, model.teacher_encoder) + bind(
        head_rows("head", model.teacher_projector), model.teacher_projector
    )


def _read_teacher(model: LUT, arrays: Tensors, what: str) -> list[tuple[Any, np.ndarray]]:
    unread = re.compile(rf"{_DECODER.pattern}|predictor\.")
    kept = {name: value for name, value in respelled(_trained(arrays), what).items() if not unread.match(name)}
    return read(_teacher_slots(model), kept, what)


def _warn_of_fresh(what: str, decoder: bool, heads: bool, masked_map: bool = False) -> None:
    fresh = ["the decoder"] * decoder + ["projector", "predictor"] * heads + ["masked_map"] * masked_map
    if fresh:
        warnings.warn(f"{what} does not hold {', '.join(fresh)}: they stay freshly initialised", stacklevel=3)
