"""Vision Transformers as others publish them: weights by their names, and what they compute, in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
PATCH, WIDTH, DEPTH, HEADS = 8, 32, 2, 2
SIZE = {"patch": PATCH, "width": WIDTH, "depth": DEPTH}
_erf = np.vectorize(math.erf)


def timm_state(
    grid: tuple[int, int] = (4, 4), registers: int = 0, scale: bool = False, patch: int = PATCH, width: int = WIDTH,
    depth: int = DEPTH, spread: float = 0.2,
) -> Arrays:  # fmt: skip
    """Random weights by timm's names; the table has a row for the class token, none for registers."""
    random = np.random.default_rng(7)
    block = {
        "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
        "attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
        "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
        **({"ls1.gamma": (width,), "ls2.gamma": (width,)} if scale else {}),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width), "pos_embed": (1, 1 + grid[0] * grid[1], width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
        **({"reg_token": (1, registers, width)} if registers else {}),
        **{f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()},
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    return {name: (spread * random.normal(size=shape)).astype("float32") for name, shape in shapes.items()}


def norm(x: np.ndarray, state: Arrays, name: str, eps: float) -> np.ndarray:
    """Layer normalisation in float64."""
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return normal * state[f"{name}.weight"] + state[f"{name}.bias"]


def tokens(
    state: Arrays, images: np.ndarray, heads: int = HEADS, eps: float = 1e-6, last: bool = True,
    kept: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """What a network of `timm_state` makes of images (B, H, W, 3): tokens (B, T, D), float64.

    `kept` (B, 2 · depth) are the factors of what attention and MLP of each block add.
    """
    state = {name: array.astype("float64") for name, array in state.items()}
    kernel = state["patch_embed.proj.weight"]
    width, patch = kernel.shape[0], kernel.shape[2]
    batch, height, breadth = images.shape[:3]
    cut = images.astype("float64").reshape(batch, height // patch, patch, breadth // patch, patch, 3)
    x = np.einsum("byixjc,dcij->byxd", cut, kernel).reshape(batch, -1, width) + state["patch_embed.proj.bias"]
    token, table = state["cls_token"], state["pos_embed"]
    prefix = [token + table[:, :1], state.get("reg_token", token[:, :0])]
    x = np.concatenate([*(np.repeat(part, batch, 0) for part in prefix), x + table[:, 1:]], axis=1)
    for i in range(sum(name.endswith("attn.qkv.weight") for name in state)):
        factors = np.ones((batch, 2)) if kept is None else kept[:, 2 * i : 2 * i + 2]
        x = x + factors[:, 0, None, None] * attention(x, state, f"blocks.{i}", heads, eps)
        name = f"blocks.{i}.mlp"
        hidden = norm(x, state, f"blocks.{i}.norm2", eps) @ state[f"{name}.fc1.weight"].T + state[f"{name}.fc1.bias"]
        hidden = 0.5 * hidden * (1 + _erf(hidden / math.sqrt(2)))
        mapped = hidden @ state[f"{name}.fc2.weight"].T + state[f"{name}.fc2.bias"]
        x = x + factors[:, 1, None, None] * mapped * state.get(f"blocks.{i}.ls2.gamma", 1.0)
    return norm(x, state, "norm", eps) if last else x


def classifier_state(pooling: str = "mean", classes: int = 5, **settings: Any) -> Arrays:
    """Random weights of a classifier by timm's names: with `mean` its norm is called `fc_norm`."""
    random, state = np.random.default_rng(8), timm_state(**settings)
    if pooling == "mean":
        state = {
            name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: x for name, x in state.items()
        }
    shapes = {"head.weight": (classes, state["cls_token"].shape[-1]), "head.bias": (classes,)}
    return state | {name: (0.2 * random.normal(size=shape)).astype("float32") for name, shape in shapes.items()}


def logits(state: Arrays, images: np.ndarray, **settings: Any) -> np.ndarray:
    """What a classifier of `classifier_state` makes of images: logits (B, classes), float64."""
    of_mean, eps = "fc_norm.weight" in state, settings.get("eps", 1e-6)
    found = tokens(state, images, last=not of_mean, **settings)
    pooled = norm(found[:, 1:].mean(1), state, "fc_norm", eps) if of_mean else found[:, 0]
    return pooled @ state["head.weight"].T + state["head.bias"]


def attention(x: np.ndarray, state: Arrays, block: str, heads: int, eps: float) -> np.ndarray:
    """What a block's attention adds to the tokens (B, T, D)."""
    batch, length, width = x.shape
    joint = (
        norm(x, state, f"{block}.norm1", eps) @ state[f"{block}.attn.qkv.weight"].T + state[f"{block}.attn.qkv.bias"]
    )
    query, key, value = joint.reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = np.exp(query @ key.swapaxes(2, 3) / math.sqrt(width / heads))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ value
    mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, length, width)
    mixed = mixed @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
    return mixed * state.get(f"{block}.ls1.gamma", 1.0)


VIT = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
    "attn.proj": "attention.output.dense",
}  # fmt: skip
DINOV2 = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
AROUND = {
    "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
    "reg_token": "embeddings.register_tokens", "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}  # fmt: skip


def huggingface_state(state: Arrays, parts: dict[str, str], prefix: str = "", blocks: str = "encoder.layer") -> Arrays:
    """The same weights by Hugging Face's names; `parts` are those of a block."""
    found: Arrays = {}
    for name, array in state.items():
        if name.startswith("blocks."):
            _, number, inner = name.split(".", 2)
            stem = f"{prefix}{blocks}.{number}"
            if inner.startswith("attn.qkv"):
                for third, part in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                    found[f"{stem}.attention.attention.{third}.{inner.rpartition('.')[2]}"] = part.copy()
                continue
            ours = next((part for part in parts if inner.startswith(part)), "")
            found[f"{stem}.{parts.get(ours, '')}{inner[len(ours) :]}"] = array
        elif name.startswith("head."):
            found[f"classifier.{name.removeprefix('head.')}"] = array
        else:
            ours = max((part for part in AROUND if name.startswith(part)), key=len)
            found[f"{prefix}{AROUND[ours]}{name[len(ours) :]}"] = array
    return found


def images(height: int = 32, width: int = 32, count: int = 2) -> np.ndarray:
    """Normalised images, float32."""
    return np.random.default_rng(1).normal(size=(count, height, width, 3)).astype("float32")


def dinov2_config(**changes: Any) -> dict[str, Any]:
    """What `config.json` of a small DINOv2 says."""
    config = {"model_type": "dinov2", "num_attention_heads": HEADS, "layer_norm_eps": 1e-6, "image_size": 32}
    return {**config, "patch_size": PATCH, "hidden_act": "gelu", **changes}
