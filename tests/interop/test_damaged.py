"""Files that are damaged, made to harm, or hold no weights: one line each, nothing runs, time and memory bounded."""

from __future__ import annotations

import argparse
import datetime
import io
import json
import pathlib
import resource
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from networks import tiny_encoder, tiny_lut
from published import HEADS, timm_state
from safetensors.numpy import save, save_file

from lut_tf.interop import convert, load_encoder, load_keras, load_keras_weights, load_reference, to_reference

Arrays = dict[str, np.ndarray]
Change = Callable[[Any], Any]


def refused(call: Callable[[], Any], message: str) -> None:
    """One line that says it."""
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert len(str(error.value).splitlines()) == 1


NO_WEIGHTS: dict[str, tuple[Change, str]] = {
    "whole numbers": (lambda x: x.astype("int32"), "is int32, not floats"),
    "bytes": (lambda x: x.astype("uint8"), "is uint8, not floats"),
    "complex numbers": (lambda x: x.astype("complex64"), "is complex64, not floats"),
    "yes and no": (lambda x: x > 0, "is bool, not floats"),
    "text": (lambda x: x.astype("str"), "is str.*, not floats"),
    "objects": (lambda x: x.astype("object"), "is object, not floats"),
    "float8": (lambda x: x.astype(ml_dtypes.float8_e4m3fn), "is float8_e4m3fn, not floats"),
    "NaN": (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x), "holds NaN or infinity"),
    "infinity": (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, -np.inf, x), "holds NaN or infinity"),
    "more than float32 holds": (lambda x: x.astype("float64") + 1e300, "holds NaN or infinity"),
}


@pytest.mark.medium
@pytest.mark.parametrize("name", ["pos_embed", "blocks.1.attn.qkv.weight"])
@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_is_no_weights_is_refused_by_name(name: str, kind: str) -> None:
    change, message = NO_WEIGHTS[kind]
    state = timm_state()
    state[name] = change(state[name])
    refused(lambda: load_encoder(state, num_heads=HEADS), f"{name} {message}")


@pytest.mark.medium
@pytest.mark.parametrize("name", ["decoder_norm.bias", "predictor.0.weight", "mask_token"])
def test_nor_in_a_whole_model(name: str) -> None:
    state = to_reference(tiny_lut())
    state[name] = np.full_like(state[name], np.nan)
    refused(lambda: load_reference(state, num_heads=2, decoder_num_heads=2), f"{name} holds NaN or infinity")


def test_of_several_all_are_named() -> None:
    state = timm_state()
    state["norm.bias"], state["norm.weight"] = state["norm.bias"].astype("int8"), state["norm.weight"] * np.nan
    refused(lambda: load_encoder(state, num_heads=HEADS), "norm.weight holds NaN or infinity, norm.bias is int8")


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pth", marks=pytest.mark.medium)])
def test_a_float8_in_a_file(tmp_path: Path, suffix: str) -> None:
    """Refused where it is wanted; read over where it stands beside the encoder."""
    path, state = tmp_path / f"float8{suffix}", timm_state()
    for name, wanted in (("norm.bias", True), ("head.bias", False)):
        changed = {**state, name: np.zeros(32, ml_dtypes.float8_e4m3fn)}
        if suffix == ".pth":
            torch = pytest.importorskip("torch")
            tensors = {key: torch.tensor(array.astype("float32")) for key, array in changed.items()}
            torch.save({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, path)
        else:
            path.write_bytes(safetensors_with_float8(changed, name))
        if wanted:
            refused(lambda: load_encoder(path, num_heads=HEADS), r"norm\.bias is (F8_E4M3|float8_e4m3fn), not floats")
        else:
            load_encoder(path, num_heads=HEADS)


def safetensors_with_float8(state: Arrays, name: str) -> bytes:
    content = save({**state, name: state[name].astype("uint8")})
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name]["dtype"] = "F8_E4M3"
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def test_tensors_without_numbers(tmp_path: Path) -> None:
    """Sparse, quantised, on no device, and of a billion rows that the file does not hold."""
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(array) for name, array in timm_state().items()}
    bias = state["norm.bias"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8)
    cases = {
        "norm.bias": [
            (bias.to_sparse(), "is sparse_coo"),
            (quantised, "is strided qint8"),
            (bias.to("meta"), "on meta"),
        ],
        "pos_embed": [
            (torch.zeros(1, 1, 32).expand(1, 10**9, 32), "pos_embed says that it is 1×1000000000×32, .* holds less"),
            (torch.zeros(1, 10**9, 0), "pos_embed is empty"),
        ],
    }
    for name, given in cases.items():
        for tensor, message in given:
            torch.save({**state, name: tensor}, tmp_path / "odd.pth")
            refused(lambda: load_encoder(tmp_path / "odd.pth", num_heads=HEADS), message)


GAPS = {
    "blocks.100000.norm1.weight": "its blocks have numbers up to 100000, and number 1 is missing",
    "decoder_blocks.999999999.norm1.weight": "its blocks have numbers up to 999999999, and number 1 is missing",
    "head.300000.weight": "its layers of head have numbers up to 100000, and number 2 is missing",
    "predictor.300000.weight": "its layers of predictor have numbers up to 100000, and number 2 is missing",
    "blocks.99999999999999999999.norm1.weight": "not known: blocks.99999999999999999999.norm1.weight",
}


@pytest.mark.medium
@pytest.mark.parametrize("name", GAPS)
def test_depth_is_what_is_there(name: str) -> None:
    state = {**to_reference(tiny_lut()), name: np.ones(16, "float32")}
    refused(lambda: load_reference(state, num_heads=2, decoder_num_heads=2), GAPS[name])


SIZES = {
    "patch_embed.proj.weight": (100_000, 3, 1, 1),
    "mask_token": (1, 1, 1_000_000),
    "head.0.weight": (400_000, 16),
}


@pytest.mark.medium
@pytest.mark.parametrize("name", SIZES)
def test_a_network_that_the_file_cannot_fill_is_not_made(name: str) -> None:
    state = {**to_reference(tiny_lut()), name: np.zeros(SIZES[name], "float32")}
    if name.startswith("head"):
        state["head.3.weight"] = np.zeros((400_000, 1), "float32")
        state["head.6.weight"] = np.zeros((16, 1), "float32")
    settings = {"num_heads": 1, "decoder_num_heads": 1}
    refused(lambda: load_reference(state, **settings), "sizes tell of a network of|does not fit its 17 positions")


class AttributeDict(dict):  # type: ignore[type-arg]
    """As Lightning keeps a model's settings; here only its name counts."""


AttributeDict.__module__ = "pytorch_lightning.utilities.parsing"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_what_trainers_keep_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, zipped: bool
) -> None:
    """It is read over, with nothing of it made."""
    torch = pytest.importorskip("torch")
    path, state = tmp_path / f"model{suffix}", timm_state()
    arguments = argparse.Namespace(lr=np.float64(0.1), folder=pathlib.PosixPath("/data"), parts=[np.float32(1)])
    content = {"args": arguments, "best": np.arange(3.0), "epoch": 3}
    if zipped:
        for name in ("pytorch_lightning", "pytorch_lightning.utilities", AttributeDict.__module__):
            monkeypatch.setitem(sys.modules, name, sys.modules[__name__])
        content |= {"hyper_parameters": AttributeDict(width=32), "time": datetime.timedelta(3)}
    key = "state_dict" if suffix == ".ckpt" else "model"
    content[key] = {f"model.{name}": torch.tensor(array) for name, array in state.items()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(load_encoder(path, num_heads=HEADS).norm.gamma, state["norm.weight"])


# --- .keras files -----------------------------------------------------------------------------------------------------


def rezipped(content: bytes, **changed: Change) -> bytes:
    """A .keras or .pth file with entries changed, by the end of their name, and checksums that fit."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            change = changed.get(name.rpartition("/")[2].partition(".")[0])
            target.writestr(name, source.read(name) if change is None else change(source.read(name)))
    return made.getvalue()


def configured(content: bytes, **values: Any) -> bytes:
    """A .keras file with other values in the network's configuration."""

    def change(text: bytes) -> bytes:
        config = json.loads(text)
        return json.dumps({**config, "config": {**config["config"], **values}}).encode()

    return rezipped(content, config=change)


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("keras") / "encoder.keras"
    tiny_encoder().save(path)
    return path.read_bytes()


def renamed_class(text: bytes) -> bytes:
    return text.replace(b"lut_tf>ViTEncoder", b"other>Thing").replace(b"lut_tf.models.encoder", b"os.path")


def large_dataset(text: bytes) -> bytes:
    file = io.BytesIO(text)
    with h5py.File(file, "r+") as weights:
        weights.create_dataset("large", shape=(10**9, 768), dtype="float32", chunks=(1, 768))
    return file.getvalue()


BAD_KERAS: dict[str, tuple[Change, str]] = {
    "nothing": (lambda whole: b"", "."),
    "cut off": (lambda whole: whole[: len(whole) // 2], "not a zip"),
    "a bit flipped": (lambda whole: flipped(whole, len(whole) // 2), "checksum of .* is wrong|CRC"),
    "no configuration": (lambda whole: rezipped(whole, config=lambda _: b""), "Expecting value"),
    "configuration of nothing": (lambda whole: rezipped(whole, config=lambda _: b"{}"), "describes no network"),
    "configuration cut off": (lambda whole: rezipped(whole, config=lambda text: text[:100]), "."),
    "deep configuration": (lambda whole: rezipped(whole, config=lambda _: b"[" * 200_000), "recursion"),
    "another class": (lambda whole: rezipped(whole, config=renamed_class), r"os.path.ViTEncoder, which is none"),
    "depth": (lambda whole: configured(whole, depth=10**6), "sizes tell of a network"),
    "depth of thousands": (lambda whole: configured(whole, depth=250), "depth=250, and it holds"),
    "width": (lambda whole: configured(whole, width=10**6), "sizes tell of a network"),
    "patches": (lambda whole: configured(whole, image_size=[10**6, 10**6]), "sizes tell of a network"),
    "registers": (lambda whole: configured(whole, register_tokens=10**9), "sizes tell of a network"),
    "size as text": (lambda whole: configured(whole, depth="two"), "depth='two' is no whole number"),
    "weights of a billion rows": (lambda whole: rezipped(whole, model=large_dataset), "as large as itself"),
    "no weights": (lambda whole: rezipped(whole, model=lambda _: b""), "."),
}


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 0x40
    return bytes(changed)


@pytest.mark.parametrize("damage", BAD_KERAS)
def test_keras_files_that_are_damaged(tmp_path: Path, keras_file: bytes, damage: str) -> None:
    change, message = BAD_KERAS[damage]
    (tmp_path / "bad.keras").write_bytes(change(keras_file))
    refused(lambda: load_keras(tmp_path / "bad.keras"), message)
    refused(lambda: convert(tmp_path / "bad.keras", tmp_path / "out.keras"), r"bad\.keras is damaged or no .keras file")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.keras"]


def test_keras_files_of_weights_that_are_not_finite(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.norm.beta.assign(np.full(16, np.nan, "float32"))
    encoder.save(tmp_path / "nan.keras")
    encoder.save_weights(tmp_path / "nan.weights.h5")
    refused(lambda: load_keras(tmp_path / "nan.keras"), "norm/beta holds NaN or infinity")
    refused(lambda: load_keras_weights(tiny_encoder(), tmp_path / "nan.weights.h5"), "norm/beta holds NaN or infinity")


# --- Many damaged files -----------------------------------------------------------------------------------------------

WATCHED = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}
seen: list[str] = []
sys.addaudithook(lambda event, _: seen.append(event) if event in WATCHED else None)


def mutated(content: bytes, suffix: str, random: np.random.Generator) -> bytes:
    """The file cut off, with bits flipped, or with bytes of what describes the weights changed, checksums and all."""
    kind = random.integers(4)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        return flipped(content, int(random.integers(len(content))))
    if suffix == ".safetensors":
        length = 8 + int.from_bytes(content[:8], "little")
        return edited(content[:length], random) + content[length:]
    entry = {".pth": "data", ".keras": "config" if kind == 2 else "model"}[suffix]
    return rezipped(content, **{entry: lambda text: edited(text, random)})


def edited(text: bytes, random: np.random.Generator) -> bytes:
    """Bytes changed to any, digits to nines, names to those of what runs, or a stretch left out."""
    changed, place = bytearray(text), int(random.integers(len(text)))
    kind = random.integers(4)
    if kind == 0:
        for spot in random.integers(len(text), size=random.integers(1, 6)):
            changed[spot] = random.integers(256)
    elif kind == 1:
        spots = [i for i, byte in enumerate(changed) if 48 <= byte < 58]
        for spot in random.choice(spots, size=min(4, len(spots)), replace=False) if spots else []:
            changed[spot] = 57
    elif kind == 2:
        return text.replace(b"collections\nOrderedDict", b"posix\nsystem").replace(b"lut_tf.models.encoder", b"os")
    else:
        del changed[place : place + int(random.integers(1, 60))]
    return bytes(changed)


def check_mutations(folder: Path, count: int) -> None:
    """Each ends in a network or in one line, within 10 s; all of them within 500 MB."""
    torch = pytest.importorskip("torch")
    state = timm_state()
    torch.save({"model": {k: torch.tensor(v) for k, v in state.items()}, "args": argparse.Namespace(lr=np.float64(1))},
               folder / "whole.pth")  # fmt: skip
    save_file(state, folder / "whole.safetensors")
    tiny_encoder().save(folder / "whole.keras")
    random, used, ends = np.random.default_rng(0), 0, {True: 0, False: 0}
    for number in range(count):
        suffix = (".pth", ".safetensors", ".keras")[number % 3]
        whole, path = folder / f"whole{suffix}", folder / f"mutated{suffix}"
        if number == 3:  # what is loaded once, and stays
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        path.write_bytes(mutated(whole.read_bytes(), suffix, random))
        seen.clear()
        start = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_keras(path) if suffix == ".keras" else load_encoder(path, num_heads=HEADS)
            ends[True] += 1
        except ValueError as error:
            ends[False] += 1
            assert len(str(error).splitlines()) <= 1, (number, str(error))
        assert time.monotonic() - start < 10, number
        assert not seen, (number, seen)
    assert ends[False] > count // 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 500_000  # kB


@pytest.mark.medium
def test_a_few_damaged_files(tmp_path: Path) -> None:
    check_mutations(tmp_path, 36)


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    check_mutations(tmp_path, 750)
