"""Keras' files of our networks, those from before the layers of a block were renamed too."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from networks import tiny_encoder, tiny_lut

from lut_tf import LUT, ViTEncoder
from lut_tf.interop import convert, load_keras, load_keras_weights

Golden = Callable[[str], dict[str, np.ndarray]]
BEFORE = Path(__file__).parents[1] / "golden" / "encoder_before_renaming.keras"


def method() -> LUT:
    return tiny_lut(tiny_encoder(depth=2))


def same(one: LUT, other: LUT) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def to_first_names(path: Path) -> int:
    """Give every block in an HDF5 file the layers that it had at first, and return how many blocks there are."""
    with h5py.File(path, "r+") as file:
        blocks: list[str] = []
        file.visit(lambda name: blocks.append(name.removesuffix("/mlp")) if name.endswith("/mlp") else None)
        for block in blocks:
            file.move(f"{block}/mlp/fc1", f"{block}/expand")
            file.move(f"{block}/mlp/fc2", f"{block}/contract")
            del file[f"{block}/mlp"]
    return len(blocks)


def test_an_encoder_of_the_first_names(golden: Golden) -> None:
    """1e-5: the tokens that the code computed that wrote it; the file stays as it is."""
    content, expected = BEFORE.read_bytes(), golden("encoder_before_renaming")
    np.testing.assert_allclose(load_keras(BEFORE)(expected["images"]), expected["tokens"], atol=1e-5)
    assert BEFORE.read_bytes() == content


def test_weights_of_the_first_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(BEFORE) as archive:
        weights = Path(archive.extract("model.weights.h5", tmp_path))
    wanted = load_keras(BEFORE)
    found = ViTEncoder.from_config(wanted.get_config())
    load_keras_weights(found, weights)
    for one, other in zip(found.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.medium
def test_a_whole_method_of_today_and_of_the_first_names(tmp_path: Path) -> None:
    """Encoder, decoder and teacher; `.keras` and `.weights.h5`; also where the file is read-only."""
    model, today, before = method(), tmp_path / "today.keras", tmp_path / "before.keras"
    model.save(today)
    assert same(load_keras(today), model)
    with zipfile.ZipFile(today) as source:
        weights = Path(source.extract("model.weights.h5", tmp_path))
        other = method()
        load_keras_weights(other, weights)
        assert same(other, model)
        assert to_first_names(weights) == 5
        with zipfile.ZipFile(before, "w") as target:
            target.writestr("config.json", source.read("config.json"))
            target.writestr("metadata.json", source.read("metadata.json"))
            target.write(weights, "model.weights.h5")
    for path in (before, weights):
        path.chmod(0o400)
    assert same(load_keras(before), model)
    other = method()
    load_keras_weights(other, weights)
    assert same(other, model)


def test_convert_reads_the_first_names(tmp_path: Path) -> None:
    written = convert(BEFORE, tmp_path / "today.keras")
    one, other = load_keras(written), load_keras(BEFORE)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """One line that gives the reason."""
    encoder = tiny_encoder()
    (tmp_path / "text.keras").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    shutil.copy(tmp_path / "text.keras", tmp_path / "text.weights.h5")
    for name in ("text.keras", "empty.keras"):
        with pytest.raises(ValueError, match="^.+$"):
            load_keras(tmp_path / name)
    with pytest.raises(ValueError, match="^.+$"):
        load_keras_weights(encoder, tmp_path / "text.weights.h5")
    with pytest.raises(FileNotFoundError, match="none.keras does not exist"):
        load_keras(tmp_path / "none.keras")
    with pytest.raises(FileNotFoundError, match="none.weights.h5 does not exist"):
        load_keras_weights(encoder, tmp_path / "none.weights.h5")
