"""Encoders of published layouts compute here what they compute there: against a forward pass in plain NumPy."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_mae
from published import DINOV2, HEADS, VIT, dinov2_config, huggingface_state, images, norm, timm_state, tokens
from safetensors.numpy import save_file

from lut_tf import LUT, MAE, ViTEncoder
from lut_tf.export.signature import serving_function
from lut_tf.interop import convert, load_encoder, load_keras, load_reference, save_encoder, to_reference
from lut_tf.interop.encoders import encoder_tensors, save_folder
from lut_tf.models.layers import sincos_positions
from lut_tf.models.preprocess import IMAGENET, Preprocessing

Arrays = dict[str, np.ndarray]


def with_positions_of_registers(state: Arrays) -> Arrays:
    """timm without `no_embed_class`: the table has rows for register tokens too."""
    table, rows = state["pos_embed"], 0.1 * np.ones((1, 3, 32), "float32")
    return {
        **state,
        "pos_embed": np.concatenate([table[:, :1], rows, table[:, 1:]], axis=1),
        "reg_token": state["reg_token"] - rows,
    }


def without_class_row(state: Arrays) -> Arrays:
    """timm with `no_embed_class`: the class token holds its position."""
    token = state["cls_token"] + state["pos_embed"][:, :1]
    return {**state, "cls_token": token, "pos_embed": state["pos_embed"][:, 1:]}


def dinov2_of_meta(state: Arrays) -> Arrays:
    """DINOv2's own files."""
    named = {("register_tokens" if name == "reg_token" else name): array for name, array in state.items()}
    return {**named, "mask_token": np.zeros((1, 32), "float32")}


def deit3(state: Arrays) -> Arrays:
    renamed = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): x for name, x in state.items()}
    return without_class_row(renamed)


def vit(state: Arrays) -> Arrays:
    return huggingface_state(state, VIT, "vit.")


def dinov2(state: Arrays) -> Arrays:
    mask = {"embeddings.mask_token": np.zeros((1, 32), "float32")}
    return huggingface_state(state, DINOV2) | mask


def same(state: Arrays) -> Arrays:
    return state


# What the weights have, how they are written, and what the norms add there.
LAYOUTS: dict[str, tuple[dict[str, Any], Callable[[Arrays], Arrays], float]] = {
    "timm": ({}, same, 1e-6),
    "timm, LayerScale": ({"scale": True}, same, 1e-6),
    "timm, register tokens": ({"registers": 3, "scale": True}, without_class_row, 1e-6),
    "timm, register tokens with positions": ({"registers": 3}, with_positions_of_registers, 1e-6),
    "DINOv2": ({"scale": True}, dinov2_of_meta, 1e-6),
    "DINOv2 with registers": ({"registers": 4, "scale": True}, dinov2_of_meta, 1e-6),
    "DeiT III": ({"scale": True}, deit3, 1e-6),
    "Hugging Face ViT": ({}, vit, 1e-12),
    "Hugging Face DINOv2": ({"scale": True}, dinov2, 1e-6),
    "Hugging Face DINOv2 with registers": ({"registers": 4, "scale": True}, dinov2, 1e-6),
}


@pytest.mark.medium
@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(name: str) -> None:
    """1e-4 of NumPy in float64, where tokens are so small that another epsilon of the norms would show."""
    settings, written, eps = LAYOUTS[name]
    state = timm_state(**settings, spread=0.2)
    for part in ("cls_token", "pos_embed", "reg_token", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        if part in state:
            state[part] *= 0.01
    encoder = load_encoder(written(state), num_heads=HEADS)
    x = images()
    expected = tokens(state, x, eps=eps)
    np.testing.assert_allclose(encoder(x), expected, atol=1e-4)
    assert np.abs(tokens(state, x, eps=1e-5) - expected).max() > 1e-3
    assert encoder.prefix_tokens == 1 + settings.get("registers", 0)
    np.testing.assert_allclose(encoder.features(x), expected[:, encoder.prefix_tokens :].mean(1), atol=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize("layout", ["timm", "huggingface", "reference"])
@pytest.mark.parametrize("registers", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_settings_survive_a_round_trip(tmp_path: Path, layout: str, registers: int) -> None:
    """The same tokens, bit for bit; a .keras and a Hugging Face folder remember the epsilon too."""
    state = timm_state(registers=registers, scale=True)
    encoder = load_encoder(state, num_heads=HEADS, layer_norm_eps=1e-5)
    save_encoder(encoder, tmp_path / "encoder.safetensors", layout)
    again = load_encoder(tmp_path / "encoder.safetensors", num_heads=HEADS, layer_norm_eps=1e-5)
    np.testing.assert_array_equal(again(images()), encoder(images()))
    encoder.save(tmp_path / "encoder.keras")
    forms = [load_keras(tmp_path / "encoder.keras")]
    if layout == "huggingface":
        forms.append(load_encoder(convert(tmp_path / "encoder.keras", tmp_path / "folder", layout=layout)))
    for form in forms:
        assert (form.layer_norm_eps, form.registers, form.layer_scale) == (1e-5, registers, True)
        np.testing.assert_array_equal(form(images()), encoder(images()))


def test_settings_hold_elsewhere() -> None:
    """Resized, exported, and masked: the prefix stays in front, the mean is over patches alone."""
    encoder = load_encoder(timm_state(registers=3, scale=True), num_heads=HEADS)
    x = images()
    larger = encoder.resized((48, 32))
    assert larger(images(48, 32)).shape == (2, 4 + 24, 32)
    np.testing.assert_array_equal(larger.positions.numpy()[0], encoder.positions.numpy()[0])
    outputs = serving_function(encoder)[0](x)
    np.testing.assert_allclose(outputs["cls"], encoder(x)[:, 0], atol=1e-5)
    np.testing.assert_allclose(outputs["pooled"], np.mean(encoder(x)[:, 4:], axis=1), atol=1e-5)
    ids = np.array([[3, 1, 7], [2, 0, 5]])
    embedded = encoder.add_positions(encoder.embed(x, ids), ids)
    whole = encoder.add_positions(encoder.embed(x))
    np.testing.assert_allclose(embedded[:, :4], whole[:, :4], atol=1e-6)
    np.testing.assert_allclose(embedded[1, 4:], whole.numpy()[1][4 + ids[1]], atol=1e-5)


def test_settings_out_of_range() -> None:
    for settings, message in (
        ({"layer_norm_eps": 0.0}, "layer_norm_eps=0.0 is not above 0"),
        ({"register_tokens": -1}, "register_tokens=-1 is below 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ViTEncoder(32, 8, 32, 1, 2, **settings)
    with pytest.raises(ValueError, match="with LayerScale only"):
        encoder_tensors(ViTEncoder(32, 8, 32, 1, 2, register_tokens=2), "huggingface")


@pytest.mark.parametrize("written", ["MAE's fine-tuned", "timm, avg"])
def test_fc_norm_is_the_final_norm_with_a_warning(written: str) -> None:
    """Tokens without it are theirs; so is the pooled feature, 1e-5, if the norm comes after the mean."""
    state = timm_state()
    named = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: x for name, x in state.items()}
    head = {"head.weight": np.ones((10, 32), "float32"), "head.bias": np.ones(10, "float32")}
    source = {"model": {**named, **head}} if written.startswith("MAE") else {**named, **head}
    with pytest.warns(UserWarning, match="fc_norm, which it applies to the mean"):
        encoder = load_encoder(source, num_heads=HEADS)
    x = images()
    plain = tokens(state, x, last=False)
    theirs = norm(plain[:, 1:].mean(1), state, "norm", 1e-6)
    ours = encoder.blocks(encoder.add_positions(encoder.embed(x)), final_norm=False)
    np.testing.assert_allclose(ours, plain, atol=1e-4)
    np.testing.assert_allclose(encoder.norm(np.mean(ours[:, encoder.prefix_tokens :], axis=1)), theirs, atol=1e-5)
    assert np.abs(encoder.features(x).numpy() - theirs).max() > 0.01
    np.testing.assert_allclose(encoder(x), tokens(state, x), atol=1e-4)


@pytest.mark.parametrize("name", ["dist_token", "embeddings.distillation_token"])
def test_a_second_class_token_is_named(name: str) -> None:
    state = timm_state() if name == "dist_token" else huggingface_state(timm_state(), VIT)
    source = {**state, name: np.ones((1, 1, 32), "float32"), "head_dist.weight": np.ones((10, 32), "float32")}
    for load in (load_encoder, load_reference):
        with pytest.raises(ValueError, match=f"{name} is a second class token"):
            load(source, num_heads=HEADS)


def test_heads_before_a_classifier_are_left_out() -> None:
    state = timm_state()
    around = {"pre_logits.fc.weight": np.ones((32, 32)), "pre_logits.fc.bias": np.ones(32), "head.weight": np.ones(3)}
    np.testing.assert_array_equal(load_encoder(state | around, num_heads=HEADS).norm.gamma, state["norm.weight"])


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "encoder.", "module.", "backbone.", "model.encoder.", "net.module."]
)
def test_prefixes_of_trainers(prefix: str) -> None:
    state = timm_state()
    source = {"state_dict": {prefix + name: array for name, array in state.items()}, "epoch": 3}
    np.testing.assert_array_equal(load_encoder(source, num_heads=HEADS).norm.gamma, state["norm.weight"])


def write_folder(folder: Path, state: Arrays, config: dict[str, Any] | str, form: str) -> Path:
    """Write what `save_pretrained` writes."""
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if "sharded" in form:
        names = list(state)
        parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
        for file, held in parts.items():
            save_file({name: state[name] for name in held}, folder / file)
        index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif form == "bin":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.tensor(array) for name, array in state.items()}, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin"])
def test_a_folder_tells_what_shapes_do_not(tmp_path: Path, form: str) -> None:
    """Heads, epsilon, and that two by eight patches are no square; settings that are given count for more."""
    state = timm_state(grid=(2, 8), scale=True)
    config = dinov2_config(image_size=[16, 64], layer_norm_eps=1e-3)
    folder = write_folder(tmp_path / "folder", dinov2(state), config, form)
    encoder = load_encoder(folder)
    x = images(16, 64)
    np.testing.assert_allclose(encoder(x), tokens(state, x, eps=1e-3), atol=1e-4)
    other = load_encoder(folder, num_heads=4, layer_norm_eps=1e-6)
    assert (other.heads, other.layer_norm_eps) == (4, 1e-6)


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ("{", True, "config.json is damaged or no JSON"),
        ("[]", True, "holds a list, not settings"),
        (dinov2_config(num_attention_heads="two"), True, "num_attention_heads='two' is no whole number"),
        (dinov2_config(layer_norm_eps=-1), True, "layer_norm_eps=-1 is not above 0"),
        (dinov2_config(image_size=[1, 2, 3]), True, r"image_size=\[1, 2, 3\] is neither"),
        (dinov2_config(hidden_act="relu"), True, "hidden_act='relu'"),
        (dinov2_config(), False, "holds no weights"),
        (None, True, "holds no config.json"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path: Path, config: Any, weights: bool, message: str) -> None:
    folder = write_folder(tmp_path / "folder", {"x": np.ones(2, "float32")}, config or "", "safetensors")
    if config is None:
        (folder / "config.json").unlink()
    if not weights:
        (folder / "model.safetensors").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=f"^.*{message}.*$"):
        load_encoder(folder)


def test_shards_lie_beside_their_index(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", dinov2(timm_state()), dinov2_config(), "sharded safetensors")
    (folder / "b.safetensors").rename(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="lacks b.safetensors"):
        load_encoder(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"b.safetensors"', '"../b.safetensors"'))
    with pytest.raises(ValueError, match="names no files beside it"):
        load_encoder(folder)


def test_a_folder_for_hugging_face_is_new(tmp_path: Path) -> None:
    """Its configuration says what is in it, and what is there already stays."""
    encoder = load_encoder(timm_state(registers=4, scale=True), num_heads=HEADS)
    encoder.save(tmp_path / "encoder.keras")
    folder = convert(tmp_path / "encoder.keras", tmp_path / "folder", layout="huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["num_register_tokens"]) == (["Dinov2WithRegistersModel"], 4)
    with pytest.raises(FileExistsError, match="exists: give the path of a new folder"):
        convert(tmp_path / "encoder.keras", folder, layout="huggingface")
    save_folder(load_encoder(timm_state(), num_heads=HEADS), tmp_path / "vit")
    assert json.loads((tmp_path / "vit" / "config.json").read_text())["architectures"] == ["ViTModel"]


HALVES, IMAGENETS = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
# What lies where, and the mean that it was trained with.
MEANS: dict[str, tuple[Callable[[Arrays], dict[str, Any]], tuple[float, ...]]] = {
    "timm's vit_*": (same, HALVES),
    "Hugging Face's ViT": (vit, HALVES),
    "a trainer's file": (lambda state: {"model": state, "epoch": 3}, IMAGENETS),
    "DINO's, with its heads": (lambda state: {"student": {f"backbone.{k}": v for k, v in state.items()}}, IMAGENETS),
    "beside a decoder": (lambda state: state | {"decoder_embed.bias": np.ones(3)}, IMAGENETS),
    "Hugging Face's MAE": (lambda state: vit(state) | {"decoder.mask_token": np.ones(3)}, IMAGENETS),
    "a sine-cosine table": (lambda state: state | {"pos_embed": sincos_positions((4, 4), 32)[None]}, IMAGENETS),
    "LayerScale": (lambda state: state | timm_state(scale=True), IMAGENETS),
}


@pytest.mark.medium
@pytest.mark.parametrize("kind", MEANS)
def test_preprocessing_by_layout(kind: str) -> None:
    written, mean = MEANS[kind]
    assert load_encoder(written(timm_state()), num_heads=HEADS).preprocessing.mean == mean
    asked = load_encoder(written(timm_state()), num_heads=HEADS, preprocessing={"mean": (0.1, 0.2, 0.3)})
    assert asked.preprocessing.mean == (0.1, 0.2, 0.3)


PROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2, "rescale_factor": 1 / 255}
TIMM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "crop_pct": 0.9}


@pytest.mark.parametrize(
    ("config", "processor", "crop_share"),
    [
        (dinov2_config(), {**PROCESSOR, "size": {"height": 224, "width": 224}}, 1.0),
        (
            dinov2_config(),
            {
                **PROCESSOR,
                "do_center_crop": True,
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
            },
            0.875,
        ),
        ({"architecture": "vit_tiny", "pretrained_cfg": {**TIMM, "input_size": [3, 32, 32]}}, None, 0.9),
    ],
)
def test_preprocessing_of_a_folder(tmp_path: Path, config: Any, processor: Any, crop_share: float) -> None:
    state = dinov2(timm_state()) if processor else timm_state()
    folder = write_folder(tmp_path / "folder", state, config, "safetensors")
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    found = load_encoder(folder, num_heads=HEADS).preprocessing
    assert found == Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", crop_share)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rescale_factor": 1 / 127.5}, r"scales bytes by 0\.0078.*give preprocessing="),
        ({"do_rescale": False}, "scales bytes by"),
        ({"image_mean": [0.5]}, "preprocessor_config.json is damaged"),
        ({"image_std": [0, 0, 0]}, "preprocessor_config.json is damaged"),
        ({"image_mean": "grey"}, "preprocessor_config.json is damaged"),
    ],
)
def test_preprocessing_that_cannot_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = write_folder(tmp_path / "folder", dinov2(timm_state()), dinov2_config(), "safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **change}))
    with pytest.raises(ValueError, match=f"^.*{message}.*$"):
        load_encoder(folder)


def test_convert_says_what_preprocessing_it_took(tmp_path: Path) -> None:
    """And a folder for Hugging Face keeps it."""
    save_file(timm_state(), tmp_path / "in.safetensors")
    said: list[str] = []
    folder = convert(
        tmp_path / "in.safetensors", tmp_path / "folder", layout="huggingface", num_heads=HEADS, say=said.append
    )
    assert said[0].startswith("preprocessing: mean 0.5, 0.5, 0.5; std 0.5, 0.5, 0.5 (usual in timm's vit_*;")
    convert(folder, tmp_path / "out.keras", say=said.append)
    assert said[1].endswith("(preprocessor_config.json)")
    found = load_keras(tmp_path / "out.keras").preprocessing
    assert (found.mean, found.std, found.crop_share) == (HALVES, HALVES, 1.0)
    convert(folder, tmp_path / "out.keras", preprocessing=IMAGENET, say=said.append)
    assert said[2] == "preprocessing: mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225 (as asked)"


def mae_of_huggingface() -> tuple[MAE, Arrays]:
    """One of ours, and its weights by the names of `ViTMAEForPreTraining`."""
    ours = tiny_mae(ViTEncoder(32, 8, 32, 2, HEADS, layer_norm_eps=1e-12))
    theirs = to_reference(ours)
    encoder = {name: x for name, x in theirs.items() if "decoder" not in name and name != "mask_token"}
    decoder = {name: x for name, x in theirs.items() if "decoder" in name or name == "mask_token"}
    blocks = {name[8:]: x for name, x in decoder.items() if name.startswith("decoder_blocks.")}
    named = huggingface_state(encoder, VIT, "vit.") | {
        f"decoder.{name}": x for name, x in decoder.items() if not name.startswith("decoder_blocks.")
    }
    return ours, named | huggingface_state(blocks, VIT, "decoder.", "decoder_layers")


@pytest.mark.medium
def test_a_whole_mae_of_hugging_face(tmp_path: Path) -> None:
    """Encoder and decoder, with the heads that its configuration tells; as an `MAE`, and in a `LUT`."""
    ours, state = mae_of_huggingface()
    config = {"model_type": "vit_mae", "num_attention_heads": HEADS, "decoder_num_attention_heads": 2}
    folder = write_folder(tmp_path / "folder", state, {**config, "layer_norm_eps": 1e-12}, "safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_reference(folder, method="mae")
    assert isinstance(found, MAE)
    assert (found.encoder.layer_norm_eps, found.encoder.heads, found.decoder.heads) == (1e-12, HEADS, 2)
    for name, value in to_reference(ours).items():
        np.testing.assert_array_equal(to_reference(found)[name], value, err_msg=name)
    with pytest.warns(UserWarning, match="does not hold projector, predictor"):
        assert isinstance(load_reference(folder), LUT)


@pytest.mark.medium
def test_method_mae_leaves_heads_out() -> None:
    """Of a LUT's file it is encoder and decoder; of an encoder alone, the decoder is fresh."""
    ours = tiny_mae(ViTEncoder(32, 8, 32, 1, HEADS))
    held = to_reference(ours) | {"head.0.weight": np.ones((32, 32), "float32"), "predictor.0.weight": np.ones((32, 32))}
    found = load_reference(held, method="mae", num_heads=HEADS, decoder_num_heads=2, mask_ratio=0.6)
    assert isinstance(found, MAE)
    assert found.mask_ratio == 0.6
    with pytest.warns(UserWarning, match="does not hold the decoder: they stay"):
        load_reference(encoder_tensors(ours.encoder, "timm"), method="mae", num_heads=HEADS)
    for settings, message in (({"method": "beit"}, "method='beit' is not known"), ({"teacher": {}}, "has none")):
        with pytest.raises(ValueError, match=message):
            load_reference(held, **{"method": "mae", **settings})


@pytest.mark.medium
@pytest.mark.parametrize(
    ("grid", "asked", "made_for"),
    [
        ((4, 4), 48, (4, 4)),  # resized
        ((4, 4), (16, 40), (4, 4)),
        ((2, 8), (16, 64), (2, 8)),  # as many: what it was made for
    ],
)
@pytest.mark.parametrize("source", ["mapping", "keras"])
def test_image_size_is_that_of_the_encoder_wanted(
    tmp_path: Path, grid: tuple[int, int], asked: Any, made_for: tuple[int, int], source: str
) -> None:
    state, own = timm_state(grid=grid), (grid[0] * 8, grid[1] * 8)
    first = load_encoder(state, num_heads=HEADS, image_size=own)
    assert first.grid == made_for
    if source == "mapping":
        found = load_encoder(state, num_heads=HEADS, image_size=asked)
    else:
        first.save(tmp_path / "in.keras")
        found = load_keras(convert(tmp_path / "in.keras", tmp_path / "out.keras", image_size=asked))
    sides = (asked, asked) if isinstance(asked, int) else asked
    assert found.image_size == sides
    np.testing.assert_array_equal(found.positions, first.resized(sides).positions)


def test_an_image_size_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"image_size=\[33, 33\] is not a multiple of the patch size 8"):
        load_encoder(timm_state(), num_heads=HEADS, image_size=33)
