"""Views cut by graphs, which are made once for all tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from lut_tf.config import ViewsConfig
from lut_tf.data.views.crops import View, training_views


@cache
def _cutter(size: int | tuple[int, int], views: ViewsConfig, count: int) -> Any:
    signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None])]
    return tf.function(lambda image, row: training_views(image, row, size, views, count), input_signature=signature)


def cut(
    image: np.ndarray, numbers: np.ndarray, size: int | tuple[int, int], views: ViewsConfig, count: int = 2
) -> list[View]:
    return [View(v.image.numpy(), v.geometry.numpy()) for v in _cutter(size, views, count)(image, numbers)]
