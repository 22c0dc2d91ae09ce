"""Encoders of timm, Hugging Face and others: in, out, converted."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_lut

from lut_tf import ViTEncoder
from lut_tf.interop import convert, load_encoder, load_keras, save_encoder
from lut_tf.interop.encoders import encoder_tensors

LAYOUTS = ("timm", "huggingface", "reference")


@cache
def make(**settings: Any) -> ViTEncoder:
    """An encoder whose every weight is random, so that none can be confused with another; nobody changes it."""
    encoder = ViTEncoder(**{"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, **settings})
    random = np.random.default_rng(0)
    for variable in encoder.trainable_variables:
        variable.assign(0.2 * random.normal(size=variable.shape))
    return encoder


def images(encoder: ViTEncoder) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, *encoder.image_size, 3)).astype("float32")


def same(one: ViTEncoder, other: ViTEncoder) -> bool:
    pairs = zip(one.variables, other.variables, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs) and one.image_size == other.image_size


@pytest.mark.medium
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("positions", ["sincos", "learned"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_round_trip_is_exact(tmp_path: Path, layout: str, positions: str, suffix: str) -> None:
    """Bitwise, and it remembers whether its positions were learned."""
    if suffix == ".pth":
        pytest.importorskip("torch")
    encoder, path = make(positions=positions), tmp_path / f"encoder{suffix}"
    save_encoder(encoder, path, layout)
    again = load_encoder(path, num_heads=2)
    assert same(encoder, again)
    assert again.position_kind == positions


def test_without_class_token(tmp_path: Path) -> None:
    encoder, path = make(class_token=False), tmp_path / "encoder.safetensors"
    save_encoder(encoder, path)
    again = load_encoder(path, num_heads=2)
    assert not again.prefix_tokens
    assert same(encoder, again)
    with pytest.raises(ValueError, match="needs a class token"):
        save_encoder(encoder, path, "huggingface")


def test_a_class_token_without_position() -> None:
    """timm's `no_embed_class`: the class token's position is zero."""
    encoder = make()
    tensors = encoder_tensors(encoder, "timm")
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    assert same(encoder, load_encoder(tensors, num_heads=2))


def test_a_lost_class_token_is_missed() -> None:
    tensors = encoder_tensors(make(), "timm")
    del tensors["cls_token"]
    with pytest.raises(ValueError, match="missing: cls_token"):
        load_encoder(tensors, num_heads=2)


@pytest.mark.parametrize("spelling", ["q_bias and v_bias", "no key", "none", "one missing"])
def test_key_bias(spelling: str) -> None:
    """Without a key bias the tokens are the same to 1e-5; without any, it is zero; lost in one block, it is missed."""
    encoder = make()
    layout = "huggingface" if spelling in ("no key", "one missing") else "timm"
    tensors = encoder_tensors(encoder, layout)
    if layout == "timm":
        for i in range(2):
            query, _, value = np.split(tensors.pop(f"blocks.{i}.attn.qkv.bias"), 3)
            if spelling != "none":
                tensors |= {f"blocks.{i}.attn.q_bias": query, f"blocks.{i}.attn.v_bias": value}
    else:
        blocks = range(2) if spelling == "no key" else [1]
        for i in blocks:
            del tensors[f"encoder.layer.{i}.attention.attention.key.bias"]
    if spelling == "one missing":
        with pytest.raises(ValueError, match=r"missing: encoder\.layer\.1\.attention\.attention\.key\.bias"):
            load_encoder(tensors, num_heads=2)
        return
    found = load_encoder(tensors, num_heads=2)
    if spelling == "none":
        assert not any(block.attention.qkv.bias.numpy().any() for block in found.block_layers)
    else:
        np.testing.assert_allclose(found(images(encoder)), encoder(images(encoder)), atol=1e-5)


def test_what_stands_around_an_encoder_is_left_out() -> None:
    encoder = make()
    around = ("head.weight", "head.bias", "fc_norm.weight", "decoder_embed.weight", "mask_token", "predictor.0.weight")
    tensors = encoder_tensors(encoder, "timm") | dict.fromkeys(around, np.ones((2, 2), "float32"))
    assert same(encoder, load_encoder(tensors, num_heads=2))
    tensors = {f"vit.{k}": v for k, v in encoder_tensors(encoder, "huggingface").items()}
    around = ("decoder.decoder_embed.weight", "classifier.bias", "vit.pooler.dense.weight", "vit.embeddings.mask_token")
    assert same(encoder, load_encoder(tensors | dict.fromkeys(around, np.ones(2, "float32")), num_heads=2))


def test_what_changes_the_tokens_is_refused() -> None:
    tensors = encoder_tensors(make(), "timm") | {
        "blocks.0.attn.q_norm.weight": np.ones(16),
        "norm_pre.bias": np.ones(32),
    }
    with pytest.raises(ValueError, match="not known: blocks.0.attn.q_norm.weight, norm_pre.bias"):
        load_encoder(tensors, num_heads=2)


def test_names_of_nobody_are_refused() -> None:
    with pytest.raises(ValueError, match="none of the layouts.*conv1.weight"):
        load_encoder({"conv1.weight": np.ones((64, 3, 7, 7))})


def test_learned_positions_of_a_rectangle_need_the_size() -> None:
    encoder = make(image_size=(16, 40), positions="learned")
    tensors = encoder_tensors(encoder, "timm")
    with pytest.raises(ValueError, match=r"give image_size=\(height, width\)"):
        load_encoder(tensors, num_heads=2)
    assert same(encoder, load_encoder(tensors, num_heads=2, image_size=(16, 40)))


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["ViTModel", "ViTMAEForPreTraining"])
def test_hugging_face_agrees(tmp_path: Path, kind: str) -> None:
    """1e-5, both ways, with its own classes: from its files, from its names in memory, and into them."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    size |= {"image_size": 32, "patch_size": 8}
    settings = {**size, "layer_norm_eps": 1e-6, "mask_ratio": 0.0}
    config = getattr(transformers, kind.removesuffix("ForPreTraining").removesuffix("Model") + "Config")(**settings)
    theirs = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    x = images(make())

    def tokens(model: Any) -> np.ndarray:
        pixels = torch.tensor(x).permute(0, 3, 1, 2)
        if kind == "ViTModel":
            return model(pixels).last_hidden_state.detach().numpy()
        noise = torch.arange(16.0).repeat(2, 1)  # which keeps the patches in order
        return model.vit(pixels, noise=noise).last_hidden_state.detach().numpy()

    for source in (tmp_path / "model.safetensors", theirs.state_dict()):
        encoder = load_encoder(source, num_heads=2)
        np.testing.assert_allclose(encoder(x), tokens(theirs), atol=1e-5)
    ours, folder = make(), tmp_path / "ours"
    folder.mkdir()
    config.save_pretrained(folder)
    save_encoder(ours, folder / "model.safetensors", "huggingface")
    again = getattr(transformers, kind).from_pretrained(folder).eval()
    np.testing.assert_allclose(ours(x), tokens(again), atol=1e-5)


@pytest.mark.medium
def test_timm_agrees(tmp_path: Path) -> None:
    """1e-5, both ways, with timm's own class."""
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm", exc_type=ImportError)
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0
    ).eval()
    x = images(make())
    pixels = torch.tensor(x).permute(0, 3, 1, 2)
    encoder = load_encoder(theirs.state_dict(), num_heads=2)
    np.testing.assert_allclose(encoder(x), theirs.forward_features(pixels).detach().numpy(), atol=1e-5)
    ours, path = make(), tmp_path / "encoder.pth"
    save_encoder(ours, path)
    theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
    np.testing.assert_allclose(ours(x), theirs.forward_features(pixels).detach().numpy(), atol=1e-5)


@pytest.mark.medium
@pytest.mark.parametrize("target", ["out.keras", "out.safetensors", "out.pth"])
@pytest.mark.parametrize("source", ["in.keras", "in.safetensors", "in.pth"])
def test_convert(tmp_path: Path, source: str, target: str) -> None:
    """Exact, from every form into every other."""
    if "pth" in source + target:
        pytest.importorskip("torch")
    encoder = make()
    if source == "in.keras":
        encoder.save(tmp_path / source)
    else:
        save_encoder(encoder, tmp_path / source, "huggingface")
    heads = None if source == "in.keras" else 2
    path = convert(tmp_path / source, tmp_path / target, num_heads=heads)
    assert path == tmp_path / target
    again = load_keras(path) if target == "out.keras" else load_encoder(path, num_heads=2)
    assert same(encoder, again)


@pytest.mark.medium
def test_convert_a_whole_model(tmp_path: Path) -> None:
    """As its encoder, or whole as `reference`."""
    encoder = make()
    tiny_lut(encoder).save(tmp_path / "model.keras")
    for layout in LAYOUTS:
        path = convert(tmp_path / "model.keras", tmp_path / f"{layout}.safetensors", layout=layout)
        assert same(encoder, load_encoder(path, num_heads=2))
    from safetensors.numpy import load_file

    assert "decoder_pred.weight" in load_file(tmp_path / "reference.safetensors")


def test_convert_refuses_what_cannot_be(tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    save_encoder(make(), source)
    (tmp_path / "bad.keras").write_bytes(b"no zip")
    mistakes: list[tuple[str, str, dict[str, Any], type[Exception], str]] = [
        ("in.safetensors", "out.h5", {}, ValueError, "end it in"),
        ("in.safetensors", "out.keras", {"layout": "timm"}, ValueError, "leave it out"),
        ("in.safetensors", "out.pth", {"layout": "flax"}, ValueError, "layout='flax' is not known"),
        ("none.keras", "out.safetensors", {}, FileNotFoundError, "does not exist"),
        ("none.pth", "out.safetensors", {}, FileNotFoundError, "does not exist"),
        ("bad.keras", "out.safetensors", {}, ValueError, "damaged or no .keras file"),
        ("bad.keras", "out.safetensors", {"num_heads": 2}, ValueError, "num_heads is given, but .* knows its own"),
        ("in.safetensors", "out.keras", {}, ValueError, "num_heads: shapes do not tell it"),
    ]
    for given, target, settings, kind, message in mistakes:
        with pytest.raises(kind, match=message):
            convert(tmp_path / given, tmp_path / target, **settings)
    assert not list(tmp_path.glob("out*"))
