"""`lut-tf knn`."""

from __future__ import annotations

from lut_tf.cli.measuring import USAGE, adds_arguments, runs
from lut_tf.cli.verb import Verb
from lut_tf.config.measuring import KnnConfig

VERB = Verb(
    "classify by the nearest images: what an encoder's features are worth as they are",
    adds_arguments(KnnConfig),
    runs("measure_knn"),
    USAGE,
    "knn runs/mine --neighbours 10,20",
)
