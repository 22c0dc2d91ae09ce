"""Guards the numbers that decide: uniform, keyed, and each of them deciding one thing only."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from view_helpers import cut

from lut_tf.config import ViewsConfig
from lut_tf.data.views.draws import draw, split
from lut_tf.models.colour import colour_decisions


def test_draws_depend_on_seed_epoch_and_example_only() -> None:
    def numbers(seed: int, epoch: int, index: int) -> tuple[float, ...]:
        return tuple(draw(seed, tf.constant(epoch, tf.int64), tf.constant(index, tf.int64), 9).numpy().tolist())

    keys = [(s, e, i) for s in (0, 1, 2**31 - 1) for e in (0, 1, 1599) for i in (0, 1, 1_281_166)]
    assert len({numbers(*key) for key in keys}) == len(keys)
    assert numbers(1, 2, 3) == numbers(1, 2, 3)


def test_draws_are_uniform(draws: np.ndarray) -> None:
    assert draws.min() >= 0 and draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / len(draws)))
    between = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(between).max() < 5 / np.sqrt(len(draws))


@pytest.mark.medium
@pytest.mark.parametrize("crop", ["simple", "random_resized"])
def test_each_number_decides_one_thing(crop: str, draws: np.ndarray) -> None:
    views = ViewsConfig(crop=crop)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)

    def decided(row: np.ndarray) -> dict[str, bytes]:
        parts = split(row)
        first, second = (view.geometry.tobytes() for view in cut(image, parts.views, 48, views))
        colour = colour_decisions(parts.colour[np.newaxis], views, np).tobytes()
        return {"view1": first, "view2": second, "colour": colour, "rest": parts.rest.tobytes()}

    before, changes = decided(draws[0]), []
    for column in range(draws.shape[1]):
        row = draws[0].copy()
        row[column] = (row[column] + 0.5) % 1.0
        changes.append({name for name, value in decided(row).items() if value != before[name]})
    assert all(len(names) <= 1 for names in changes)
    assert set().union(*changes) == before.keys()
    assert changes[-5:] == [{"colour"}] + [{"rest"}] * 4  # four were asked for, and nothing lies between
