"""What both formats have in common: one named input, named outputs, float32, and a note on how to prepare images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lut_tf

if TYPE_CHECKING:
    from lut_tf.models.encoder import ViTEncoder

INPUT = "pixel_values"
OUTPUTS = ("tokens", "cls", "pooled")  # `cls` only where the encoder has a class token
BATCH = "batch"


def float32_copy(encoder: ViTEncoder) -> ViTEncoder:
    """Return a copy of `encoder` that computes in float32, with the same weights.

    A mixed-precision encoder would export to an invalid file; and a copy's variables are plain ones, also where the
    encoder's live on several replicas.

    Raises:
        ValueError: Keras runs on another backend than TensorFlow.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND={keras.backend.backend()} cannot export: "
            "set KERAS_BACKEND=tensorflow and load the encoder anew"
        )
    copy = type(encoder).from_config({**encoder.get_config(), "dtype": "float32"})
    for target, source in zip(copy.variables, encoder.variables, strict=True):
        target.assign(source)
    return copy


def serving_function(encoder: ViTEncoder) -> tuple[Callable[[Any], dict[str, Any]], Any]:
    """Return the function that a file computes and the TensorSpec (None, H, W, 3) of its input.

    The function gives `tokens` (B, T, D), `cls` (B, D) where the encoder has a class token, and `pooled` (B, D), the
    mean of the patches' tokens.
    """
    import tensorflow as tf

    spec = tf.TensorSpec((None, *encoder.image_size, 3), tf.float32, name=INPUT)

    def serve(pixel_values: Any) -> dict[str, Any]:
        # A restored signature does not look at sizes: what has as many values would pass as an image.
        pixel_values = tf.ensure_shape(pixel_values, spec.shape, name=INPUT)
        tokens = encoder(pixel_values, training=False)
        outputs = {"tokens": tokens, "pooled": tf.reduce_mean(tokens[:, encoder.prefix_tokens :], axis=1)}
        return {**outputs, "cls": tokens[:, 0]} if encoder.has_class_token else outputs

    return serve, spec


def description(encoder: ViTEncoder) -> dict[str, Any]:
    """Return what someone who has only the file must know; it travels inside the file."""
    how = encoder.preprocessing
    return {
        "producer": f"lut_tf {lut_tf.__version__}",
        "image_size": list(encoder.image_size),
        "patch_size": encoder.patch_size,
        "input": f"{INPUT}: RGB in [0, 1], minus mean, divided by std",
        "mean": list(how.mean),
        "std": list(how.std),
        "interpolation": how.interpolation,
        "resized_to": list(how.resized_to(encoder.image_size)),
    }


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep a GPU from rounding float32 products to 10 bits (TF32), whose error is far above the tolerance."""
    import tensorflow as tf

    setting = tf.config.experimental
    before = setting.tensor_float_32_execution_enabled()
    setting.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        setting.enable_tensor_float_32_execution(before)
