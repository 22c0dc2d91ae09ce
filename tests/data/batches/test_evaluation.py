"""Guards what encoders are measured on: fixed views of the chosen images in their order, each once."""

from __future__ import annotations

import numpy as np

from lut_tf.data import ArraySource, evaluation_dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (22, 10, 12, 3)).astype(np.uint8)
SOURCE = ArraySource(PIXELS, np.arange(22, dtype=np.int32) % 5)


def test_evaluation_keeps_the_order_and_the_rest() -> None:
    indices = [3, 1, 20, 7, 5, 0, 21]
    result = list(evaluation_dataset(SOURCE, indices, 10, 3).as_numpy_iterator())
    assert [len(images) for images, _ in result] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in result]), np.array(indices) % 5)
    images = np.concatenate([images for images, _ in result])
    expected = PIXELS[indices][:, :, 1:11]  # 10 x 12 pixels at size 10: the centre, not resized
    np.testing.assert_array_equal(images, expected)


def test_evaluation_without_labels() -> None:
    source = ArraySource(np.zeros((3, 4, 4, 3), np.uint8))
    ((images, labels),) = evaluation_dataset(source, range(3), 8, 4).as_numpy_iterator()
    assert images.shape == (3, 8, 8, 3) and labels.tolist() == [-1, -1, -1]
