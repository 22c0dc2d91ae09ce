"""`lut-tf doctor`: the facts of a bug report, and a replica check that fails where replicas compute otherwise."""

from __future__ import annotations

import platform

import keras
import pytest
import tensorflow as tf

from lut_tf import cli
from lut_tf.step.tensorflow_step import TensorFlowStep


@pytest.mark.slow
def test_doctor_prints_what_a_report_needs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    facts = dict(line.split(":", 1) for line in out.splitlines())
    assert facts["python"].strip() == platform.python_version()
    assert facts["keras"].strip() == keras.__version__
    assert facts["TF_CONFIG"].strip() == '{"cluster": {}}'
    assert facts["NCCL_DEBUG"].strip() == "INFO"
    assert "hidden" not in out
    assert out.splitlines()[-1].startswith("replicas: OK, 3 steps on 1 and on 2 halves of the CPU")


@pytest.mark.slow
def test_a_missing_division_by_the_replicas_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras' optimizer sums gradients over replicas; a step that forgets it is what the check is for."""
    right = TensorFlowStep._whole

    def summed(self: TensorFlowStep, gradients: list[tf.Tensor], overflow: tf.Tensor) -> list[tf.Tensor]:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return [g * replicas for g in right(self, gradients, overflow)]

    monkeypatch.setattr(TensorFlowStep, "_whole", summed)
    assert cli.main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "replicas: FAILED" in out
    assert err.startswith("lut-tf: this machine's devices do not compute alike")
