"""Guards fine-tuning's views: Pillow's operations, mixing, erasing, and batches that any start repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from lut_tf.data.reading.sources import ArraySource
from lut_tf.data.views.mixing import FinetuneViews, erase, finetuning_dataset, mix
from lut_tf.data.views.rand_augment import FILL, operations

LEVEL = 0.9
KNOWN = operations()
SMOOTH = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)).resize((40, 40))
)


def applied(name: str, sign: float, level: float = LEVEL) -> np.ndarray:
    images = tf.constant(SMOOTH, tf.float32)[tf.newaxis]
    result = KNOWN[name](images, tf.constant(level), tf.constant(sign))[0].numpy()
    return np.clip(np.round(result), 0, 255)


def enhanced(kind: Any) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, sign: kind(image).enhance(1 + LEVEL * 0.9 * sign)


def moved(matrix: Callable[[float], tuple[float, ...]]) -> Callable[[Image.Image, float], Image.Image]:
    fill = tuple(int(value) for value in FILL)
    return lambda image, sign: image.transform(
        image.size, Image.Transform.AFFINE, matrix(sign), Image.Resampling.BILINEAR, fillcolor=fill
    )


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "auto_contrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "invert": lambda image, sign: ImageOps.invert(image),
    "rotate": lambda image, sign: image.rotate(
        27 * sign, Image.Resampling.BILINEAR, fillcolor=tuple(int(value) for value in FILL)
    ),
    "posterize": lambda image, sign: ImageOps.posterize(image, 1),
    "solarize": lambda image, sign: ImageOps.solarize(image, 26),
    "solarize_add": lambda image, sign: image.point([min(255, i + 99) if i < 128 else i for i in range(256)] * 3),
    "colour": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
    "shear_x": moved(lambda sign: (1, 0.27 * sign, 0, 0, 1, 0)),
    "shear_y": moved(lambda sign: (1, 0, 0, 0.27 * sign, 1, 0)),
    "translate_x": moved(lambda sign: (1, 0, -0.405 * 40 * sign, 0, 1, 0)),
    "translate_y": moved(lambda sign: (1, 0, 0, 0, 1, -0.405 * 40 * sign)),
}


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", PILLOW)
def test_operations_do_what_pillow_does(name: str, sign: float) -> None:
    expected = np.asarray(PILLOW[name](Image.fromarray(SMOOTH), sign)).astype(float)
    error = np.abs(applied(name, sign) - expected)
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        assert error.mean() < 6 and np.median(error) <= 3  # pixel centres and borders differ by half a pixel
    else:
        assert error.mean() < 1.5 and error.max() <= 6


def test_all_fifteen_are_there() -> None:
    assert list(KNOWN) == list(PILLOW) and len(KNOWN) == 15


def test_mixing() -> None:
    images = tf.random.stateless_uniform([4, 16, 16, 3], [1, 2])
    targets = tf.eye(4)
    for views, kinds in [(FinetuneViews(cutmix=0), "mixup"), (FinetuneViews(mixup=0), "cutmix")]:
        shares = []
        for step in range(50):
            mixed, labels = mix(images, targets, tf.constant([0, step], tf.int64), views)
            share = float(labels[0, 3])
            np.testing.assert_allclose(tf.reduce_sum(labels, 1), 1.0, atol=1e-6)
            np.testing.assert_allclose(labels[0], [1 - share, 0, 0, share], atol=1e-6)
            if kinds == "mixup":
                np.testing.assert_allclose(mixed[0], (1 - share) * images[0] + share * images[3], atol=1e-5)
            else:
                from_other = np.all(np.isclose(mixed[0], images[3], atol=1e-6), axis=-1)
                assert np.isclose(from_other.mean(), share, atol=1e-6)
            shares.append(share)
        assert min(shares) < 0.1 and max(shares) > 0.7
    neither = mix(images, targets, tf.constant([0, 1], tf.int64), FinetuneViews(mixup=0, cutmix=0))
    np.testing.assert_array_equal(neither[0], images)


def test_erasing() -> None:
    image = tf.fill([32, 32, 3], 9.0)
    random = np.random.default_rng(0).random((300, 5)).astype(np.float32)
    shares = []
    for number, draws in enumerate(random):
        result = erase(image, tf.constant(draws), tf.constant([0, number], tf.int64), FinetuneViews()).numpy()
        erased = (result != 9.0).all(axis=-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased.sum() == len(rows) * len(columns)  # a box
        if erased.any():
            shares.append(erased.mean())
    assert 0.17 < len(shares) / 300 < 0.33 and min(shares) > 0.01 and max(shares) < 0.36


@pytest.mark.medium
def test_batches_are_repeatable_from_any_start() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 30, 3)).astype(np.uint8)
    source = ArraySource(pixels, np.arange(20, dtype=np.int32) % 4)

    def run(start: int, calls: int) -> list[Any]:
        dataset = finetuning_dataset(
            source, classes=4, batch_size=6, image_size=32, views=FinetuneViews(), seed=3, steps=5, start_step=start,
            parallel_calls=calls,
        )  # fmt: skip
        return list(dataset.as_numpy_iterator())

    whole, late = run(0, 1), run(2, 3)
    for (images, targets), (others, same) in zip(whole[2:], late, strict=True):
        assert images.shape == (6, 32, 32, 3) and images.dtype == np.float32 and np.isfinite(images).all()
        np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(targets, same)
    assert not np.array_equal(whole[0][0], whole[3][0])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="magnitude: 11"):
        FinetuneViews(magnitude=11)
    with pytest.raises(ValueError, match="have no labels"):
        finetuning_dataset(
            ArraySource(np.zeros((4, 8, 8, 3), np.uint8)), classes=2, batch_size=2, image_size=8,
            views=FinetuneViews(), seed=0, steps=1,
        )  # fmt: skip
