"""Guards normalisation: ImageNet's numbers, and back."""

from __future__ import annotations

import numpy as np
from keras import ops

from lut_tf.models.preprocess import denormalise, normalise


def test_normalise_and_back() -> None:
    images = np.random.default_rng(5).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    normal = ops.convert_to_numpy(normalise(images))
    assert normal.dtype == np.float32
    expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normal, expected, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(denormalise(normal)), images, atol=1e-3)
