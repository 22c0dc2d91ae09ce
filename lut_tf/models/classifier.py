"""The classifier that fine-tuning trains: an encoder, its tokens pooled, and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from lut_tf.config.types import Count, Decay, check_value
from lut_tf.models.encoder import ViTEncoder
from lut_tf.models.layers import LayerNorm, drop_path_factors, mean_tokens
from lut_tf.models.preprocess import Preprocessing

POOLINGS = ("mean", "cls")


@keras.saving.register_keras_serializable(package="lut_tf")
class ViTClassifier(keras.Model):
    """Images (B, H, W, 3), float32, normalised by its `preprocessing`, to logits (B, classes), float32.

    `mean` takes the mean of the patch tokens after the last block, without the encoder's final norm, and normalises it
    by a norm of its own, as LUT, MAE and timm's `global_pool="avg"` do; `cls` takes the class token after the final
    norm. Pooling, norm and linear layer compute in float32 whatever the encoder computes in.

    Args:
        encoder: the network below; its positions must be trainable (`from_encoder` sees to that). It becomes part of
            the classifier: training changes it, and with `mean` its final norm, which nothing reads, stops training.
        classes: number of logits.
        pooling: `mean` or `cls`.
        drop_path: rate at which the last block's attention and MLP are dropped in training, example by example; it
            rises linearly from 0 at the first block.
        class_names: a name for each logit, or None.
        name: of the Keras model.

    Raises:
        ValueError: a setting is out of range or not known, the encoder's positions are fixed, there is no class token
            for `cls`, or there are not as many names as classes.
    """

    def __init__(
        self,
        encoder: ViTEncoder,
        classes: int,
        pooling: str = "mean",
        drop_path: float = 0.0,
        class_names: Sequence[str] | None = None,
        name: str | None = "classifier",
        **kwargs: Any,
    ) -> None:
        # Without autocast the draws keep their precision: in bfloat16 half a percent of them would be 1.
        super().__init__(name=name, **{"dtype": encoder.dtype_policy, **kwargs, "autocast": False})
        check_classifier(classes, pooling, drop_path, class_names)
        if pooling == "cls" and not encoder.has_class_token:
            raise ValueError('pooling="cls" needs a class token and this encoder has none: choose "mean"')
        if encoder.position_kind != "learned":
            raise ValueError(
                f"positions={encoder.position_kind!r} of the encoder are fixed, and a classifier trains them: take "
                "ViTClassifier.from_encoder(encoder, classes)"
            )
        self.encoder, self.classes, self.pooling = encoder, int(classes), pooling
        self.drop_path = float(drop_path)
        self.class_names = None if class_names is None else tuple(class_names)
        self.norm = LayerNorm(encoder.layer_norm_eps, dtype="float32", name="norm") if pooling == "mean" else None
        if self.norm is not None:
            encoder.norm.trainable = False
        small = keras.initializers.TruncatedNormal(stddev=2e-5)
        self.head = keras.layers.Dense(self.classes, kernel_initializer=small, dtype="float32", name="head")
        self.seed_generator = keras.random.SeedGenerator() if self.drop_path else None
        self.build((None, *encoder.image_size, 3))

    @classmethod
    def from_encoder(
        cls,
        encoder: ViTEncoder,
        classes: int,
        pooling: str = "mean",
        drop_path: float = 0.0,
        image_size: int | Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> ViTClassifier:
        """Make a classifier with the weights of an encoder, which stays as it was, and a head that is new.

        Args:
            encoder: any; in the copy the positions are trainable.
            classes: see the class.
            pooling: see the class.
            drop_path: see the class.
            image_size: side or (height, width) in pixels of the classifier's input; the positions are resized to it as
                by `ViTEncoder.resized`. None: the encoder's.
            class_names: see the class.

        Raises:
            ValueError: see the class; or a side is no multiple of the patch size.
        """
        check_classifier(classes, pooling, drop_path, class_names)
        copied = encoder.resized(encoder.image_size if image_size is None else image_size, positions="learned")
        return cls(copied, classes, pooling, drop_path, class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of its images: its encoder's."""
        return self.encoder.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images are normalised by, and how they are resized: its encoder's."""
        return self.encoder.preprocessing

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights of norm and linear layer; the encoder has its own."""
        for layer in (self.norm, self.head):
            if layer is not None:
                layer.build((None, self.encoder.width))
        self.built = True

    def call(self, images: Any, training: bool | None = None, drop_path_draws: Any = None) -> Any:
        """Return the logits (B, classes), float32, of images (B, H, W, 3).

        Args:
            images: float, normalised.
            training: drop paths.
            drop_path_draws: (B, 2 · depth) float32, uniform in [0, 1): they decide in training what is dropped, see
                `drop_path_factors`. None draws them here.
        """
        return self.head(self._pooled(images, self._kept(images, training, drop_path_draws)))

    def features(self, images: Any) -> Any:
        """Return what the linear layer sees of images (B, H, W, 3): (B, D), float32."""
        return self._pooled(images)

    def _kept(self, images: Any, training: bool | None, draws: Any) -> Any:
        """Return the factor of each path; None where all are kept."""
        if not training or not self.drop_path:
            return None
        if draws is None:
            shape = (ops.shape(images)[0], 2 * self.encoder.depth)
            draws = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return drop_path_factors(draws, self.drop_path)

    def _pooled(self, images: Any, kept: Any = None) -> Any:
        encoder = self.encoder
        tokens = encoder.add_positions(encoder.embed(images))
        tokens = encoder.blocks(tokens, final_norm=self.norm is None, kept=kept)
        if self.norm is None:
            return ops.cast(tokens[:, 0], "float32")
        return self.norm(mean_tokens(tokens[:, encoder.prefix_tokens :]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of `call`'s result, for Keras' summaries."""
        return input_shape[0], self.classes

    def resized(self, image_size: int | Sequence[int]) -> ViTClassifier:
        """Return a classifier for another input size with the same weights; see `ViTEncoder.resized`."""
        other = type(self)(self.encoder.resized(image_size), **self._settings())
        parts: list[tuple[Any, Any]] = [(other.norm, self.norm), (other.head, self.head)]
        for ours, theirs in parts:
            if theirs is not None:
                ours.set_weights(theirs.get_weights())
        return other

    def export(self, *arguments: Any, **kwargs: Any) -> None:
        """Export as `keras.Model.export` does, which wants a model that was called."""
        self(ops.zeros((1, *self.image_size, 3)))
        super().export(*arguments, **kwargs)

    def _settings(self) -> dict[str, Any]:
        own = ("classes", "pooling", "drop_path", "class_names", "name")
        return {setting: getattr(self, setting) for setting in own}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"encoder": keras.saving.serialize_keras_object(self.encoder), **self._settings(), "dtype": policy}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> ViTClassifier:
        """Make a classifier of `get_config`'s result, its weights fresh."""
        encoder, policy = (
            keras.saving.deserialize_keras_object(config[part], custom_objects) for part in ("encoder", "dtype")
        )
        return cls(**{**config, "encoder": encoder, "dtype": policy})


def check_classifier(classes: Any, pooling: Any, drop_path: Any, class_names: Sequence[str] | None) -> None:
    """Refuse settings that no classifier can have.

    Raises:
        ValueError: naming the setting, its value and what to give.
    """
    check_value("classes", classes, Count)
    check_value("drop_path", drop_path, Decay)
    if pooling not in POOLINGS:
        raise ValueError(f'pooling={pooling!r} is not known: choose "mean" or "cls"')
    if class_names is None:
        return
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"class_names={class_names!r} are not names: give a list of texts, one for each class")
    if len(class_names) != classes:
        raise ValueError(f"class_names: {len(class_names)} for classes={classes}: give one for each class, in order")
