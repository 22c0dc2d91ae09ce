"""Trainable models, and the step that trains them on Keras' backend: `TrainableModel` is what an objective inherits.

TensorFlow is imported only where it is Keras' backend; another backend's step goes beside `tensorflow_step`.
"""

from __future__ import annotations

import keras

from lut_tf.step.trainable import REMEMBERED, Gather, Trainable

if keras.backend.backend() == "tensorflow":
    from lut_tf.step.tensorflow_step import TensorFlowStep as TrainableModel
else:
    from lut_tf.step.trainable import Untrained as TrainableModel

__all__ = ["REMEMBERED", "Gather", "Trainable", "TrainableModel"]
