"""Other people's weights, in and out: the LUT and MAE reference trainers, timm, Hugging Face."""

from lut_tf.interop.classifiers import load_classifier, save_classifier
from lut_tf.interop.convert import convert
from lut_tf.interop.encoders import load_encoder, save_encoder
from lut_tf.interop.keras_files import load_keras, load_keras_weights
from lut_tf.interop.reference import load_reference, save_reference, to_reference
from lut_tf.interop.torch_files import MissingExtraError

__all__ = [
    "MissingExtraError",
    "convert",
    "load_classifier",
    "load_encoder",
    "load_keras",
    "load_keras_weights",
    "load_reference",
    "save_classifier",
    "save_encoder",
    "save_reference",
    "to_reference",
]
