"""Other people's weights, in and out: the LUT and MAE reference trainers, timm, Hugging Face."""

from lut_tf.lazy import lazy_names

_NAMES = {
    "MissingExtraError": "lut_tf.interop.torch_files",
    "OpenedEncoder": "lut_tf.interop.sources",
    "convert": "lut_tf.interop.conversion",
    "find_encoder": "lut_tf.interop.sources",
    "load_classifier": "lut_tf.interop.classifiers",
    "load_encoder": "lut_tf.interop.encoders",
    "load_keras": "lut_tf.interop.keras_files",
    "load_keras_weights": "lut_tf.interop.keras_files",
    "load_reference": "lut_tf.interop.reference",
    "open_encoder": "lut_tf.interop.sources",
    "save_classifier": "lut_tf.interop.classifiers",
    "save_encoder": "lut_tf.interop.encoders",
    "save_reference": "lut_tf.interop.reference",
    "to_reference": "lut_tf.interop.reference",
}

__all__ = [*_NAMES]  # noqa: PLE0604
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
