"""What an encoder is worth."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "Figure": "lut_tf.evaluate.results",
    "Result": "lut_tf.evaluate.results",
    "accuracy": "lut_tf.evaluate.results",
    "bootstrap": "lut_tf.evaluate.results",
    "encoder_features": "lut_tf.evaluate.features",
    "knn_accuracy": "lut_tf.evaluate.knn",
    "logistic_accuracy": "lut_tf.evaluate.logistic",
    "encoder_probe": "lut_tf.evaluate.probe",
    "mean_of_draws": "lut_tf.evaluate.results",
    "read_result": "lut_tf.evaluate.results",
    "results_path": "lut_tf.evaluate.results",
    "table": "lut_tf.evaluate.results",
    "write_result": "lut_tf.evaluate.results",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
