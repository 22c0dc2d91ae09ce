"""`lut-tf few-shot`."""

from __future__ import annotations

from lut_tf.cli.measuring import USAGE, adds_arguments, runs
from lut_tf.cli.verb import Verb
from lut_tf.config.measuring import FewShotConfig

VERB = Verb(
    "classify by a few labelled images a class: what an encoder's features are worth without many labels",
    adds_arguments(FewShotConfig),
    runs("measure_few_shot"),
    USAGE,
    "few-shot runs/mine --shots 1,5,10",
)
