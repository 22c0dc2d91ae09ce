"""Guards sources: the digits' split, folders with every odd kind of file, and damaged files that must not matter."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import encoded, picture, read
from PIL import Image

from lut_tf.config import ViewsConfig
from lut_tf.data.batches.evaluation import evaluation_dataset
from lut_tf.data.batches.pretraining import pretraining_dataset
from lut_tf.data.reading.sources import ArraySource, ImageFolder, digits

DIGITS_TRAIN_CRC = 1870667312


def bomb() -> bytes:
    """A PNG header that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_digits_parts_are_disjoint_stratified_and_fixed() -> None:
    parts = [digits("train"), digits("validation"), digits("heldout")]
    assert [len(part) for part in parts] == [1197, 300, 300]
    for part in parts[1:]:
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [30] * 10
    images = [part.image(tf.range(len(part))).numpy() for part in parts]
    assert images[0].shape[1:] == (8, 8, 3) and images[0].max() == 255 and images[0].min() == 0
    assert len(np.unique(np.concatenate(images).reshape(1797, -1), axis=0)) == 1797  # no digit in two parts
    labels = parts[0].labels
    assert labels is not None
    assert zlib.crc32(images[0].tobytes() + labels.tobytes()) == DIGITS_TRAIN_CRC


ODD_FILES = {
    "gray.jpg": (lambda p: encoded(p.convert("L"), "JPEG"), lambda p: p.convert("L")),
    "cmyk.jpg": (lambda p: encoded(p.convert("CMYK"), "JPEG", quality=95), lambda p: p),
    "progressive.jpeg": (lambda p: encoded(p, "JPEG", progressive=True, quality=95), lambda p: p),
    "plain.png": (lambda p: encoded(p, "PNG"), lambda p: p),
    "palette.png": (lambda p: encoded(p.quantize(64), "PNG"), lambda p: p.quantize(64)),
    "alpha.png": (lambda p: encoded(_transparent(p), "PNG"), lambda p: p),
    "bilevel.png": (lambda p: encoded(p.convert("1"), "PNG"), lambda p: p.convert("1")),
    "sixteen.png": (lambda p: encoded(_sixteen(p), "PNG"), lambda p: p.convert("L")),
    "plain.webp": (lambda p: encoded(p, "WEBP", lossless=True), lambda p: p),
    "lossy.webp": (lambda p: encoded(p, "WEBP", quality=95), lambda p: p),
    "alpha.webp": (lambda p: encoded(_transparent(p), "WEBP", lossless=True, exact=True), lambda p: p),
    "moving.webp": (lambda p: _moving(p, "WEBP", lossless=True), lambda p: p),
    "plain.bmp": (lambda p: encoded(p, "BMP"), lambda p: p),
    "palette.bmp": (lambda p: encoded(p.quantize(64), "BMP"), lambda p: p.quantize(64)),
    "moving.gif": (lambda p: _moving(p.quantize(64), "GIF"), lambda p: p.quantize(64)),
    "png called.jpg": (lambda p: encoded(p, "PNG"), lambda p: p),
}


def _transparent(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _sixteen(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def _moving(image: Image.Image, kind: str, **options: Any) -> bytes:
    return encoded(
        image, kind, save_all=True, append_images=[image.rotate(180), image.rotate(90)], duration=50, **options
    )


@pytest.mark.medium
def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    for name, (write, _) in ODD_FILES.items():
        (tmp_path / name).write_bytes(write(picture()))
    source = ImageFolder(tmp_path)
    for path, image in zip(source.files, read(source, *range(len(source))), strict=True):
        _, expect = ODD_FILES[Path(path).name]
        assert image.shape == (40, 60, 3) and image.dtype == np.uint8, path
        assert np.abs(image.astype(int) - np.asarray(expect(picture()).convert("RGB"))).mean() < 3, path
    assert len(source) == len(ODD_FILES) and not source.damage.counts


def test_an_image_of_one_pixel(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(1, 1), "PNG"))
    assert read(ImageFolder(tmp_path), 0)[0].shape == (1, 1, 3)


@pytest.fixture
def damaged_folder(tmp_path: Path) -> Path:
    """Class a: 7 readable and 6 damaged files among each other; class b: 3 readable."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    jpeg = encoded(picture(200, 200), "JPEG")
    damaged = {
        "01 truncated.jpg": jpeg[: len(jpeg) // 2],
        "03 empty.jpg": b"",
        "04 text.jpg": b"this is no picture\n" * 20,
        "05 bomb.png": bomb(),
        "07 truncated.png": encoded(picture(), "PNG")[:200],
        "12 header only.webp": encoded(picture(), "WEBP")[:40],
    }
    for name, content in damaged.items():
        (tmp_path / "a" / name).write_bytes(content)
    for number in (0, 2, 6, 8, 9, 10, 11):
        (tmp_path / "a" / f"{number:02}.png").write_bytes(encoded(picture(seed=number), "PNG"))
    for number in range(3):
        (tmp_path / "b" / f"{number:02}.png").write_bytes(encoded(picture(seed=20 + number), "PNG"))
    return tmp_path


def test_damaged_files_are_replaced_counted_and_logged(damaged_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = ImageFolder(damaged_folder, damaged_share=0.5)
    assert len(source) == 16
    with caplog.at_level(logging.WARNING):
        images = read(source, *range(16), 1)
    for damaged, instead in [(1, 2), (3, 6), (4, 6), (5, 6), (7, 8), (12, 0)]:
        np.testing.assert_array_equal(images[damaged], images[instead], err_msg=source.files[damaged])
    for index in (0, 2, 6, 8, 9, 10, 11):
        np.testing.assert_array_equal(images[index], np.asarray(picture(seed=index)))
    assert source.damage.counts == {"damaged": 3, "empty": 1, "not an image": 1, "too large": 1}
    assert len([r for r in caplog.records if "takes its place" in r.getMessage()]) == 6
    assert sum(source.damage.counts.values()) == 6  # once each


@pytest.mark.medium
def test_damage_leaves_all_other_examples_alone(damaged_folder: Path) -> None:
    source = ImageFolder(damaged_folder, damaged_share=0.6)
    dataset = pretraining_dataset(
        source, batch_size=8, image_size=16, views=ViewsConfig(), seed=0, steps=2, noise_length=4, view_count=1
    )

    def run() -> dict[int, np.ndarray]:
        run = list(dataset.as_numpy_iterator())
        assert [len(batch["index"]) for batch in run] == [8, 8]
        return {int(i): view for batch in run for i, view in zip(batch["index"], batch["view1"], strict=True)}

    before = run()
    Path(source.files[9]).write_bytes(b"")
    after = run()
    assert before.keys() == after.keys() == set(range(16))
    assert [i for i in before if not np.array_equal(before[i], after[i])] == [9]


def test_vanished_file_is_replaced(damaged_folder: Path) -> None:
    source = ImageFolder(damaged_folder, damaged_share=0.5)
    Path(source.files[13]).unlink()
    np.testing.assert_array_equal(read(source, 13)[0], np.asarray(picture(seed=21)))
    assert source.damage.counts == {"missing": 1}


def test_too_much_damage_stops_with_the_list(damaged_folder: Path) -> None:
    source = ImageFolder(damaged_folder, damaged_share=0.1)
    # How many are found before the stop depends on the threads, that two of 16 are too many does not.
    with pytest.raises(tf.errors.OpError, match=r"data\.path: [2-6] of 16 files give no image \(.*\): .*/a/0"):
        list(evaluation_dataset(source, range(16), 32, 4))


def test_no_readable_file_stops(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(tf.errors.OpError, match="no file is left"):
        read(ImageFolder(tmp_path, damaged_share=1.0), 0)[0]


def test_bound_is_on_pixels_not_on_sides(tmp_path: Path) -> None:
    (tmp_path / "long.png").write_bytes(encoded(Image.new("L", (20_000, 10)), "PNG"))
    assert read(ImageFolder(tmp_path), 0)[0].shape == (10, 20_000, 3)


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "a.png").write_bytes(encoded(picture(), "PNG"))
    source = ImageFolder(tmp_path)
    assert len(source) == 2 and source.labels is None and source.classes is None


def test_arrays_are_checked() -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        ArraySource(np.zeros((2, 4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels: 1 for 2 images"):
        ArraySource(np.zeros((2, 4, 4, 3), np.uint8), np.zeros(1, np.int32))
