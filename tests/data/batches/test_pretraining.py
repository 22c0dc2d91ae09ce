"""Guards batches of pre-training: their form, and that any start, parallelism and number of hosts repeats them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lut_tf.config import ViewsConfig
from lut_tf.data import ArraySource, pretraining_dataset

N, B, S, M = 22, 8, 16, 6
SOURCE = ArraySource(np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3)).astype(np.uint8))
Batches = list[dict[str, np.ndarray]]


def batches(start: int = 0, stop: int = 5, crop: Any = "simple", **changes: Any) -> Batches:
    arguments: dict[str, Any] = {"batch_size": B, "image_size": S, "seed": 1, "noise_length": M} | changes
    dataset = pretraining_dataset(SOURCE, views=ViewsConfig(crop=crop), start_step=start, steps=stop, **arguments)
    return list(dataset.as_numpy_iterator())


@pytest.fixture(scope="module")
def whole() -> Batches:
    return batches()


def assert_equal(first: Batches, second: Batches) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.medium
def test_batch_has_the_agreed_form() -> None:
    dataset = pretraining_dataset(
        SOURCE, batch_size=B, image_size=S, views=ViewsConfig(), seed=1, steps=1, noise_length=M
    )
    form = {key: (spec.dtype.name, spec.shape.as_list()) for key, spec in dataset.element_spec.items()}
    image, geometry = ("uint8", [B, S, S, 3]), ("float32", [B, 5])
    assert form == {
        "view1": image,
        "view2": image,
        "geometry1": geometry,
        "geometry2": geometry,
        "colour": ("float32", [B, 11]),
        "noise": ("float32", [B, M]),
        "index": ("int64", [B]),
    }
    assert batches(view_count=1)[0].keys() == {"view1", "geometry1", "noise", "index"}


@pytest.mark.medium
def test_started_anywhere_equals_the_uninterrupted_run(whole: Batches) -> None:
    assert_equal(whole[3:], batches(3, parallel_calls=1))  # step 3 is in the second epoch


@pytest.mark.medium
def test_random_resized_crops_are_repeated_from_any_start() -> None:
    assert_equal(
        batches(crop="random_resized", parallel_calls=1)[3:], batches(3, crop="random_resized", parallel_calls=4)
    )


@pytest.mark.medium
def test_hosts_together_equal_one(whole: Batches) -> None:
    parts = [batches(0, 3, host=host, hosts=2) for host in range(2)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole[:3])


def test_an_example_does_not_depend_on_its_batch(whole: Batches) -> None:
    """Other batch sizes show the images of epoch 0 in other company, with the same crops, colours and noise."""
    small = batches(0, 4, batch_size=4)
    joined = [{key: np.concatenate([step[key] for step in small[i : i + 2]]) for key in small[0]} for i in (0, 2)]
    assert_equal(joined, whole[:2])


@pytest.mark.medium
def test_epochs_and_seeds_differ(whole: Batches) -> None:
    def by_index(run: Batches) -> dict[int, np.ndarray]:
        return {int(i): noise for batch in run for i, noise in zip(batch["index"], batch["noise"], strict=True)}

    first, second, other = by_index(whole[:2]), by_index(whole[2:4]), by_index(batches(0, 2, seed=2))
    for run in (second, other):
        shared = first.keys() & run.keys()
        assert shared and all(not np.array_equal(first[i], run[i]) for i in shared)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="view_count: 3"):
        batches(view_count=3)
    with pytest.raises(ValueError, match=r"views\.hue=0\.6 is out of range"):
        pretraining_dataset(
            SOURCE, batch_size=B, image_size=S, views=ViewsConfig(hue=0.6), seed=1, steps=1, noise_length=M
        )
    with pytest.raises(ValueError, match="optimizer.batch_size=23"):
        batches(batch_size=23)
    with pytest.raises(ValueError, match=r"views\.padding=4 cannot be reflected"):
        batches(image_size=4)
