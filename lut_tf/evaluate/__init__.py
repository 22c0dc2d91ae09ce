"""What an encoder is worth."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "Figure": "lut_tf.evaluate.results",
    "Result": "lut_tf.evaluate.results",
    "accuracy": "lut_tf.evaluate.results",
    "bootstrap": "lut_tf.evaluate.results",
    "cached_features": "lut_tf.evaluate.feature_cache",
    "data_facts": "lut_tf.evaluate.frozen",
    "encoder_features": "lut_tf.evaluate.features",
    "few_shot_least_squares": "lut_tf.evaluate.least_squares",
    "find_results": "lut_tf.evaluate.results",
    "knn_accuracy": "lut_tf.evaluate.knn",
    "knn_correct": "lut_tf.evaluate.knn",
    "logistic_accuracy": "lut_tf.evaluate.logistic",
    "encoder_probe": "lut_tf.evaluate.probe",
    "mean_of_draws": "lut_tf.evaluate.results",
    "measure_few_shot": "lut_tf.evaluate.frozen",
    "measure_knn": "lut_tf.evaluate.frozen",
    "read_result": "lut_tf.evaluate.results",
    "results_path": "lut_tf.evaluate.results",
    "save_result": "lut_tf.evaluate.results",
    "table": "lut_tf.evaluate.results",
    "write_result": "lut_tf.evaluate.results",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
