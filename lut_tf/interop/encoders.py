"""Encoders of timm, Hugging Face and the reference trainers, in and out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lut_tf.interop.files import Source, Tensors, check_target, describe, read_weights, write_weights
from lut_tf.interop.names import ENCODER_LAYOUTS, Row, bind, encoder_row
from lut_tf.interop.shapes import detect_layout, infer_encoder, with_class_row
from lut_tf.interop.tensors import assign, read, write
from lut_tf.models.encoder import ViTEncoder

# What stands around an encoder and does not change its tokens: decoders, heads, classifiers.
_AROUND = re.compile(
    r"mask_token$|masked_embed$|embeddings\.mask_token$|decoder|head|predictor|fc_norm\.|pooler\.|classifier\.|.*num_batches_tracked$"
)

LAYOUTS = ("timm", "huggingface", "reference")


def load_encoder(
    source: Source, *, num_heads: int | None = None, image_size: int | Sequence[int] | None = None
) -> ViTEncoder:
    """Load an encoder that timm, Hugging Face (`ViTModel`, `ViTMAE*`), the LUT, MAE, MoCo v3, DINO or iBOT wrote.

    The layout is detected from the names and the size from the shapes; decoders and heads beside the encoder are left
    out. A fixed sine-cosine table stays fixed, any other is trainable. Of a trainer's file it is the student.

    Args:
        source: path of a .pth, .pt, .bin or .safetensors file, or a mapping of names to arrays.
        num_heads: attention heads, which shapes do not tell; None means one for each 64 channels.
        image_size: (height, width) in pixels the encoder was made for, where its positions are no square.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: the file is damaged or refused, a setting must be given, or tensors are missing, misshapen or not
            known (such as LayerScale, which this encoder does not have); the message lists them.
    """
    what = describe(source)
    arrays = {name: x for name, x in read_weights(source).student.items() if not _AROUND.match(name)}
    rows = ENCODER_LAYOUTS[detect_layout(arrays, what)]
    encoder, arrays = make_encoder(arrays, rows, num_heads, image_size, what)
    assign(read(bind(rows, encoder), arrays, what))
    return encoder


def make_encoder(
    arrays: Tensors, rows: tuple[Row, ...], num_heads: int | None, image_size: int | Sequence[int] | None, what: str
) -> tuple[ViTEncoder, Tensors]:
    """Build the encoder that the tensors describe; return it, still fresh, and the tensors in the spelling of `rows`.

    Raises:
        ValueError: see `load_encoder`.
    """
    arrays = joined_biases(arrays)
    encoder = ViTEncoder(**infer_encoder(arrays, rows, num_heads, image_size, what))
    table = encoder_row(rows, "positions")
    short = bool(encoder.prefix_tokens) and arrays[table].shape[1] == encoder.patches
    return encoder, {**arrays, table: with_class_row(arrays[table], short)}


def joined_biases(arrays: Tensors) -> Tensors:
    """Join BEiT's and SimMIM's `q_bias` and `v_bias` to one, with zeros for the keys' (which has no effect anyway)."""
    joined = dict(arrays)
    for name in arrays:
        stem = name.removesuffix("q_bias")
        if stem != name and f"{stem}v_bias" in joined:
            query, value = joined.pop(name), joined.pop(f"{stem}v_bias")
            joined[f"{stem}qkv.bias"] = np.concatenate([query, np.zeros_like(query), value])
    return joined


def encoder_tensors(encoder: ViTEncoder, layout: str) -> Tensors:
    """Return the encoder's weights as float32 arrays by the names of `layout`.

    Raises:
        ValueError: the layout is not known, or has no place for an encoder without class token.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not known: choose one of {', '.join(LAYOUTS)}")
    if layout == "huggingface" and not encoder.prefix_tokens:
        raise ValueError('layout="huggingface" needs a class token and this encoder has none: choose "timm"')
    return write(bind(ENCODER_LAYOUTS[layout], encoder))


def save_encoder(encoder: ViTEncoder, path: str | os.PathLike[str], layout: str = "timm") -> None:
    """Write an encoder for timm, Hugging Face's `ViTModel` or the reference programs.

    Args:
        encoder: any; written in float32.
        path: ends in .safetensors or .pth (which needs PyTorch); replaced if it exists.
        layout: `timm`, `huggingface` or `reference` (timm's names; a .pth has them under `model`).

    Raises:
        FileNotFoundError: the folder does not exist.
        MissingExtraError: a .pth is wanted and PyTorch is not installed.
        ValueError: the layout or the path's ending is not known, or the layout needs a class token.
    """
    target = check_target(path)
    tensors: dict[str, Any] = encoder_tensors(encoder, layout)
    wrapped = layout == "reference" and target.suffix == ".pth"
    write_weights(target, {"model": tensors} if wrapped else tensors)
