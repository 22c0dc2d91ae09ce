"""RandAugment with the reference's fifteen operations (timm's `rand-m9-mstd0.5-inc1`), keyed instead of stateful.

Composed from keras-cv's layers where one does what the reference does (auto-contrast, solarize, rotate, sharpness,
shear, translate); they are given their parameters, because their own randomness knows no example and no step
and so could not be repeated. What deviates is named in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lut_tf.models.colour import LUMA

FILL = 124.0, 116.0, 104.0  # ImageNet's mean colour
APPLIED = 0.5
"""How often a drawn operation is applied."""

Operation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""From images float32 (1, H, W, 3), a level in 0 … 1 and a sign to such images."""


def _blend(base: tf.Tensor, images: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """Go from `images` away from `base` or towards it (Pillow's ImageEnhance), by up to 0.9."""
    return base + (1.0 + 0.9 * sign * level) * (images - base)


def _gray(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(images * tf.constant(LUMA), axis=-1, keepdims=True)


def _posterize(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Keep 4 to 0 bits of each byte."""
    step = tf.pow(2.0, 4.0 + tf.floor(4.0 * level))
    return tf.floor(images / step) * step


def _equalize(images: tf.Tensor) -> tf.Tensor:
    """Spread each channel's values so that each is about as frequent as another (Pillow's `ImageOps.equalize`).

    Of our own because keras-cv's needs a `tf.function` of its own, which no data set of several hosts can call.
    """

    def channel(values: tf.Tensor) -> tf.Tensor:
        whole = tf.cast(values, tf.int32)
        counts = tf.math.bincount(tf.reshape(whole, [-1]), minlength=256, maxlength=256)
        step = (tf.size(whole) - counts[tf.reduce_max(whole)]) // 255
        spread = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
        return tf.where(step == 0, values, tf.cast(tf.minimum(tf.gather(spread, whole), 255), tf.float32))

    return tf.stack([channel(images[..., number]) for number in range(3)], axis=-1)


def _geometric(layer: Any, names: tuple[str, ...], which: str, reach: float) -> Operation:
    """Return an operation of a keras-cv layer that takes `which` of its parameters, up to `reach`, the others being 0.

    The layer fills with one gray, the reference with ImageNet's mean colour: the mean is taken off, and put back.
    """

    def operation(images: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        value = tf.reshape(reach * level * sign, [1, 1])
        given = {name: value if name == which else tf.zeros([1, 1]) for name in names}
        return layer.augment_images(images - tf.constant(FILL), given) + tf.constant(FILL)

    return operation


def _have_generator() -> None:
    """Give TensorFlow a generator that keras-cv's layers can hold; nothing is drawn from it here.

    By itself TensorFlow would seed one by chance, which `enable_op_determinism` forbids.
    """
    with tf.init_scope():
        try:
            tf.random.get_global_generator()
        except RuntimeError:
            tf.random.set_global_generator(tf.random.Generator.from_seed(0))


def operations() -> dict[str, Operation]:
    """Return RandAugment's fifteen operations by name; images are floats of whole bytes, 0 … 255."""
    from keras_cv import layers  # seconds to import, needed nowhere else

    _have_generator()
    bytes_, border = (0, 255), {"fill_mode": "constant", "fill_value": 0.0}
    contrast = layers.AutoContrast(bytes_)
    solarize, sharpness = layers.Solarization(bytes_), layers.RandomSharpness(0.5, bytes_)
    rotation = layers.RandomRotation(0.1, **border)
    shear = layers.RandomShear(0.3, 0.3, **border)
    translation = layers.RandomTranslation(0.45, 0.45, **border)
    shears = "shear_x", "shear_y"
    moves = "width_translations", "height_translations"

    def above(images: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
        # The layer inverts what is not below the threshold and leaves the rest.
        one = tf.ones([1, 1, 1, 1])
        return solarize.augment_images(images, {"thresholds": threshold * one, "additions": 0.0 * one})

    def rotate(images: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        angle = tf.reshape(np.pi / 6 * level * sign, [1])
        return rotation.augment_images(images - tf.constant(FILL), {"angles": angle}) + tf.constant(FILL)

    def sharpen(images: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        smooth = sharpness.augment_images(images, tf.ones([1, 1, 1, 1]))  # the layer's other end
        return _blend(smooth, images, level, sign)

    return {
        "auto_contrast": lambda images, level, sign: contrast.augment_images(images),
        "equalize": lambda images, level, sign: _equalize(images),
        "invert": lambda images, level, sign: above(images, tf.constant(0.0)),
        "rotate": rotate,
        "posterize": lambda images, level, sign: _posterize(images, level),
        "solarize": lambda images, level, sign: above(images, 256.0 - tf.floor(256.0 * level)),
        "solarize_add": lambda images, level, sign: tf.where(images < 128, images + tf.floor(110 * level), images),
        "colour": lambda images, level, sign: _blend(_gray(images), images, level, sign),
        "contrast": lambda images, level, sign: _blend(tf.reduce_mean(_gray(images)), images, level, sign),
        "brightness": lambda images, level, sign: _blend(tf.constant(0.0), images, level, sign),
        "sharpness": sharpen,
        "shear_x": _geometric(shear, shears, "shear_x", 0.3),
        "shear_y": _geometric(shear, shears, "shear_y", 0.3),
        "translate_x": _geometric(translation, moves, "width_translations", 0.45),
        "translate_y": _geometric(translation, moves, "height_translations", 0.45),
    }


@tf.autograph.experimental.do_not_convert  # as in `crops`
def rand_augment(
    image: tf.Tensor, draws: tf.Tensor, normals: tf.Tensor, magnitude: float, deviation: float
) -> tf.Tensor:
    """Apply operations drawn with replacement, each half of the time.

    Args:
        image: uint8 (H, W, 3).
        draws: (operations, 3), uniform: which, whether, direction.
        normals: (operations,), standard normal: how far from the magnitude.
        magnitude: strength, 0 to 10.
        deviation: standard deviation of the strength.

    Returns:
        uint8 (H, W, 3).
    """
    known = [tf.autograph.experimental.do_not_convert(operation) for operation in operations().values()]

    def apply(images: tf.Tensor, which: tf.Tensor, level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        branches = [lambda f=f: tf.cast(f(images, level, sign), tf.float32) for f in known]
        changed = tf.switch_case(which, [*branches, lambda: images])
        return tf.ensure_shape(tf.clip_by_value(tf.round(changed), 0.0, 255.0), images.shape)

    def drawn(number: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        which, whether, direction = tf.unstack(draws[number])
        level = tf.clip_by_value(magnitude + deviation * normals[number], 0.0, 10.0) / 10.0
        sign = tf.where(direction < 0.5, -1.0, 1.0)
        chosen = tf.cast(which * len(known), tf.int32)
        return number + 1, apply(images, tf.where(whether < APPLIED, chosen, len(known)), level, sign)

    # A loop is traced once, however many operations are drawn. So is a tf.function, but one that is called in a data
    # set is looked for on all of several hosts, and not found.
    images = tf.cast(image, tf.float32)[tf.newaxis]
    _, images = tf.while_loop(
        lambda number, _: number < draws.shape[0], drawn, (tf.constant(0), images), parallel_iterations=1
    )
    return tf.ensure_shape(tf.cast(images[0], tf.uint8), image.shape)
