"""Encoders of timm, Hugging Face and the reference trainers, in and out."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lut_tf.config.networks import sides
from lut_tf.interop.files import Source, Tensors, check_target, describe, read_weights, write_weights
from lut_tf.interop.folders import WEIGHT_FILES, write_json
from lut_tf.interop.names import ENCODER_LAYOUTS, bind, encoder_row
from lut_tf.interop.preprocessing import PREPROCESSOR, line, to_huggingface, usual
from lut_tf.interop.shapes import detect_layout, infer_encoder, split_table
from lut_tf.interop.tensors import assign, read, write
from lut_tf.interop.told import Told
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.preprocess import Preprocessing
from lut_tf.paths import SAVED_CONFIG
from lut_tf.writing import replacing

# What stands around an encoder and does not change its tokens: decoders, heads, classifiers.
_AROUND = re.compile(
    r"mask_token$|masked_embed$|embeddings\.mask_token$|decoder|head|predictor|fc_norm\.|pre_logits\.|pooler\.|classifier\."
    r"|.*num_batches_tracked$"
)
_SECOND_TOKEN = ("dist_token", "embeddings.distillation_token")
# What others call tensors for which the layouts have a name.
_SPELLINGS = (
    (re.compile(r"^register_tokens$"), "reg_token"),  # DINOv2's own files
    (re.compile(r"(blocks\.[0-9]+)\.gamma_([12])$"), r"\1.ls\2.gamma"),  # BEiT, DeiT III
)

LAYOUTS = ("timm", "huggingface", "reference")


def load_encoder(
    source: Source,
    *,
    num_heads: int | None = None,
    image_size: int | Sequence[int] | None = None,
    layer_norm_eps: float | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
) -> ViTEncoder:
    """Load an encoder that timm, Hugging Face (`ViT*`, `ViTMAE*`, `Dinov2*`), LUT, MAE, MoCo v3, DINO or iBOT wrote.

    The layout is detected from the names and the size from the shapes; decoders and heads beside the encoder are left
    out. A fixed sine-cosine table stays fixed, any other is trainable. Of a trainer's file it is the student.

    Where an encoder ends with `fc_norm`, which its program applies to the mean of the patches (MAE's fine-tuned files,
    timm's `global_pool="avg"`), this becomes the final norm, and a warning says so: here it is applied to each token,
    so `features` differs. docs/convert.md says how to get theirs.

    Args:
        source: path of a .pth, .pt, .bin, .ckpt or .safetensors file, or of a folder of `save_pretrained`, or a mapping
            of names to arrays.
        num_heads: attention heads, which shapes do not tell; None takes a folder's, else one for each 64 channels.
        image_size: side or (height, width) in pixels of the encoder wanted. Where the file has as many positions, and
            nothing says that they are laid out in another way, it is what they were made for (they are taken for a
            square otherwise); else they are resized to it as by `ViTEncoder.resized`.
        layer_norm_eps: what the norms add to the variance; None takes a folder's, else 1e-12 for Hugging Face's ViT and
            1e-6 for all others.
        preprocessing: what the encoder was shown; None takes a folder's, else what is usual: ImageNet's mean and
            deviation for trainers' files (weights in a group, a decoder, a sine-cosine table, LayerScale), 0.5 and 0.5
            for timm's bare `vit_*` and Hugging Face's ViT.

    Raises:
        FileNotFoundError: there is no such file.
        MissingExtraError: the file needs PyTorch, which is not installed.
        ValueError: the file is damaged or refused, a setting must be given, or tensors are missing, misshapen, no
            finite floats or not known (such as a second class token, which this encoder does not have); the message
            lists them.
    """
    settings = {"num_heads": num_heads, "layer_norm_eps": layer_norm_eps, "preprocessing": preprocessing}
    return read_encoder(source, image_size, **settings)[0]


def read_encoder(
    source: Source, image_size: int | Sequence[int] | None = None, **settings: Any
) -> tuple[ViTEncoder, str]:
    """Return what `load_encoder` does, and a line on the preprocessing that was taken and what says so."""
    what = describe(source)
    weights = read_weights(source)
    arrays = {name: x for name, x in respelled(weights.student, what).items() if not _AROUND.match(name)}
    layout = detect_layout(arrays, what)
    wanted = None if image_size is None else sides(image_size)
    made = make_encoder(arrays, layout, asked(weights.told, **settings), wanted, what)
    assign(read(bind(ENCODER_LAYOUTS[layout], made.encoder), made.arrays, what))
    resized = made.encoder if wanted in (None, made.encoder.image_size) else made.encoder.resized(wanted)
    return resized, made.taken


def asked(told: Told, **settings: Any) -> Told:
    """Return `told` with the settings that are not None in the place of what it says."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "preprocessing" in given:
        given |= {"preprocessing": Preprocessing.of(given["preprocessing"]), "told_by": "as asked"}
    return told._replace(**given)


class Made(NamedTuple):
    """An encoder, still fresh, the tensors as it has them, and a line on its preprocessing and what says so."""

    encoder: ViTEncoder
    arrays: Tensors
    taken: str


def make_encoder(
    arrays: Tensors, layout: str, told: Told, image_size: tuple[int, int] | None, what: str, learned: bool = False
) -> Made:
    """Build the encoder that the tensors describe; with `learned` its positions are trainable in any case.

    Raises:
        ValueError: see `load_encoder`.
    """
    settings = infer_encoder(arrays, layout, told, image_size, what)
    own = settings["positions"] == "sincos" or settings["layer_scale"] or settings["register_tokens"] > 0
    told_by = (told.preprocessing, told.told_by) if told.preprocessing else usual(layout, told.of_trainer, own)
    if learned:
        settings["positions"] = "learned"
    encoder = ViTEncoder(**settings, preprocessing=told_by[0])
    rows = ENCODER_LAYOUTS[layout]
    table, registers = (encoder_row(rows, ours) for ours in ("positions", "register_tokens"))
    kept, of_registers = split_table(arrays[table], encoder.patches, encoder.has_class_token)
    settled = {**arrays, table: kept}
    if of_registers.size and arrays[registers].shape == of_registers.shape:  # timm may give them positions
        settled[registers] = arrays[registers].astype("float32") + of_registers
    return Made(encoder, settled, line(*told_by))


def respelled(arrays: Mapping[str, np.ndarray], what: str) -> Tensors:
    """Return the tensors of an encoder by the names that the layouts have for them, `fc_norm` as its final norm.

    Raises:
        ValueError: there is a second class token.
    """
    return _with_final_norm(spelled(arrays, what), what)


def spelled(arrays: Mapping[str, np.ndarray], what: str) -> Tensors:
    """Return tensors by the names that the layouts have for them.

    Raises:
        ValueError: there is a second class token.
    """
    if second := next((name for name in _SECOND_TOKEN if name in arrays), None):
        raise ValueError(
            f"{what} cannot be loaded: {second} is a second class token, of distillation, and encoders here have one: "
            "give a model that was trained without"
        )
    found = {}
    for name, array in arrays.items():
        for pattern, ours in _SPELLINGS:
            name = pattern.sub(ours, name)
        found[name] = array
    return _joined_biases(found)


def _with_final_norm(arrays: Tensors, what: str) -> Tensors:
    """Take `fc_norm` for the final norm of an encoder that has no other."""
    if "norm.weight" in arrays or "fc_norm.weight" not in arrays:
        return arrays
    warnings.warn(
        f"{what} has no final norm but fc_norm, which it applies to the mean of the patches: here it is the final norm "
        "of each token, so pooled features differ (see load_encoder)",
        stacklevel=4,
    )
    return {re.sub(r"^fc_norm\.", "norm.", name): array for name, array in arrays.items()}


def _joined_biases(arrays: Tensors) -> Tensors:
    """Join BEiT's and SimMIM's `q_bias` and `v_bias` to one, with zeros for the keys' (which has no effect anyway)."""
    joined = dict(arrays)
    for name in arrays:
        stem = name.removesuffix("q_bias")
        other = joined.get(f"{stem}v_bias")
        if stem != name and other is not None and other.ndim == 1 and other.shape == arrays[name].shape:
            query, value = joined.pop(name), joined.pop(f"{stem}v_bias")
            joined[f"{stem}qkv.bias"] = np.concatenate([query, np.zeros_like(query), value])
    return joined


def encoder_tensors(encoder: ViTEncoder, layout: str) -> Tensors:
    """Return the encoder's weights as float32 arrays by the names of `layout`.

    An encoder with LayerScale is Hugging Face's `Dinov2Model` or `Dinov2WithRegistersModel`, any other its `ViTModel`.
    For timm the class token of one with register tokens holds its position (`no_embed_class=True`).

    Raises:
        ValueError: the layout is not known, or has no place for an encoder without class token or LayerScale.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not known: choose one of {', '.join(LAYOUTS)}")
    if layout == "huggingface":
        _check_huggingface(encoder)
        layout = "huggingface dinov2" if encoder.layer_scale else layout
    tensors = write(bind(ENCODER_LAYOUTS[layout], encoder))
    if encoder.registers and layout == "reference":
        tensors["register_tokens"] = tensors.pop("reg_token")
    elif encoder.registers and layout == "timm" and encoder.has_class_token:
        tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        tensors["pos_embed"] = tensors["pos_embed"][:, 1:].copy()
    return tensors


def _check_huggingface(encoder: ViTEncoder) -> None:
    if not encoder.has_class_token:
        raise ValueError('layout="huggingface" needs a class token and this encoder has none: choose "timm"')
    if encoder.registers and not encoder.layer_scale:
        raise ValueError(
            'layout="huggingface" has register tokens with LayerScale only, which this encoder has not: choose "timm"'
        )


def save_encoder(encoder: ViTEncoder, path: str | os.PathLike[str], layout: str = "timm") -> None:
    """Write an encoder for timm, Hugging Face (`ViTModel`, `Dinov2*`) or the reference programs.

    Heads, image size and `layer_norm_eps` do not stand in such a file: whoever reads it must know them.

    Args:
        encoder: any; written in float32.
        path: ends in .safetensors or .pth (which needs PyTorch); replaced if it exists.
        layout: `timm`, `huggingface` or `reference` (timm's names; a .pth has them under `model`).

    Raises:
        FileNotFoundError: the folder does not exist.
        MissingExtraError: a .pth is wanted and PyTorch is not installed.
        ValueError: the layout or the path's ending is not known, or the layout has no place for the encoder.
    """
    write_layout(check_target(path), encoder_tensors(encoder, layout), layout)


def write_layout(target: Path, tensors: Tensors, layout: str) -> None:
    """Write the tensors of a network to a file of weights; the reference's .pth has them under `model`."""
    wrapped = layout == "reference" and target.suffix == ".pth"
    write_weights(target, {"model": tensors} if wrapped else tensors)


def save_folder(encoder: ViTEncoder, folder: str | os.PathLike[str]) -> None:
    """Write an encoder as a new folder that Hugging Face's `from_pretrained` reads: weights and settings.

    Args:
        encoder: any with a class token; written in float32.
        folder: replaced if it exists.

    Raises:
        ValueError: Hugging Face has no place for the encoder; see `encoder_tensors`.
    """
    write_folder(folder, encoder_tensors(encoder, "huggingface"), huggingface_config(encoder), encoder)


def write_folder(
    folder: str | os.PathLike[str], tensors: Tensors, config: Mapping[str, Any], encoder: ViTEncoder
) -> None:
    """Write weights and what Hugging Face must know beside them, at once or not at all."""
    with replacing(Path(folder)) as written:
        written.mkdir()
        write_json(written / SAVED_CONFIG, config)
        write_json(written / PREPROCESSOR, to_huggingface(encoder.preprocessing, encoder.image_size))
        write_weights(written / WEIGHT_FILES[0], tensors)


def huggingface_config(encoder: ViTEncoder) -> dict[str, Any]:
    """Return what Hugging Face must know of an encoder beside its weights."""
    height, width = encoder.image_size
    kind = ("vit", "ViTModel")
    if encoder.layer_scale:
        registers = ("dinov2_with_registers", "Dinov2WithRegistersModel")
        kind = registers if encoder.registers else ("dinov2", "Dinov2Model")
    own: dict[str, Any] = {"mlp_ratio": 4} if encoder.layer_scale else {"intermediate_size": 4 * encoder.width}
    return {
        "model_type": kind[0],
        "architectures": [kind[1]],
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": encoder.layer_norm_eps,
        "image_size": height if height == width else [height, width],
        "patch_size": encoder.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        **own,
        **({"num_register_tokens": encoder.registers} if encoder.registers else {}),
    }
