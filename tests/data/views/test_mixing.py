"""Guards mixup, cutmix and erasing: shares of pixels are shares of targets, boxes are boxes of the agreed sizes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lut_tf.config import FinetuneViews
from lut_tf.data.views.mixing import ERASING_DRAWS, erase, mix

IMAGES, TARGETS = tf.random.stateless_uniform([4, 16, 16, 3], [1, 2]), tf.eye(4)


def mixed(step: int, views: FinetuneViews) -> tuple[np.ndarray, np.ndarray]:
    images, targets = mix(IMAGES, TARGETS, tf.stack([0, tf.constant(step, tf.int64)]), views)
    return images.numpy(), targets.numpy()


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_mixed_as_pixels_are(kind: str) -> None:
    views, shares = FinetuneViews(mixup=float(kind == "mixup"), cutmix=float(kind == "cutmix")), []
    for step in range(30):
        images, targets = mixed(step, views)
        share = float(targets[0, 3])
        np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(targets[0], [1 - share, 0, 0, share], atol=1e-6)
        if kind == "mixup":
            np.testing.assert_allclose(images[0], (1 - share) * IMAGES[0] + share * IMAGES[3], atol=1e-5)
        else:
            other = np.all(np.isclose(images[0], IMAGES[3], atol=1e-6), axis=-1)
            assert np.isclose(other.mean(), share, atol=1e-6)
        shares.append(share)
    assert min(shares) < 0.1 and max(shares) > 0.7


def test_without_mixup_and_cutmix_nothing_is_mixed() -> None:
    images, targets = mixed(1, FinetuneViews(mixup=0, cutmix=0))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)


def test_erased_boxes_have_the_agreed_sizes() -> None:
    image, count = tf.fill([32, 32, 3], 9.0), 300
    draws = np.random.default_rng(0).random((count, ERASING_DRAWS)).astype(np.float32)
    seeds = np.stack([np.zeros(count, np.int64), np.arange(count)], axis=1)
    rows = tf.data.Dataset.from_tensor_slices((draws, seeds))
    shares = []
    for result in rows.map(lambda row, seed: erase(image, row, seed, FinetuneViews())).as_numpy_iterator():
        erased = (result != 9.0).all(axis=-1)
        assert erased.sum() == erased.any(1).sum() * erased.any(0).sum()  # a box
        if erased.any():
            shares.append(erased.mean())
    assert 0.17 < len(shares) / count < 0.33 and min(shares) > 0.01 and max(shares) < 0.36
