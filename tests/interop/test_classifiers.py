"""Classifiers with their heads: other people's compute here what they compute there, and ours come back."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_encoder, tiny_mae
from published import DINOV2, HEADS, VIT, classifier_state, huggingface_state, images, logits, timm_state
from safetensors.numpy import save_file

from lut_tf import ViTClassifier, ViTEncoder
from lut_tf.cli.program import main
from lut_tf.config import Config
from lut_tf.config.networks import EncoderConfig
from lut_tf.export.command import export_encoder
from lut_tf.interop import (
    convert,
    load_classifier,
    load_encoder,
    load_keras,
    save_classifier,
    save_reference,
    to_reference,
)
from lut_tf.models.preprocess import HALF, IMAGENET
from lut_tf.tasks.initial import find_initial, load_initial

Arrays = dict[str, np.ndarray]


def vit(state: Arrays) -> Arrays:
    return huggingface_state(state, VIT, "vit.")


def same(state: Arrays) -> Arrays:
    return state


def without_class_row(state: Arrays) -> Arrays:
    """timm with `no_embed_class`: the class token holds its position."""
    token = state["cls_token"] + state["pos_embed"][:, :1]
    return {**state, "cls_token": token, "pos_embed": state["pos_embed"][:, 1:]}


# How it pools, how it is written, and what the norms add there.
LAYOUTS: dict[str, tuple[str, Callable[[Arrays], Any], float]] = {
    "LUT's and MAE's fine-tuned": ("mean", lambda state: {"model": state, "epoch": 99}, 1e-6),
    "MAE's with the class token": ("cls", lambda state: {"model": state}, 1e-6),
    "timm, avg": ("mean", same, 1e-6),
    "timm, token": ("cls", same, 1e-6),
    "timm, no_embed_class": ("mean", without_class_row, 1e-6),
    "Lightning's": ("mean", lambda state: {"state_dict": {f"model.{k}": x for k, x in state.items()}}, 1e-6),
    "Hugging Face ViT": ("cls", vit, 1e-12),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_classifiers(name: str) -> None:
    """1e-5 of NumPy in float64, head included."""
    pooling, written, eps = LAYOUTS[name]
    state, x = classifier_state(pooling), images()
    classifier = load_classifier(written(state), num_heads=HEADS)
    assert (classifier.pooling, classifier.classes, classifier.class_names) == (pooling, 5, None)
    assert classifier.encoder.position_kind == "learned"
    np.testing.assert_allclose(classifier(x), logits(state, x, eps=eps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_torch_agrees(pooling: str) -> None:
    """1e-5 of a timm classifier's forward pass in PyTorch."""
    torch = pytest.importorskip("torch")
    state, x = classifier_state(pooling), images()
    t = {name: torch.tensor(array) for name, array in state.items()}
    F = torch.nn.functional

    def layer_norm(y: Any, name: str) -> Any:
        return F.layer_norm(y, (y.shape[-1],), t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)

    def linear(y: Any, name: str) -> Any:
        return F.linear(y, t[f"{name}.weight"], t[f"{name}.bias"])

    kernel = t["patch_embed.proj.weight"]
    y = F.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel, t["patch_embed.proj.bias"], stride=kernel.shape[-1])
    y = torch.cat([t["cls_token"].expand(len(x), -1, -1), y.flatten(2).transpose(1, 2)], 1) + t["pos_embed"]
    for i in range(2):
        block = f"blocks.{i}"
        joint = linear(layer_norm(y, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = joint.reshape(*y.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        y = y + linear(mixed.transpose(1, 2).reshape(y.shape), f"{block}.attn.proj")
        y = y + linear(F.gelu(linear(layer_norm(y, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    pooled = layer_norm(y[:, 1:].mean(1), "fc_norm") if pooling == "mean" else layer_norm(y, "norm")[:, 0]
    found = load_classifier(state, num_heads=HEADS)(x)
    np.testing.assert_allclose(found, linear(pooled, "head"), rtol=0, atol=1e-5)


def made(pooling: str = "mean", **settings: Any) -> ViTClassifier:
    """A classifier whose every weight is random."""
    encoder = ViTEncoder(32, 8, 32, 2, 2, positions="learned", preprocessing=HALF, **settings)
    classifier = ViTClassifier(encoder, 3, pooling, class_names=["ant", "bee", "cat"])
    random = np.random.default_rng(0)
    for variable in classifier.trainable_variables:
        variable.assign(0.2 * random.normal(size=variable.shape))
    return classifier


def alike(one: ViTClassifier, other: ViTClassifier) -> bool:
    """Tell whether all that is trained is the same, bit for bit."""
    pairs = zip(one.trainable_variables, other.trainable_variables, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs) and one.pooling == other.pooling


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("layout", "pooling"),
    [("timm", "mean"), ("timm", "cls"), ("reference", "mean"), ("reference", "cls"), ("huggingface", "cls")],
)
def test_round_trip_is_exact(tmp_path: Path, layout: str, pooling: str, suffix: str) -> None:
    if suffix == ".pth":
        pytest.importorskip("torch")
    classifier, path = made(pooling), tmp_path / f"classifier{suffix}"
    save_classifier(classifier, path, layout)
    assert alike(classifier, load_classifier(path, num_heads=2))


@pytest.mark.parametrize("layout", ["timm", "reference"])
def test_register_tokens_and_layer_scale_survive(tmp_path: Path, layout: str) -> None:
    """1e-6: timm adds the class token's position to it."""
    classifier, x = made(register_tokens=3, layer_scale=True), images()
    save_classifier(classifier, tmp_path / "classifier.safetensors", layout)
    again = load_classifier(tmp_path / "classifier.safetensors", num_heads=2)
    np.testing.assert_allclose(again(x), classifier(x), atol=1e-6)


def test_the_reference_has_its_names_and_reads_our_file(tmp_path: Path) -> None:
    """`fc_norm` and no final norm, all under `model`."""
    torch = pytest.importorskip("torch")
    classifier, state = made(), classifier_state(classes=3)
    tensors = to_reference(classifier)
    assert {name: x.shape for name, x in tensors.items()} == {name: x.shape for name, x in state.items()}
    save_reference(classifier, tmp_path / "classifier.pth")
    content = torch.load(tmp_path / "classifier.pth", weights_only=True)
    assert content.keys() == {"model"} and content["model"].keys() == state.keys()
    with pytest.raises(ValueError, match="^teacher=True, but ViTClassifier has no teacher$"):
        to_reference(classifier, teacher=True)


def test_a_folder_for_hugging_face_carries_names(tmp_path: Path) -> None:
    """It reads as it was, and says to `from_pretrained` what it is."""
    classifier = made("cls", layer_norm_eps=1e-5)
    classifier.save(tmp_path / "classifier.keras")
    folder = convert(tmp_path / "classifier.keras", tmp_path / "vit", layout="huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["ViTForImageClassification"]
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "cat"} and config["label2id"]["cat"] == 2
    again = load_classifier(folder)
    assert alike(classifier, again) and again.class_names == ("ant", "bee", "cat")
    assert (again.encoder.layer_norm_eps, again.preprocessing.mean) == (1e-5, HALF.mean)
    nameless = ViTClassifier(classifier.encoder, 3, "cls")
    nameless.save(tmp_path / "nameless.keras")
    assert (
        load_classifier(convert(tmp_path / "nameless.keras", tmp_path / "n", layout="huggingface")).class_names is None
    )


def folder_of(tmp_path: Path, state: Arrays, config: dict[str, Any]) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS, **config}))
    save_file(state, folder / "model.safetensors")
    return folder


def test_a_folder_of_timm_tells_names_and_pooling(tmp_path: Path) -> None:
    config = {
        "global_pool": "avg",
        "label_names": list("abcde"),
        "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3},
    }
    classifier = load_classifier(folder_of(tmp_path, classifier_state(), config))
    assert classifier.class_names == tuple("abcde") and classifier.preprocessing.mean == (0.1, 0.1, 0.1)


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an encoder": (timm_state(), {}, "holds no classifier, head.weight is missing.*ViTClassifier.from_encoder"),
    "an encoder of Hugging Face": (vit(timm_state()), {}, "holds no classifier, classifier.weight is missing"),
    "another pooling": (classifier_state(), {"pooling": "cls"}, "pooling='cls', but the names in .* say 'mean'"),
    "no pooling": (classifier_state(), {"pooling": "max"}, "pooling='max' is not known"),
    "no bias": ({k: x for k, x in classifier_state().items() if k != "head.bias"}, {}, "missing: head.bias"),
    "a wide head": (
        huggingface_state(classifier_state("cls", scale=True), DINOV2, "dinov2.")
        | {"classifier.weight": np.ones((5, 64), "float32")},
        {},
        "misshapen: classifier.weight is 5×64, not 5×32",
    ),
    "a head of one axis": (classifier_state() | {"head.weight": np.ones(5)}, {}, "head.weight is .* not of 2 axes"),
    "two norms": (classifier_state("cls") | {"fc_norm.weight": np.ones(32)}, {}, "not known: norm.weight, norm.bias"),
    "a layer before the head": (classifier_state() | {"pre_logits.fc.bias": np.ones(3)}, {}, "not known: pre_logits"),
    "two class tokens": (classifier_state() | {"dist_token": np.ones(3)}, {}, "dist_token is a second class token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_classifier_is_refused_in_a_line(name: str) -> None:
    source, settings, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^.*{message}.*$"):
        load_classifier(source, num_heads=HEADS, **settings)


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        (vit(classifier_state("cls")), {"id2label": {"0": "a"}}, "names 1 classes, and its linear layer has 5"),
        (vit(classifier_state("cls")), {"id2label": {"1": "a"}}, "id2label does not name the classes from 0 up"),
        (classifier_state("cls"), {"global_pool": "avg"}, "it pools by 'mean' and has a final norm of the tokens"),
        (classifier_state("mean"), {"global_pool": "map"}, "it pools by 'map' and has a norm after the pooling"),
    ],
)
def test_folders_that_contradict_themselves(tmp_path: Path, state: Arrays, config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^.*{message}.*$"):
        load_classifier(folder_of(tmp_path, state, config))


def test_an_input_of_another_size_resizes_the_positions(tmp_path: Path) -> None:
    """Of a file as of ours."""
    state = classifier_state()
    small = load_classifier(state, num_heads=HEADS)
    small.save(tmp_path / "classifier.keras")
    for source in (state, tmp_path / "classifier.keras"):
        heads = {"num_heads": HEADS} if source is state else {}
        larger = load_classifier(source, image_size=(48, 32), **heads)
        np.testing.assert_array_equal(larger.encoder.positions, small.resized((48, 32)).encoder.positions)
        assert larger(images(48, 32)).shape == (2, 5)
    with pytest.raises(ValueError, match="^num_heads is given, but .* knows its own: leave it out$"):
        load_classifier(tmp_path / "classifier.keras", num_heads=2)


def test_who_wants_an_encoder_gets_one_or_a_line(tmp_path: Path) -> None:
    """A classifier's weights without their head; its .keras file is refused, and so is the reverse."""
    state = classifier_state("cls")
    np.testing.assert_array_equal(load_encoder(state, num_heads=HEADS).norm.gamma, state["norm.weight"])
    made().save(tmp_path / "classifier.keras")
    with pytest.raises(ValueError, match=r"^source=.*classifier.keras holds a lut_tf>ViTClassifier, not a ViTEncoder"):
        export_encoder(tmp_path / "classifier.keras", "onnx")
    with pytest.raises(ValueError, match=r"^.*classifier.keras is not a file of weights"):
        load_encoder(tmp_path / "classifier.keras")
    tiny_encoder().save(tmp_path / "encoder.keras")
    with pytest.raises(ValueError, match=r"^.*encoder.keras holds a ViTEncoder, not a classifier: .*from_encoder$"):
        load_classifier(tmp_path / "encoder.keras")
    (tmp_path / "damaged.keras").write_bytes((tmp_path / "classifier.keras").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"^.*damaged.keras is damaged or no .keras file of lut_tf \(.*\)$"):
        load_classifier(tmp_path / "damaged.keras")
    for name in ("none.keras", "none.pth", "none"):
        with pytest.raises(FileNotFoundError, match=f"^.*{name} does not exist: give the path of a file"):
            load_classifier(tmp_path / name)


def test_a_run_does_not_start_from_a_classifiers_file(tmp_path: Path) -> None:
    path = str(tmp_path / "classifier.keras")
    made().save(path)
    encoder = EncoderConfig(preset=None, image_size=32, patch_size=8, width=32, depth=2, heads=2)
    config = Config(encoder=encoder, init_from=path, run_dir=str(tmp_path / "run"))
    found = find_initial(config)
    assert found is not None
    with pytest.raises(ValueError, match=r"^init_from=.* cannot be read \(it holds a ViTClassifier\): give another"):
        load_initial(config, found)


@pytest.mark.medium
@pytest.mark.parametrize("target", ["out.keras", "out.safetensors", "out.pth"])
@pytest.mark.parametrize("source", ["in.keras", "in.safetensors"])
def test_convert_carries_a_classifier(tmp_path: Path, source: str, target: str) -> None:
    """Exact; names, epsilon and preprocessing from .keras to .keras."""
    if target == "out.pth":
        pytest.importorskip("torch")
    classifier, of_keras = made("cls"), source == "in.keras"
    classifier.save(tmp_path / source) if of_keras else save_classifier(classifier, tmp_path / source, "huggingface")
    path = convert(tmp_path / source, tmp_path / target, num_heads=None if of_keras else 2, classifier=not of_keras)
    again = load_classifier(path, num_heads=None if target == "out.keras" else 2)
    assert alike(classifier, again)
    if source.endswith("keras") and target.endswith("keras"):
        assert again.get_config() == classifier.get_config()


@pytest.mark.medium
def test_convert_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--classifier` it is the encoder, and a line says that the head is left out."""
    save_classifier(made("cls"), tmp_path / "in.safetensors")
    command = ["convert", str(tmp_path / "in.safetensors"), str(tmp_path / "out.keras"), "--num_heads", "2"]
    assert main(command) == 0
    assert "the classifier's head is left out: give --classifier to keep it" in capsys.readouterr().out
    assert isinstance(load_keras(tmp_path / "out.keras"), ViTEncoder)
    assert main([*command, "--classifier", "--preprocessing", "imagenet", "--image_size", "48"]) == 0
    assert "left out" not in capsys.readouterr().out
    again = load_keras(tmp_path / "out.keras")
    assert (type(again), again.image_size, again.preprocessing) == (ViTClassifier, (48, 48), IMAGENET)


@pytest.mark.medium
def test_convert_refuses_what_cannot_be(tmp_path: Path) -> None:
    """One line each, and nothing is written."""
    made("mean").save(tmp_path / "mean.keras")
    made("cls", layer_scale=True).save(tmp_path / "scale.keras")
    tiny_mae().save(tmp_path / "mae.keras")
    save_file(timm_state(), tmp_path / "encoder.safetensors")
    mistakes = [
        ("mean.keras", {"layout": "huggingface"}, "^layout=\"huggingface\" classifies by the class token.*'mean'.*$"),
        ("scale.keras", {"layout": "huggingface"}, '^layout="huggingface" with LayerScale joins the class token.*$'),
        ("mae.keras", {"classifier": True}, "^classifier is asked for, but .* holds a MAE: leave it out$"),
        ("encoder.safetensors", {"classifier": True, "num_heads": 2}, "holds no classifier"),
    ]
    for source, settings, message in mistakes:
        for target in ("out.safetensors", "out") if "layout" in settings else ("out.safetensors",):
            with pytest.raises(ValueError, match=message):
                convert(tmp_path / source, tmp_path / target, **settings)
    assert not list(tmp_path.glob("out*"))


def test_a_file_that_says_too_many_classes_is_damaged(tmp_path: Path) -> None:
    """Before their memory is taken."""
    path, changed = tmp_path / "classifier.keras", tmp_path / "changed.keras"
    made().save(path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(changed, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"] |= {"classes": 2**31 - 1, "class_names": None}
                content = json.dumps(config).encode()
            copy.writestr(name, content)
    with pytest.raises(ValueError, match="its sizes tell of a network of .* numbers"):
        load_classifier(changed)
