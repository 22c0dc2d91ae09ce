"""What stands beside weights, or is asked of them, because shapes do not tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lut_tf.models.preprocess import Preprocessing


class Told(NamedTuple):
    """What is known of an encoder besides its tensors; None where it is not.

    Attributes:
        num_heads: attention heads.
        decoder_num_heads: attention heads of the decoder.
        layer_norm_eps: what the norms add to the variance.
        image_size: (height, width) in pixels that the positions were made for.
        preprocessing: what the encoder was shown.
        told_by: what says so.
        pooling: what a classifier pools by: `mean`, `cls`, or another way, by the name that others give it.
        class_names: of a classifier.
        of_trainer: the weights lie in a group of a trainer's file, or a decoder lies beside them.
    """

    num_heads: int | None = None
    decoder_num_heads: int | None = None
    layer_norm_eps: float | None = None
    image_size: Sequence[int] | None = None
    preprocessing: Preprocessing | None = None
    told_by: str = ""
    pooling: str | None = None
    class_names: tuple[str, ...] | None = None
    of_trainer: bool = False
