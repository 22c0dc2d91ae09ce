"""Guards batches of fine-tuning: the agreed form, and any start repeats them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lut_tf.config import FinetuneViews
from lut_tf.data import ArraySource, finetuning_dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 30, 3)).astype(np.uint8)


def dataset(source: ArraySource, views: FinetuneViews | None = None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"classes": 4, "batch_size": 6, "image_size": 16, "seed": 3, "steps": 5} | changes
    return finetuning_dataset(source, views=views or FinetuneViews(), **arguments)


@pytest.mark.medium
def test_batches_are_repeatable_from_any_start() -> None:
    source = ArraySource(PIXELS, np.arange(20, dtype=np.int32) % 4)
    whole = list(dataset(source, parallel_calls=1).as_numpy_iterator())
    late = list(dataset(source, start_step=2, parallel_calls=3).as_numpy_iterator())
    for (images, targets), (others, same) in zip(whole[2:], late, strict=True):
        assert images.shape == (6, 16, 16, 3) and images.dtype == np.float32 and np.isfinite(images).all()
        np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(targets, same)
    assert not np.array_equal(whole[0][0], whole[3][0])


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"views\.magnitude=11 is out of range"):
        dataset(ArraySource(PIXELS, np.zeros(20, np.int32)), FinetuneViews(magnitude=11))
    for labels in (None, np.full(20, -1, np.int32)):
        with pytest.raises(ValueError, match="have no labels"):
            dataset(ArraySource(PIXELS, labels))
    with pytest.raises(ValueError, match="classes=4 is too few for the label 4"):
        dataset(ArraySource(PIXELS, np.full(20, 4, np.int32)))


def test_images_of_unknown_class_are_left_out() -> None:
    """As records are whose label cannot be read: their targets would sum to 0, or be of a wrong class."""
    labels = np.array([0, -1, 1, -1] * 5, np.int32)
    pixels = np.repeat(labels[:, None, None, None] + 2, 3, axis=3).astype(np.uint8) * np.ones((1, 4, 4, 1), np.uint8)
    plain = FinetuneViews(operations=0, mixup=0.0, cutmix=0.0, erasing=0.0, smoothing=0.0)
    whole = list(dataset(ArraySource(pixels, labels), plain, batch_size=10, steps=2).as_numpy_iterator())
    for images, targets in whole:
        np.testing.assert_array_equal(targets.sum(axis=0), [5, 5, 0, 0])
        assert len(np.unique(images[:, 0, 0, 0])) == 2


def test_magnitudes_noise_and_mixing_have_keys_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    original = tf.random.stateless_normal

    def normal(shape: Any, seed: tf.Tensor, **options: Any) -> tf.Tensor:
        tf.numpy_function(lambda key: seen.append(key.tolist()), [seed], [])
        return original(shape, seed, **options)

    monkeypatch.setattr(tf.random, "stateless_normal", normal)

    def augment(image: tf.Tensor, draws: tf.Tensor, normals: tf.Tensor, *strength: float) -> tf.Tensor:
        return tf.cast(image, tf.float32) + 0.0 * normals[0]

    monkeypatch.setattr("lut_tf.data.batches.finetuning.rand_augment", augment)
    monkeypatch.setattr("lut_tf.data.batches.finetuning.mix", lambda images, targets, seed, views: (images, seed))
    source = ArraySource(PIXELS, np.zeros(20, np.int32))
    for _, key in dataset(source, seed=0, batch_size=4).as_numpy_iterator():
        seen.append(key.tolist())
    assert len({tuple(key) for key in seen}) == len(seen) == 5 * (4 * 2 + 1)


@pytest.mark.medium
def test_drop_path_is_drawn_with_the_image_and_changes_nothing_else() -> None:
    """Whatever step it is asked for, and in whatever batch the image is; the images are those without the draws."""
    source, plain = ArraySource(PIXELS, np.arange(20, dtype=np.int32) % 4), FinetuneViews(operations=0)
    without = list(dataset(source, plain).as_numpy_iterator())
    whole = list(dataset(source, plain, drop_path_numbers=4).as_numpy_iterator())
    late = list(dataset(source, plain, drop_path_numbers=4, start_step=2).as_numpy_iterator())
    for (images, targets), (inputs, same) in zip(without, whole, strict=True):
        np.testing.assert_array_equal(images, inputs["images"])
        np.testing.assert_array_equal(targets, same)
    draws = [inputs["drop_path_draws"] for inputs, _ in whole]
    for one, (other, _) in zip(draws[2:], late, strict=True):
        np.testing.assert_array_equal(one, other["drop_path_draws"])
    found = np.concatenate(draws)
    assert found.shape == (30, 4) and found.dtype == np.float32 and (found >= 0).all() and (found < 1).all()
    assert len(np.unique(found)) == found.size
