"""Guards the order: each image at most once an epoch, epochs differ, any start, any number of hosts."""

from __future__ import annotations

import numpy as np
import pytest

from lut_tf.data.batches.order import order_dataset


def indices(start: int, stop: int, images: int = 23, batch: int = 4, seed: int = 5, **host: int) -> np.ndarray:
    dataset = order_dataset(start, stop, images=images, batch_size=batch, seed=seed, **host)
    return dataset.map(lambda _, index: index).batch(stop - start).get_single_element().numpy()


def test_each_image_at_most_once_an_epoch_and_epochs_differ() -> None:
    epochs = indices(0, 20).reshape(4, 20)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 20
        assert epoch.min() >= 0 and epoch.max() < 23
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    assert set(epochs.ravel().tolist()) == set(range(23))  # what one epoch drops another takes


def test_whole_epochs_are_permutations() -> None:
    epochs = indices(0, 18, images=24).reshape(3, 24)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(24), (3, 1)))


@pytest.mark.medium
def test_orders_are_spread_evenly() -> None:
    """Over 600 epochs of 6 images each image comes first about 100 times, also after a given other."""
    epochs = indices(0, 600, images=6, batch=6)
    counts = np.bincount(epochs[:, 0] * 6 + epochs[:, 1], minlength=36).reshape(6, 6)
    assert np.all(np.diag(counts) == 0)
    expected = 600 / 30
    chi_square = ((counts[~np.eye(6, dtype=bool)] - expected) ** 2 / expected).sum()
    assert chi_square < 60  # 29 degrees of freedom, p = 0.0006


def test_seed_changes_the_order() -> None:
    assert not np.array_equal(indices(0, 5, seed=1), indices(0, 5, seed=2))


def test_any_start_equals_the_uninterrupted_order() -> None:
    np.testing.assert_array_equal(indices(7, 15), indices(0, 15)[7:])


def test_start_after_ten_million_steps_is_immediate() -> None:
    assert indices(10_000_000, 10_000_001).shape == (1, 4)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_consecutive_slices(hosts: int) -> None:
    parts = [indices(0, 9, host=host, hosts=hosts) for host in range(hosts)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), indices(0, 9))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batch": 24}, "optimizer.batch_size=24"),
        ({"batch": 0}, "optimizer.batch_size=0"),
        ({"hosts": 3}, "optimizer.batch_size: 4"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        indices(0, 1, **arguments)
