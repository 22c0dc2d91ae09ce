"""`fit`, `evaluate` and `train_on_batch` take arrays too, as users of Keras expect. Guards the step's input."""

from __future__ import annotations

import keras
import pytest
from networks import tiny_batch, tiny_mae


@pytest.mark.medium
def test_arrays_train_like_a_data_set_of_them() -> None:
    batch = tiny_batch(tiny_mae(), 8)
    results = []
    for way in ("fit", "train_on_batch"):
        keras.utils.set_random_seed(0)
        model = tiny_mae()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        if way == "fit":
            logs = model.fit(batch, batch_size=8, verbose=0).history
            results.append(logs["loss"][0])
        else:
            results.append(model.train_on_batch(batch, return_dict=True)["loss"])
        after = model.evaluate(batch, batch_size=8, verbose=0, return_dict=True)["loss"]
        results.append(after)
    assert results[:2] == pytest.approx(results[2:], rel=1e-6)
    assert results[1] < results[0]
