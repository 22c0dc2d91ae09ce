"""Which task a run's settings are of."""

from __future__ import annotations

import yaml

from lut_tf.config import core_schema
from lut_tf.config.finetuning import FinetuneConfig
from lut_tf.config.pretraining import Config
from lut_tf.config.probing import LinearProbeConfig
from lut_tf.config.run import RunConfig
from lut_tf.config.tree import hints_of

TREES: dict[str, type[RunConfig]] = {"train": Config, "finetune": FinetuneConfig, "probe": LinearProbeConfig}
"""The settings of every task by the verb that runs it."""


def verb_of(text: str) -> str | None:
    """Return the verb whose settings a run has written down; None where it is not clear.

    A run writes all its settings down, and every task has a group of its own. There is no word for the task among the
    settings, because nothing could be chosen with it.
    """
    try:
        node = core_schema.compose(text)
    except yaml.YAMLError:
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    names = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
    fitting = [verb for verb, tree in TREES.items() if names <= set(hints_of(tree))]
    return fitting[0] if len(fitting) == 1 else None
