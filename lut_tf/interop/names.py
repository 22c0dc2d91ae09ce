"""Other people's names for our weights: one table per layout, read in both directions.

A row says what a tensor is called there, where it lives here, and in which form it is written. `{i}` runs over blocks.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from lut_tf.models.heads import MLPHead

# same: as here. linear: (out, in). patches: a convolution kernel (out, 3, p, p). pointwise: one of (out, in, 1, 1).
# table: (1, tokens, width).
Form = Literal["same", "linear", "patches", "pointwise", "table"]


class Row(NamedTuple):
    """One line of a layout.

    Attributes:
        theirs: the tensor's name.
        ours: the attribute path of the variable.
        form: how it is written.
        third: which third of our last axis (queries, keys, values) it holds; None for all of it.
        optional: a model may be built without it; it counts as zero where no block has it.
    """

    theirs: str
    ours: str
    form: Form = "same"
    third: int | None = None
    optional: bool = False


class Slot(NamedTuple):
    """A row for one block: the name there, the variable here, and the row it comes from."""

    name: str
    variable: Any
    row: Row


def _norm(theirs: str, ours: str) -> tuple[Row, ...]:
    return Row(f"{theirs}.weight", f"{ours}.gamma"), Row(f"{theirs}.bias", f"{ours}.beta")


def _linear(theirs: str, ours: str) -> tuple[Row, ...]:
    return Row(f"{theirs}.weight", f"{ours}.kernel", "linear"), Row(f"{theirs}.bias", f"{ours}.bias")


def _patches(theirs: str) -> tuple[Row, ...]:
    kernel = Row(f"{theirs}.weight", "patch_embedding.kernel", "patches")
    return kernel, Row(f"{theirs}.bias", "patch_embedding.bias")


def _joint_block(theirs: str) -> tuple[Row, ...]:
    """Rows of a block whose queries, keys and values are one matrix (timm, MAE, LUT, MoCo v3, DINO, iBOT, DINOv2)."""
    ours = "block_layers.{i}"
    return (
        *_norm(f"{theirs}.norm1", f"{ours}.norm1"),
        Row(f"{theirs}.ls1.gamma", f"{ours}.scale1.gamma"),
        Row(f"{theirs}.ls2.gamma", f"{ours}.scale2.gamma"),
        Row(f"{theirs}.attn.qkv.weight", f"{ours}.attention.qkv.kernel", "linear"),
        Row(f"{theirs}.attn.qkv.bias", f"{ours}.attention.qkv.bias", optional=True),
        *_linear(f"{theirs}.attn.proj", f"{ours}.attention.projection"),
        *_norm(f"{theirs}.norm2", f"{ours}.norm2"),
        *_linear(f"{theirs}.mlp.fc1", f"{ours}.mlp.fc1"),
        *_linear(f"{theirs}.mlp.fc2", f"{ours}.mlp.fc2"),
    )


class _Parts(NamedTuple):
    """What Hugging Face calls the parts of a block, in which queries, keys and values are apart."""

    norm1: str
    qkv: tuple[str, str, str]
    projection: str
    norm2: str
    fc1: str
    fc2: str


def _split_block(theirs: str, parts: _Parts) -> tuple[Row, ...]:
    ours = "block_layers.{i}"
    thirds = enumerate(f"{theirs}.{name}" for name in parts.qkv)
    attention = [
        row
        for third, name in thirds
        for row in (
            Row(f"{name}.weight", f"{ours}.attention.qkv.kernel", "linear", third),
            Row(f"{name}.bias", f"{ours}.attention.qkv.bias", "same", third, optional=True),
        )
    ]
    return (
        *_norm(f"{theirs}.{parts.norm1}", f"{ours}.norm1"),
        *attention,
        *_linear(f"{theirs}.{parts.projection}", f"{ours}.attention.projection"),
        *_norm(f"{theirs}.{parts.norm2}", f"{ours}.norm2"),
        *_linear(f"{theirs}.{parts.fc1}", f"{ours}.mlp.fc1"),
        *_linear(f"{theirs}.{parts.fc2}", f"{ours}.mlp.fc2"),
    )


def _huggingface(block: tuple[Row, ...]) -> tuple[Row, ...]:
    return (
        Row("embeddings.cls_token", "class_token"),
        Row("embeddings.register_tokens", "register_tokens"),
        Row("embeddings.position_embeddings", "positions", "table"),
        *_patches("embeddings.patch_embeddings.projection"),
        *block,
        *_norm("layernorm", "norm"),
    )


REFERENCE_ENCODER = (
    Row("cls_token", "class_token"),
    Row("reg_token", "register_tokens"),
    Row("pos_embed", "positions", "table"),
    *_patches("patch_embed.proj"),
    *_joint_block("blocks.{i}"),
    *_norm("norm", "norm"),
)
REFERENCE_DECODER = (
    Row("mask_token", "mask_token"),
    Row("decoder_pos_embed", "positions", "table"),
    *_linear("decoder_embed", "embedding"),
    *_joint_block("decoder_blocks.{i}"),
    *_norm("decoder_norm", "norm"),
    *_linear("decoder_pred", "pixels"),
)
SIMMIM_DECODER = (
    Row("mask_token", "mask_token"),
    Row("decoder.0.weight", "pixels.kernel", "pointwise"),
    Row("decoder.0.bias", "pixels.bias"),
)
# SimMIM's attention has no bias of the keys, which changes nothing; ours of it is left out.
SIMMIM_ENCODER = (
    *(row for row in REFERENCE_ENCODER if not row.ours.endswith("qkv.bias")),
    Row("blocks.{i}.attn.q_bias", "block_layers.{i}.attention.qkv.bias", "same", 0),
    Row("blocks.{i}.attn.v_bias", "block_layers.{i}.attention.qkv.bias", "same", 2),
)
_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
_OUTPUT = "attention.output.dense"
_VIT = _Parts("layernorm_before", _QKV, _OUTPUT, "layernorm_after", "intermediate.dense", "output.dense")
_VIT_IN_MEMORY = _VIT._replace(
    qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    projection="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)
_DINOV2 = _Parts("norm1", _QKV, _OUTPUT, "norm2", "mlp.fc1", "mlp.fc2")
_DINOV2_SCALES = (
    Row("encoder.layer.{i}.layer_scale1.lambda1", "block_layers.{i}.scale1.gamma"),
    Row("encoder.layer.{i}.layer_scale2.lambda1", "block_layers.{i}.scale2.gamma"),
)
HUGGINGFACE_DECODER = (
    Row("decoder.mask_token", "mask_token"),
    Row("decoder.decoder_pos_embed", "positions", "table"),
    *_linear("decoder.decoder_embed", "embedding"),
    *_split_block("decoder.decoder_layers.{i}", _VIT),
    *_norm("decoder.decoder_norm", "norm"),
    *_linear("decoder.decoder_pred", "pixels"),
)
# timm's names are the reference's: both descend from the same program. Hugging Face's are those of its files, which
# every version reads; the last are what its version 5 calls the same tensors in memory.
ENCODER_LAYOUTS: dict[str, tuple[Row, ...]] = {
    "timm": REFERENCE_ENCODER,
    "reference": REFERENCE_ENCODER,
    "huggingface dinov2": _huggingface((*_split_block("encoder.layer.{i}", _DINOV2), *_DINOV2_SCALES)),
    "huggingface": _huggingface(_split_block("encoder.layer.{i}", _VIT)),
    "huggingface 5, in memory": _huggingface(_split_block("layers.{i}", _VIT_IN_MEMORY)),
}
# What a `ViTClassifier` has beside its encoder, by the first word of the layout. With the mean of the patches the norm
# comes after it, and the encoder has none.
HEADS: dict[str, tuple[Row, ...]] = {
    "timm": (*_norm("fc_norm", "norm"), *_linear("head", "head")),
    "reference": (*_norm("fc_norm", "norm"), *_linear("head", "head")),
    "huggingface": _linear("classifier", "head"),
}
LAYER_NORM_EPS = {"huggingface": 1e-12, "huggingface 5, in memory": 1e-12}
"""What the norms of a layout add to the variance where nothing says otherwise; 1e-6 in all others."""


def encoder_row(rows: tuple[Row, ...], ours: str) -> str:
    """Return the name that a layout gives to our variable at the attribute path `ours`."""
    return next(row.theirs for row in rows if row.ours == ours)


def head_rows(name: str, head: MLPHead) -> tuple[Row, ...]:
    """Return the reference's rows of a head, a sequence that counts linear, norm (if there is one) and activation."""
    rows: list[Row] = []
    stride = 2 if head.norm is None else 3
    for i in range(head.depth):
        rows.append(Row(f"{name}.{stride * i}.weight", f"linears.{i}.kernel", "linear"))
        if head.norm is None or i == head.depth - 1:
            continue
        rows += _norm(f"{name}.{stride * i + 1}", f"norms.{i}")
        if head.norm == "batch":
            rows.append(Row(f"{name}.{stride * i + 1}.running_mean", f"norms.{i}.moving_mean"))
            rows.append(Row(f"{name}.{stride * i + 1}.running_var", f"norms.{i}.moving_variance"))
    return tuple(rows)


def bind(rows: tuple[Row, ...], network: Any) -> list[Slot]:
    """Pair each name with its variable of `network`; rows of what it does not have (None) are left out."""
    slots = []
    for row in rows:
        for i in range(network.depth) if "{i}" in row.theirs else (0,):
            variable = _resolve(network, row.ours.format(i=i))
            if variable is not None:
                slots.append(Slot(row.theirs.format(i=i), variable, row))
    return slots


def _resolve(network: Any, path: str) -> Any:
    for part in path.split("."):
        if network is None:
            return None
        network = network[int(part)] if part.isdigit() else getattr(network, part)
    return network
