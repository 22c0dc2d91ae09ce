"""The check that replicas agree sees one replica's changed weight."""

from __future__ import annotations

import pytest
import tensorflow as tf
from replicas_worker import Case, model_of

from lut_tf import LUT
from lut_tf.training.agreement import check_agreement


@pytest.fixture(scope="module")
def mirrored() -> tuple[tf.distribute.Strategy, LUT]:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        return strategy, model_of(Case("agreement"))


@pytest.mark.medium
def test_equal_replicas_pass(mirrored: tuple[tf.distribute.Strategy, LUT]) -> None:
    strategy, model = mirrored
    check_agreement(strategy, model, "settings", 3)
    check_agreement(tf.distribute.get_strategy(), model_of(Case("one")), "settings", 3)


@pytest.mark.medium
def test_swapped_numbers_in_one_replica_are_named(mirrored: tuple[tf.distribute.Strategy, LUT]) -> None:
    strategy, model = mirrored
    bias = next(v for v in model.variables if v.path.endswith("bias") and v.numpy().any())
    copies = bias.value.values
    whole = copies[1].numpy()
    copies[1].assign(whole[::-1])
    try:
        with pytest.raises(
            ValueError, match=rf"disagree about the weights of {bias.path}: \[1\] differ from replica 0"
        ):
            check_agreement(strategy, model, "settings", 3)
    finally:
        copies[1].assign(whole)
    check_agreement(strategy, model, "settings", 3)


@pytest.mark.slow
def test_one_replicas_nan_is_a_difference_and_the_same_nan_is_none(
    mirrored: tuple[tf.distribute.Strategy, LUT],
) -> None:
    strategy, model = mirrored
    variable = model.encoder.class_token
    whole = variable.numpy()
    variable.value.values[0].assign(whole * float("nan"))
    try:
        with pytest.raises(ValueError, match="disagree about the weights"):
            check_agreement(strategy, model, "settings", 3)
        variable.value.values[1].assign(whole * float("nan"))
        check_agreement(strategy, model, "settings", 3)
    finally:
        variable.assign(whole)
