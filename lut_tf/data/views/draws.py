"""The uniform numbers that decide everything random about an example.

They come in one row, keyed by (seed, epoch, example), so that what is decided does not depend on batches, hosts,
threads or where the run was started.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from lut_tf.data.views.crops import VIEW_DRAWS
from lut_tf.models.colour import COLOUR_DRAWS

MOST_VIEWS = 2


class Draws(NamedTuple):
    """The parts of an example's numbers, float32 in [0, 1); batches of them have B rows.

    `views` (2 · VIEW_DRAWS,) cut the views, `colour` (COLOUR_DRAWS,) decides the colours of the second one, and the
    rest is for whoever asked for it: masking noise, or the numbers of fine-tuning.
    """

    views: tf.Tensor
    colour: tf.Tensor
    rest: tf.Tensor


def draw(seed: int, epoch: tf.Tensor, index: tf.Tensor, rest: int) -> tf.Tensor:
    """Return the example's row of numbers with `rest` of them at its end; `epoch` and `index` are int64 scalars.

    One call for everything: small operations are what costs time on small images. The two words of the key are
    (seed, epoch) and the example; the generator scrambles them.
    """
    key = tf.stack([tf.constant(seed << 32, tf.int64) + epoch, index])
    return tf.random.stateless_uniform([MOST_VIEWS * VIEW_DRAWS + COLOUR_DRAWS + rest], key, alg="philox")


def split(draws: tf.Tensor) -> Draws:
    """Return the parts of a row of `draw`, or of a batch of rows (B, …)."""
    views = MOST_VIEWS * VIEW_DRAWS
    colour = views + COLOUR_DRAWS
    return Draws(draws[..., :views], draws[..., views:colour], draws[..., colour:])
