"""`fit`, `evaluate` and `train_on_batch` take arrays too, as users of Keras expect. Guards the step's input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lut_tf import MAE, PixelDecoder, ViTEncoder


@pytest.mark.medium
def test_arrays_train_like_a_data_set_of_them() -> None:
    random = np.random.default_rng(0)
    batch = {
        "view1": random.normal(size=(8, 8, 8, 3)).astype("float32"),
        "noise": random.random((8, 4), dtype="float32"),
    }
    results = []
    for way in ("fit", "train_on_batch"):
        keras.utils.set_random_seed(0)
        encoder = ViTEncoder(8, 4, 16, 1, 2)
        model = MAE(encoder, PixelDecoder(encoder.grid, 4, 16, 16, 1, 2))
        model.compile(keras.optimizers.SGD(0.1))
        if way == "fit":
            logs = model.fit(batch, batch_size=8, verbose=0).history
            results.append(logs["loss"][0])
        else:
            results.append(model.train_on_batch(batch, return_dict=True)["loss"])
        after = model.evaluate(batch, batch_size=8, verbose=0, return_dict=True)["loss"]
        results.append(after)
    assert results[:2] == pytest.approx(results[2:], rel=1e-6)
    assert results[1] < results[0]
