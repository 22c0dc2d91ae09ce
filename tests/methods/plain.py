"""LUT written once more, as plainly as possible, for NumPy and PyTorch alike and in float64.

It knows the reference's names and nothing of lut_tf, so that the two can only agree by computing the same thing.
`xp` is `numpy` or `torch`; weights and images are its arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """Settings of one model and batch."""

    side: int = 24
    patch: int = 8
    width: int = 16
    depth: int = 2
    heads: int = 2
    decoder_width: int = 12
    decoder_depth: int = 1
    decoder_heads: int = 3
    hidden: int = 20
    projector: int = 2
    predictor: int = 2
    norm: str | None = "batch"
    activation: str = "relu"
    mask_ratio: float = 0.75
    norm_pix_loss: bool = True
    context_weight: float = 0.25
    symmetric: bool = True
    batch: int = 4

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2

    @property
    def visible(self) -> int:
        return int(self.patches * (1 - self.mask_ratio))


def sincos(side: int, width: int) -> np.ndarray:
    """Positions (1, 1 + side², width), one number at a time."""
    quarter = width // 4
    table = np.zeros((1, 1 + side * side, width))
    for row in range(side):
        for column in range(side):
            for i in range(quarter):
                omega = 1.0 / 10000 ** (i / quarter)
                place = table[0, 1 + row * side + column]
                place[i], place[quarter + i] = math.sin(omega * column), math.cos(omega * column)
                place[2 * quarter + i], place[3 * quarter + i] = math.sin(omega * row), math.cos(omega * row)
    return table.astype("float32")


def random_weights(case: Case, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return student and teacher weights (float32) that differ from each other and from any initialisation."""
    random = np.random.default_rng(seed)
    side, width = case.side // case.patch, case.width

    def block(name: str, width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{name}.{norm}.weight": (width,), f"{name}.{norm}.bias": (width,)}
        for linear, out, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            shapes |= {f"{name}.{linear}.weight": (out * width, into * width), f"{name}.{linear}.bias": (out * width,)}
        return shapes

    def head(name: str, depth: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(depth):
            place = i * (2 if case.norm is None else 3)
            shapes[f"{name}.{place}.weight"] = (
                width if i == depth - 1 else case.hidden,
                width if i == 0 else case.hidden,
            )
            if case.norm is not None and i < depth - 1:
                kinds = ["weight", "bias"] + ["running_mean", "running_var"] * (case.norm == "batch")
                shapes |= {f"{name}.{place + 1}.{kind}": (case.hidden,) for kind in kinds}
        return shapes

    encoder = {"cls_token": (1, 1, width), "patch_embed.proj.weight": (width, 3, case.patch, case.patch)}
    encoder |= {"patch_embed.proj.bias": (width,), "norm.weight": (width,), "norm.bias": (width,)}
    for i in range(case.depth):
        encoder |= block(f"blocks.{i}", width)
    small, values = case.decoder_width, 3 * case.patch**2
    decoder = {"mask_token": (1, 1, small), "decoder_embed.weight": (small, width), "decoder_embed.bias": (small,)}
    decoder |= {"decoder_norm.weight": (small,), "decoder_norm.bias": (small,)}
    decoder |= {"decoder_pred.weight": (values, small), "decoder_pred.bias": (values,)}
    for i in range(case.decoder_depth):
        decoder |= block(f"decoder_blocks.{i}", small)
    projector = head("head", case.projector)

    def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        drawn = {}
        for name, shape in shapes.items():
            value = 0.3 * random.normal(size=shape)
            if "running_var" in name:
                value = 0.5 + value**2
            elif len(shape) == 1 and name.endswith("weight"):
                value = 1 + value
            drawn[name] = value.astype("float32")
        return drawn

    place = {"pos_embed": sincos(side, width)}
    student = draw(encoder | decoder | projector | head("predictor", case.predictor)) | place
    student["decoder_pos_embed"] = sincos(side, small)
    return student, draw(encoder | projector) | place


def random_batch(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return two views (float32, NHWC) and noise."""
    random = np.random.default_rng(seed)
    shape = (case.batch, case.side, case.side, 3)
    views = {name: random.normal(size=shape).astype("float32") for name in ("view1", "view2")}
    return {**views, "noise": random.random((case.batch, case.patches)).astype("float32")}


def _erf(x: Any, xp: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x) if xp is np else xp.erf(x)


def _gelu(x: Any, xp: Any) -> Any:
    return x * (1 + _erf(x / math.sqrt(2), xp)) / 2


def _normalised(x: Any, epsilon: float, xp: Any, axis: int = -1) -> Any:
    centred = x - x.mean(axis=axis, keepdims=True)
    return centred / xp.sqrt((centred**2).mean(axis=axis, keepdims=True) + epsilon)


def _layer_norm(x: Any, w: dict[str, Any], name: str, xp: Any) -> Any:
    return _normalised(x, 1e-6, xp) * w[f"{name}.weight"] + w[f"{name}.bias"]


def _linear(x: Any, w: dict[str, Any], name: str) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _block(x: Any, w: dict[str, Any], name: str, heads: int, xp: Any) -> Any:
    qkv = _linear(_layer_norm(x, w, f"{name}.norm1", xp), w, f"{name}.attn.qkv")
    width = x.shape[-1]
    each = width // heads
    mixed = []
    for h in range(heads):
        q, k, v = (qkv[..., i * width + h * each : i * width + (h + 1) * each] for i in range(3))
        scores = xp.exp(q @ k.swapaxes(-1, -2) / math.sqrt(each))  # small numbers: no need to subtract the largest
        mixed.append(scores / scores.sum(axis=-1, keepdims=True) @ v)
    x = x + _linear(xp.concatenate(mixed, -1), w, f"{name}.attn.proj")
    hidden = _gelu(_linear(_layer_norm(x, w, f"{name}.norm2", xp), w, f"{name}.mlp.fc1"), xp)
    return x + _linear(hidden, w, f"{name}.mlp.fc2")


def patches_of(images: Any, patch: int, xp: Any) -> Any:
    """Cut NHWC images into (B, L, p·p·3), values in (row, column, channel) order."""
    rows, columns = images.shape[1] // patch, images.shape[2] // patch
    cut = [
        images[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(images.shape[0], 1, -1)
        for r in range(rows)
        for c in range(columns)
    ]
    return xp.concatenate(cut, 1)


def encode(images: Any, ids: Any, w: dict[str, Any], case: Case, xp: Any) -> Any:
    """Tokens (B, 1 + V, D): everything is embedded, then chosen, as the reference does."""
    kernel = w["patch_embed.proj.weight"]
    flat = xp.concatenate([kernel[:, :, r, c] for r in range(case.patch) for c in range(case.patch)], 1)
    x = patches_of(images, case.patch, xp) @ flat.T + w["patch_embed.proj.bias"] + w["pos_embed"][:, 1:]
    if ids is not None:
        x = x[np.arange(len(ids))[:, None], ids]
    x = xp.concatenate([w["cls_token"] + w["pos_embed"][:, :1] + 0 * x[:, :1], x], 1)
    for i in range(case.depth):
        x = _block(x, w, f"blocks.{i}", case.heads, xp)
    return _layer_norm(x, w, "norm", xp)


def decode(tokens: Any, ids: Any, w: dict[str, Any], case: Case, xp: Any) -> Any:
    """Predictions (B, L, p·p·3) in image order, from the tokens of the patches at `ids`."""
    x = _linear(tokens, w, "decoder_embed")
    full = 0 * x[:, :1] + w["mask_token"] + xp.zeros((1, case.patches, 1))
    full[np.arange(len(ids))[:, None], ids] = x[:, 1:]
    x = xp.concatenate([x[:, :1], full], 1) + w["decoder_pos_embed"]
    for i in range(case.decoder_depth):
        x = _block(x, w, f"decoder_blocks.{i}", case.decoder_heads, xp)
    return _linear(_layer_norm(x, w, "decoder_norm", xp), w, "decoder_pred")[:, 1:]


def apply_head(x: Any, w: dict[str, Any], name: str, depth: int, case: Case, xp: Any, running: bool = False) -> Any:
    """Projector or predictor on (B, D); `running` uses BatchNorm's running statistics, without it they are moved."""
    for i in range(depth):
        place = i * (2 if case.norm is None else 3)
        x = x @ w[f"{name}.{place}.weight"].T
        if i == depth - 1:
            break
        norm = f"{name}.{place + 1}"
        if case.norm == "layer":
            x = _layer_norm(x, w, norm, xp)
        elif case.norm == "batch" and running:
            x = (x - w[f"{norm}.running_mean"]) / xp.sqrt(w[f"{norm}.running_var"] + 1e-5)
            x = x * w[f"{norm}.weight"] + w[f"{norm}.bias"]
        elif case.norm == "batch":
            unbiased = ((x - x.mean(axis=0)) ** 2).sum(axis=0) / (len(x) - 1)
            for kind, value in (("running_mean", x.mean(axis=0)), ("running_var", unbiased)):
                moved = 0.9 * w[f"{norm}.{kind}"] + 0.1 * value
                w[f"{norm}.{kind}"] = moved if xp is np else moved.detach()
            x = _normalised(x, 1e-5, xp, axis=0) * w[f"{norm}.weight"] + w[f"{norm}.bias"]
        x = x * (x > 0) if case.activation == "relu" else _gelu(x, xp)
    return x


def _distance(a: Any, b: Any, xp: Any) -> Any:
    lengths = xp.sqrt((a**2).sum(axis=-1)) * xp.sqrt((b**2).sum(axis=-1))
    return (2 - 2 * (a * b).sum(axis=-1) / lengths).mean()


def lut(student: dict[str, Any], teacher: dict[str, Any], batch: dict[str, Any], case: Case, xp: Any) -> dict[str, Any]:
    """Losses and outputs of one batch in training mode, which moves `student`'s running statistics.

    `batch` has float64 views and NumPy noise.
    """
    order = np.argsort(batch["noise"], axis=1)
    ids = order[:, : case.visible], order[:, case.visible : 2 * case.visible]
    views = batch["view1"], batch["view2"]
    tokens = [encode(view, chosen, student, case, xp) for view, chosen in zip(views, ids, strict=True)]
    prediction = decode(tokens[0], ids[0], student, case, xp)
    target = patches_of(views[0], case.patch, xp)
    if case.norm_pix_loss:
        centred = target - target.mean(axis=-1, keepdims=True)
        variance = (centred**2).sum(axis=-1, keepdims=True) / (target.shape[-1] - 1)
        target = centred / xp.sqrt(variance + 1e-6)
    hidden = order[:, case.visible :]
    error = ((prediction - target) ** 2)[np.arange(len(hidden))[:, None], hidden]
    pooled = [x[:, 1:].mean(axis=1) for x in tokens]
    seen = pooled if case.symmetric else pooled[:1]
    projected = [apply_head(x, student, "head", case.projector, case, xp) for x in seen]
    q = [apply_head(x, student, "predictor", case.predictor, case, xp) for x in projected]
    whole = [encode(view, None, teacher, case, xp)[:, 1:].mean(axis=1) for view in views]
    k = [apply_head(x, teacher, "head", case.projector, case, xp, running=True) for x in whole]
    context = _distance(q[0], k[1], xp)
    if case.symmetric:
        context = (context + _distance(q[1], k[0], xp)) / 2
    reconstruction = error.mean()
    total = reconstruction + case.context_weight * context
    outputs = {"prediction": prediction, "teacher1": k[0], "teacher2": k[1]}
    outputs |= {f"student{view}": value for view, value in enumerate(q, start=1)}
    return {"total": total, "reconstruction": reconstruction, "context": context, **outputs}
