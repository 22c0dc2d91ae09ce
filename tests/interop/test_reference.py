"""Checkpoints of the reference trainers: in, out, and what is refused."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_mae

from lut_tf import MAE, ViTEncoder
from lut_tf.interop import MissingExtraError, load_encoder, load_reference, save_reference, to_reference
from lut_tf.interop.files import read_weights, write_weights

Golden = Callable[[str], dict[str, np.ndarray]]
Arrays = dict[str, np.ndarray]
CHECKPOINT = Path(__file__).parents[1] / "golden" / "lut_tiny_checkpoint.pth"
HEADS: dict[str, int] = {"num_heads": 3, "decoder_num_heads": 4}


def group(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


@pytest.fixture
def student(golden: Golden) -> Arrays:
    return group(golden("lut_tiny"), "init/student/")


@pytest.fixture
def teacher(golden: Golden) -> Arrays:
    return group(golden("lut_tiny"), "init/teacher/")


def same(found: Arrays, expected: Arrays) -> bool:
    equal = [name for name in expected if name in found and np.array_equal(found[name], expected[name])]
    return found.keys() == expected.keys() and len(equal) == len(expected)


@pytest.mark.medium
@pytest.mark.parametrize("file", ["lut_tiny", "lut_tiny_variant"])
def test_round_trip_is_exact(golden: Golden, file: str) -> None:
    """Bitwise, names and shapes included: guards every form of the mapping in both directions."""
    parts = [group(golden(file), f"init/{side}/") for side in ("student", "teacher")]
    model = load_reference(
        parts[0], teacher=parts[1], num_heads=2 if file.endswith("variant") else 3, decoder_num_heads=1
    )
    assert same(to_reference(model), parts[0])
    assert same(to_reference(model, teacher=True), parts[1])


@pytest.mark.medium
def test_checkpoint_file(golden: Golden) -> None:
    """1e-5: the tokens of the reference's own checkpoint, prefixes, Namespace and all."""
    torch = pytest.importorskip("torch")
    features = golden("lut_tiny_checkpoint_features")
    model = load_reference(CHECKPOINT, **HEADS)
    for encoder in (model.encoder, load_encoder(CHECKPOINT, num_heads=3)):
        np.testing.assert_allclose(encoder(features["image"]), features["tokens"], atol=1e-5)
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(CHECKPOINT, weights_only=True)
    for teacher, theirs in ((False, content["model"]), (True, group(content["model_ema"], "ema."))):
        for name, value in to_reference(model, teacher=teacher).items():
            if not name.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.medium
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_round_trip_is_exact(tmp_path: Path, student: Arrays, teacher: Arrays, suffix: str) -> None:
    if suffix == ".pth":
        pytest.importorskip("torch")
    path = tmp_path / f"model{suffix}"
    save_reference(load_reference(student, teacher=teacher, **HEADS), path)
    again = load_reference(path, **HEADS)
    assert same(to_reference(again), student)
    assert same(to_reference(again, teacher=True), teacher)
    assert os.listdir(tmp_path) == [path.name]  # no temporary file stays behind


def test_written_file_is_the_trainers(tmp_path: Path, student: Arrays) -> None:
    """Groups and names of the published trainer's file, the teacher's decoder and predictor included."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    save_reference(load_reference(student, **HEADS), path)
    content = torch.load(path, weights_only=True)
    with torch.serialization.safe_globals([argparse.Namespace]):
        theirs = torch.load(CHECKPOINT, weights_only=True)
    for key in ("model", "model_ema"):
        assert {k: v.shape for k, v in content[key].items()} == {k: v.shape for k, v in theirs[key].items()}
        assert {k: v.dtype for k, v in content[key].items()} == {k: v.dtype for k, v in theirs[key].items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "base_encoder.", "module.base_encoder.", "backbone.", "ema.", "_orig_mod."]
)
@pytest.mark.parametrize("key", [None, "model", "state_dict", "student"])
def test_what_trainers_put_around_names(student: Arrays, prefix: str, key: str | None) -> None:
    """It is stripped, and what stands beside the weights is left out."""
    named = {prefix + name: array for name, array in student.items()}
    weights = read_weights(named if key is None else {key: named, "epoch": 3})
    assert same(weights.student, student)
    assert weights.teacher is None


def test_teacher_beside_the_student(student: Arrays, teacher: Arrays) -> None:
    """In one mapping, as MoCo v3 and our own .safetensors have it; and in groups, as DINO's files."""
    for prefix in ("ema.", "module.momentum_encoder."):
        model = load_reference({**student, **{prefix + k: v for k, v in teacher.items()}}, **HEADS)
        assert same(to_reference(model), student)
        assert same(to_reference(model, teacher=True), teacher)
    model = load_reference({"student": student, "teacher": {f"backbone.{k}": v for k, v in teacher.items()}}, **HEADS)
    assert same(to_reference(model, teacher=True), teacher)


def test_without_a_teacher_it_is_the_student(student: Arrays) -> None:
    model = load_reference(student, **HEADS)
    found = to_reference(model, teacher=True)
    assert all(np.array_equal(value, student[name]) for name, value in found.items())


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_precisions_become_float32(student: Arrays, dtype: str) -> None:
    import ml_dtypes  # noqa: F401  (gives NumPy bfloat16)

    cast = {name: array.astype(dtype) for name, array in student.items()}
    found = to_reference(load_reference(cast, **HEADS))
    for name, value in cast.items():
        np.testing.assert_array_equal(found[name], value.astype("float32"))


def test_encoder_only_says_what_stays_fresh(student: Arrays) -> None:
    """MAE's released files: encoder exact, the paper's decoder and heads around it."""
    others = ("decoder", "mask_token", "head", "predictor")
    encoder = {name: array for name, array in student.items() if not name.startswith(others)}
    with pytest.warns(UserWarning, match="decoder, projector, predictor: they stay freshly initialised"):
        model = load_reference(encoder, num_heads=3)
    assert (model.decoder.width, model.decoder.depth, model.decoder.heads) == (512, 8, 16)
    assert (model.projector.hidden, model.projector.depth, model.predictor.depth) == (4096, 2, 2)
    found = to_reference(model)
    assert all(np.array_equal(found[name], value) for name, value in encoder.items())


def test_mae_in_and_out(student: Arrays) -> None:
    """MAE's trainer has no heads: they stay fresh, the rest is exact; and our `MAE` writes that very file."""
    mae = {name: array for name, array in student.items() if not name.startswith(("head", "predictor"))}
    with pytest.warns(UserWarning, match="does not hold projector, predictor"):
        model = load_reference(mae, **HEADS)
    assert same(to_reference(MAE(model.encoder, model.decoder)), mae)
    with pytest.raises(ValueError, match="MAE has no teacher"):
        to_reference(MAE(model.encoder, model.decoder), teacher=True)


def test_dino_and_ibot_heads_are_left_out(student: Arrays) -> None:
    """The encoder comes out exactly as it went in; what stands around it in DINO's and iBOT's files is not read.

    Their files have no decoder: this one's saves the time to make the paper's.
    """
    backbone = {f"backbone.{name}": student[name] for name in student if not name.startswith(("head", "pred"))}
    around = {
        "head.mlp.0.weight": np.ones((4, 4)),
        "head.last_layer.weight_g": np.ones(4),
        "head.last_norm.weight": np.ones(4),
        "backbone.masked_embed": np.ones((1, 48)),
    }
    with pytest.warns(UserWarning, match="fresh"):
        model = load_reference({**backbone, **around}, **HEADS)
    for encoder in (model.encoder, load_encoder({**backbone, **around}, num_heads=3)):
        np.testing.assert_array_equal(encoder.norm.gamma, student["norm.weight"])
        np.testing.assert_array_equal(encoder.block_layers[-1].mlp.fc1.kernel, student["blocks.1.mlp.fc1.weight"].T)


def test_rectangles_are_told_by_their_positions() -> None:
    """A 2×8 grid has as many patches as 4×4; the sine-cosine table says which."""
    encoder = ViTEncoder((16, 64), 8, 16, depth=1, heads=2)
    mae = tiny_mae(encoder)
    with pytest.warns(UserWarning):
        model = load_reference(to_reference(mae), num_heads=2, decoder_num_heads=2)
    assert model.encoder.image_size == (16, 64)
    assert model.encoder.position_kind == "sincos"


def test_errors_name_every_tensor(student: Arrays) -> None:
    """One message for missing, unknown and misshapen together."""
    broken = {**student, "surprise": np.ones(2), "norm.weight": np.ones(7), "blocks.1.other": np.ones(48)}
    del broken["blocks.0.mlp.fc1.bias"], broken["decoder_norm.weight"], broken["head.0.weight"]
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        load_reference(broken, **HEADS)
    message = str(error.value)
    for part in (
        "missing: blocks.0.mlp.fc1.bias, decoder_norm.weight, head.0.weight",
        "surprise",
        "blocks.1.other",
    ):
        assert part in message
    assert "misshapen: norm.weight is 7, not 48" in message


def test_a_broken_teacher_is_refused(student: Arrays, teacher: Arrays) -> None:
    del teacher["head.1.running_mean"]
    with pytest.raises(ValueError, match="the teacher of the mapping cannot be loaded: missing: head.1.running_mean"):
        load_reference(student, teacher=teacher, **HEADS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "num_heads: shapes do not tell it"),
        ({"num_heads": 5}, "num_heads=5 does not divide the width 48"),
        ({"num_heads": 3, "decoder_num_heads": 5}, "decoder_num_heads=5 does not divide the width 32"),
        ({**HEADS, "mask_ration": 0.5}, "mask_ration: no such setting"),
        ({**HEADS, "head_norm": "layer"}, "head_norm='layer', but .* 'batch'"),
        ({**HEADS, "image_size": 64}, "does not fit its 16 patches"),
    ],
)
def test_settings_that_cannot_be_are_refused(student: Arrays, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_reference(student, **settings)


class Bomb:
    """Pickles to a call, as a malicious checkpoint would."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused(tmp_path: Path, form: str) -> None:
    """Nothing of it runs, and the message names what it wanted to call."""
    torch = pytest.importorskip("torch")
    path, marker = tmp_path / "bomb.pth", tmp_path / "ran"
    content = {"model": {}, "args": Bomb(marker)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"bomb\.pth is (refused: it carries posix\.mkdir|damaged or no PyTorch file)"):
        load_reference(path)
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_pth_is_refused(tmp_path: Path, share: float) -> None:
    pytest.importorskip("torch")
    content = CHECKPOINT.read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.pth is damaged"):
        load_reference(path, **HEADS)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_a_truncated_safetensors_is_refused(tmp_path: Path, student: Arrays, share: float) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    write_weights(whole, student)
    content = whole.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.safetensors is damaged"):
        load_reference(path, **HEADS)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.pth does not exist"):
        load_reference(tmp_path / "nowhere.pth")
    for name in ("folder.pth", "text.txt"):
        path = tmp_path / name
        path.mkdir() if name.startswith("folder") else path.write_text("no weights")
        with pytest.raises(ValueError, match="not a file of weights"):
            load_reference(path)
    with pytest.raises(ValueError, match="holds no tensors"):
        load_reference({"epoch": 3})


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "letters.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear user")
    with pytest.raises(ValueError, match=r"letters\.pth is damaged or no PyTorch file"):
        load_reference(path)


def test_without_torch_a_pth_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, student: Arrays) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="pip install torch"):
        load_reference(CHECKPOINT)
    model = load_reference(student, **HEADS)
    with pytest.raises(ValueError, match="pip install torch"):
        save_reference(model, tmp_path / "model.pth")
    save_reference(model, tmp_path / "model.safetensors")  # which needs none
    assert same(to_reference(load_reference(tmp_path / "model.safetensors", **HEADS)), student)


def test_targets_that_cannot_be_are_refused(tmp_path: Path, student: Arrays) -> None:
    model = load_reference(student, **HEADS)
    with pytest.raises(ValueError, match="end it in .pth or .safetensors"):
        save_reference(model, tmp_path / "model.h5")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        save_reference(model, tmp_path / "no" / "model.safetensors")
