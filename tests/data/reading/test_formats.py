"""Guards what files are read as: by content, of the formats of one table, of any depth, turned as EXIF says."""

from __future__ import annotations

import io
import os
import resource
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from data_helpers import encoded, picture, png, read, turned
from PIL import Image, ImageOps

from lut_tf.data import ArraySource
from lut_tf.data.reading.decode import decode_with_tensorflow
from lut_tf.data.reading.folder import list_folder
from lut_tf.data.reading.formats import FORMATS, MAX_BYTES
from lut_tf.data.reading.pillow import decode_with_pillow
from lut_tf.data.reading.sources import ImageFolder

LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "PPM": {},
    "JPEG2000": {"irreversible": False}, "JPEG": {"quality": 95}, "AVIF": {"quality": 95}, "GIF": {},
}  # fmt: skip


def decoded(folder: Path, name: str, content: bytes, **options: Any) -> np.ndarray:
    (folder / name).write_bytes(content)
    (image,) = read(ImageFolder(folder, damaged_share=0.0, **options), 0)
    return image


@pytest.mark.medium
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read_by_every_ending(kind: str, tmp_path: Path) -> None:
    for ending in FORMATS[kind]:
        (tmp_path / f"a{ending.upper()}").write_bytes(encoded(picture(), kind, **LOSSLESS[kind]))
    source = ImageFolder(tmp_path)
    images = read(source, *range(len(source)))
    assert len(images) == len(FORMATS[kind]) and not source.damage.counts
    for image in images:
        assert np.abs(image.astype(int) - np.asarray(picture())).mean() < (12 if kind == "GIF" else 3)


def test_a_program_in_postscript_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand it to the first `gs` on the path; this one says so."""
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    (images / "b.png").write_bytes(png(7))
    source = ImageFolder(images, damaged_share=0.5)
    assert [image.max() for image in read(source, 0, 1)] == [7, 7]
    assert source.damage.counts == {"not an image": 1} and not (tmp_path / "started").exists()


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "JPEG"))
    (tmp_path / "b.png").write_bytes(png(7))
    os.truncate(tmp_path / "a.jpg", MAX_BYTES + 1)  # takes no room on the disk
    source = ImageFolder(tmp_path, damaged_share=0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(source, 0)[0].max() == 7 and source.damage.counts == {"too large": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_BYTES / 1024 / 2


@pytest.mark.parametrize("classes", [("",), ("a/", "b/")], ids=["flat", "classes"])
def test_what_is_left_out_is_counted_by_ending(classes: tuple[str, ...], tmp_path: Path) -> None:
    for folder in classes:
        for name in ("1.png", "1.HEIC", "2.heic", "notes", ".hidden.heic", "sub/3.heic"):
            if name.startswith("sub/") and not folder:
                continue  # a flat folder has no folders
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(png(1))
    (tmp_path / classes[0] / "gone.jpg").symlink_to(tmp_path / "nowhere")
    expected = {".heic": 2, "without an ending": 1, ".jpg": 1}
    if len(classes) == 2:
        expected = {".heic": 6, "without an ending": 2, ".jpg": 1}
    assert list_folder(tmp_path).left_out == list_folder(tmp_path).left_out == expected
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    with pytest.raises(ValueError, match=r"holds no images \(but \d \.heic, .*\): give a folder of files that end in"):
        list_folder(tmp_path)


@pytest.mark.medium
def test_images_are_turned_as_exif_says(tmp_path: Path) -> None:
    expected = {}
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation in (1, 2, 6, 8):
            content = encoded(picture(), kind, exif=turned(orientation), **LOSSLESS[kind])
            path = tmp_path / f"{kind} {orientation}{FORMATS[kind][0]}"
            path.write_bytes(content)
            with Image.open(io.BytesIO(content)) as image:
                expected[path.name] = np.asarray(ImageOps.exif_transpose(image)), np.asarray(image)
    for number, apply_exif in enumerate((True, False)):
        source = ImageFolder(tmp_path, apply_exif=apply_exif)
        for path, image in zip(source.files, read(source, *range(len(source))), strict=True):
            np.testing.assert_array_equal(image, expected[Path(path).name][number], err_msg=path)


RAMP = np.linspace(0, 1, 24 * 32).reshape(24, 32)


def values(bits: int, kind: Any = np.uint16, top: float = 1.0) -> np.ndarray:
    return np.round(RAMP * top * (2**bits - 1)).astype(kind)


def deep_png(pixels: np.ndarray, significant: int | None = None) -> bytes:
    """A PNG of 16 bits, gray (h, w) or colour (h, w, 3), which says how many of them are significant."""
    content = tf.io.encode_png(pixels if pixels.ndim == 3 else pixels[..., None]).numpy()
    if significant is None:
        return content
    body = b"sBIT" + bytes([significant] * (pixels.shape[2] if pixels.ndim == 3 else 1))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return content[:33] + chunk + content[33:]  # after the header


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    return encoded(Image.fromarray(pixels), "TIFF", **options)


# The content of a file of a ramp from black to white, and how bright its end is without and with 12 bits given.
DEPTHS: dict[str, tuple[Callable[[], bytes], int, int]] = {
    "8 bits.png": (lambda: encoded(Image.fromarray(values(8, np.uint8)), "PNG"), 255, 255),
    "12 bits.png": (lambda: deep_png(values(12)), 16, 255),
    "12 bits, dark.png": (lambda: deep_png(values(12, top=0.2)), 3, 51),
    "12 bits of colour.png": (lambda: deep_png(np.stack([values(12)] * 3, -1)), 16, 255),
    "12 bits, significant.png": (lambda: deep_png(values(12), significant=12), 16, 255),
    "12 bits.tif": (lambda: tiff(values(12)), 16, 255),
    "12 bits, highest value.tif": (lambda: tiff(values(12, top=0.2), tiffinfo={281: 819}), 3, 51),
    "32 bits.tif": (lambda: tiff(values(12, np.int32)), 16, 255),
    "12 bits.pgm": (lambda: b"P5 32 24 4095\n" + values(12, ">u2").tobytes(), 255, 255),
    "12 bits, dark.pgm": (lambda: b"P5 32 24 4095\n" + values(12, ">u2", top=0.2).tobytes(), 51, 51),
    "16 bits.jp2": (lambda: encoded(Image.fromarray(values(16)), "JPEG2000"), 255, 255),
}
WITHOUT = {
    "16 bits.png": (lambda: deep_png(values(16)), 255),
    "16 bits.tif": (lambda: tiff(values(16)), 255),
    "12 bits, spread over 16.png": (lambda: deep_png(values(16), significant=12), 255),
    "fractions.tif": (lambda: tiff(RAMP.astype(np.float32)), 255),
}
WITH = {"with a point.tif": (lambda: tiff(values(12, np.float32)), 255)}


@pytest.mark.medium
@pytest.mark.parametrize("bits", [None, 12])
def test_deep_values_are_scaled_by_their_format_or_the_bits_given(bits: int | None, tmp_path: Path) -> None:
    table = {name: (write, ends[bits is not None]) for name, (write, *ends) in DEPTHS.items()}
    table |= WITHOUT if bits is None else WITH
    for name, (write, _) in table.items():
        (tmp_path / name).write_bytes(write())
    source = ImageFolder(tmp_path, damaged_share=0.0, bits=bits)
    for path, image in zip(source.files, read(source, *range(len(table))), strict=True):
        _, end = table[Path(path).name]
        assert image.shape == (24, 32, 3), path
        assert np.abs(image.astype(int) - (RAMP * end)[..., None]).max() <= 1.5, path


@pytest.mark.medium
@pytest.mark.parametrize(("bits", "expected"), [(None, (31, 66)), (12, (255, 255)), (14, (125, 255)), (16, (31, 66))])
def test_a_value_is_the_same_byte_in_every_image(bits: int | None, expected: tuple[int, int], tmp_path: Path) -> None:
    """Also where brighter ones stand beside it; what is above the bits given is white."""
    for number, beside in enumerate((0, 9000, 17000)):
        (tmp_path / f"{number}.png").write_bytes(deep_png(np.array([[8000, beside]], np.uint16)))
    images = read(ImageFolder(tmp_path, damaged_share=0.0, bits=bits), 0, 1, 2)
    assert [image[0, 0, 0] for image in images] == [expected[0]] * 3 and images[2][0, 1, 0] == expected[1]


TURNS = {"<a tiff:Orientation=\"1\"/>": False, "<tiff:Orientation>1</tiff:Orientation>": False,
         "<a tiff:Orientation=\"6\"/>": True, "<tiff:Orientation>8</tiff:Orientation>": True}  # fmt: skip


@pytest.mark.parametrize("told", TURNS)
def test_only_what_is_turned_is_left_to_pillow(told: str) -> None:
    content = encoded(picture(), "JPEG", xmp=told.encode())
    with nullcontext() if not TURNS[told] else pytest.raises(tf.errors.InvalidArgumentError):
        assert decode_with_tensorflow(tf.constant(content)).shape == (40, 60, 3)
    assert decode_with_pillow(content).shape == ((60, 40, 3) if TURNS[told] else (40, 60, 3))


@pytest.mark.medium
def test_a_deep_png_is_turned_too(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(values(12)), "PNG", exif=turned(6))
    assert decoded(tmp_path, "a.png", content).shape == (32, 24, 3)
    assert decoded(tmp_path, "a.png", content, apply_exif=False).shape == (24, 32, 3)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3)])
def test_gray_arrays_have_three_equal_channels(shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    expected = np.broadcast_to(pixels if pixels.ndim == 4 else pixels[..., None], (2, 4, 5, 3))
    source = ArraySource(pixels)
    np.testing.assert_array_equal(read(source, 0, 1), expected)
    np.testing.assert_array_equal(source.image(tf.range(2)), expected)
