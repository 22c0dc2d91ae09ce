"""Guards decoding against 2,000 damaged files, 600 of them in the normal run: no crash, no hang, no wrong shape, and
every one is counted or read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lut_tf.data.reading import formats
from lut_tf.data.reading.sources import ImageFolder
from lut_tf.data.views.crops import evaluation_view

KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "jp2": "JPEG2000",
         "ppm": "PPM", "avif": "AVIF"}  # fmt: skip
SIDE = 16


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Flip, cut, double, blank or shuffle bytes; headers, where sizes and tables are, more often than the rest."""
    data = np.frombuffer(content, np.uint8).copy()
    reach = len(data) if random.random() < 0.5 else min(len(data), 64)
    for _ in range(random.integers(1, 6)):
        data[random.integers(0, reach)] = random.choice([0, 1, 127, 128, 255, random.integers(0, 256)])
    match random.integers(0, 5):
        case 0:
            data = data[: random.integers(0, len(data))]
        case 1:
            at = random.integers(0, len(data))
            data = np.concatenate([data[:at], data[at // 2 :]])
        case 2:
            at = random.integers(0, len(data))
            data[at : at + 40] = 0
        case _:
            pass
    return data.tobytes()


@pytest.mark.medium
@pytest.mark.parametrize(("seed", "each"), [(0, 120), pytest.param(1, 280, marks=pytest.mark.slow)])
def test_damaged_bytes_never_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, each: int) -> None:
    monkeypatch.setattr(formats, "MAX_PIXELS", 10_000)  # so that a flipped size is quickly decoded, or too large
    random = np.random.default_rng(seed)
    pixels = Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
    for ending, kind in KINDS.items():
        pixels.save(tmp_path / f"good.{ending}", kind)
        content = (tmp_path / f"good.{ending}").read_bytes()
        for number in range(each):
            (tmp_path / f"{number:03}.{ending}").write_bytes(damaged(content, random))
    source = ImageFolder(tmp_path, damaged_share=1.0)
    count = len(source)
    assert count == len(KINDS) * (each + 1)
    views = tf.data.Dataset.range(count).map(lambda i: evaluation_view(source.image(i), 8), num_parallel_calls=2)
    assert sum(view.shape == (8, 8, 3) and view.dtype == np.uint8 for view in views.as_numpy_iterator()) == count
    assert 50 < len(source.damage.faults) < count - len(KINDS)
    assert set(source.damage.counts) <= {"empty", "not an image", "too large", "damaged"}


def test_what_cannot_be_opened_is_counted(tmp_path: Path) -> None:
    """A folder in a file's place fails to open for root too, as missing permissions do for others."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    source = ImageFolder(tmp_path, damaged_share=0.5)
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").mkdir()
    assert len(list(tf.data.Dataset.range(2).map(source.image))) == 2
    assert source.damage.counts == {"unreadable": 1}
