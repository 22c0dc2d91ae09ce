"""What an encoder is worth."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "encoder_features": "lut_tf.evaluate.features",
    "knn_accuracy": "lut_tf.evaluate.knn",
    "logistic_accuracy": "lut_tf.evaluate.logistic",
    "encoder_probe": "lut_tf.evaluate.probe",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
