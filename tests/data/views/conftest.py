"""Rows of numbers that the tests of views share."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lut_tf.data.views.draws import draw


@pytest.fixture(scope="session")
def draws() -> np.ndarray:
    """Numbers (2000, …) of as many images, four of them for the rest."""
    epoch = tf.constant(0, tf.int64)
    rows = tf.data.Dataset.range(2000).map(lambda index: draw(3, epoch, index, 4))
    return rows.batch(2000).get_single_element().numpy()
