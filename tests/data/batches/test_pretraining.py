"""Guards batches: shapes, repeatability for any start, parallelism and number of hosts, and the evaluation order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lut_tf.config import ViewsConfig
from lut_tf.data.batches.pipeline import evaluation_dataset, pretraining_dataset
from lut_tf.data.reading.sources import ArraySource

N, B, S, M = 22, 8, 16, 6
SOURCE = ArraySource(
    np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3)).astype(np.uint8), np.arange(N, dtype=np.int32) % 5
)


def batches(start: int = 0, stop: int = 5, crop: Any = "simple", **changes: Any) -> list[dict[str, np.ndarray]]:
    arguments: dict[str, Any] = {"batch_size": B, "image_size": S, "seed": 1, "noise_length": M} | changes
    dataset = pretraining_dataset(SOURCE, views=ViewsConfig(crop=crop), start_step=start, steps=stop, **arguments)
    return list(dataset.as_numpy_iterator())


def assert_equal(first: list[dict[str, np.ndarray]], second: list[dict[str, np.ndarray]]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


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


@pytest.mark.parametrize("crop", ["simple", "random_resized"])
def test_started_anywhere_equals_the_uninterrupted_run(crop: str) -> None:
    whole = batches(crop=crop, parallel_calls=1)
    assert_equal(whole[3:], batches(3, crop=crop, parallel_calls=4))  # step 3 is in the second epoch


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_equal_one(hosts: int) -> None:
    parts = [batches(host=host, hosts=hosts) for host in range(hosts)]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert_equal(joined, batches())


def test_an_example_does_not_depend_on_its_batch() -> None:
    """Other batch sizes show the images of epoch 0 in other company, with the same crops, colours and noise."""
    small, large = batches(0, 4, batch_size=4), batches(0, 2)
    assert_equal(
        [{key: np.concatenate([step[key] for step in small[i : i + 2]]) for key in small[0]} for i in (0, 2)], large
    )


def test_epochs_and_seeds_differ() -> None:
    def by_index(run: list[dict[str, np.ndarray]]) -> dict[int, np.ndarray]:
        return {int(i): noise for batch in run for i, noise in zip(batch["index"], batch["noise"], strict=True)}

    first, second, other = by_index(batches(0, 2)), by_index(batches(2, 4)), by_index(batches(0, 2, seed=2))
    for run in (second, other):
        shared = first.keys() & run.keys()
        assert shared and all(not np.array_equal(first[i], run[i]) for i in shared)


def test_evaluation_keeps_the_order_and_the_rest() -> None:
    indices = [3, 1, 20, 7, 5, 0, 21]
    result = list(evaluation_dataset(SOURCE, indices, 10, 3).as_numpy_iterator())
    assert [len(images) for images, _ in result] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in result]), np.array(indices) % 5)
    images = np.concatenate([images for images, _ in result])
    expected = SOURCE._images.numpy()[indices][:, :, 1:11]  # 10 x 12 pixels at size 10: the centre, not resized
    np.testing.assert_array_equal(images, expected)


def test_evaluation_without_labels() -> None:
    source = ArraySource(np.zeros((3, 4, 4, 3), np.uint8))
    ((images, labels),) = evaluation_dataset(source, range(3), 8, 4).as_numpy_iterator()
    assert images.shape == (3, 8, 8, 3) and labels.tolist() == [-1, -1, -1]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="view_count: 3"):
        batches(view_count=3)
    with pytest.raises(ValueError, match="optimizer.batch_size: 23"):
        batches(batch_size=23)
    with pytest.raises(ValueError, match="views.padding: 4"):
        batches(image_size=4)
