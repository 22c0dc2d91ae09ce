"""Guards batches of fine-tuning: the agreed form, and any start repeats them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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
    with pytest.raises(ValueError, match="have no labels"):
        dataset(ArraySource(PIXELS))
