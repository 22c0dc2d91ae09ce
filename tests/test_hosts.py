"""One device, several replicas and several hosts are one and the same run: processes on loopback, real sockets."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import tiny_encoder
from replicas_worker import Case, train
from runs import ROOT, checkpointed, command, learned_lines, lines, small, start_words

from lut_tf.config import Config
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.strategy import build_strategy

LIMIT = 900  # seconds that processes may take on a busy machine


def workers(count: int = 2) -> str:
    """Addresses with ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    for one in sockets:
        one.close()
    return addresses


def finish(processes: list[subprocess.Popen[str]], expected: int = 0) -> list[str]:
    """Wait for all, check their statuses, and return what they printed."""
    try:
        outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [expected] * len(processes), outputs
    return outputs


SCRIPT = [sys.executable, str(ROOT / "tests" / "replicas_worker.py")]
CLIP = 0.1
ALL: dict[str, Any] = {"accumulate": 2, "clip_norm": CLIP, "max_bad_steps": 1}
HERE = [
    {"name": "sgd1"},
    {"name": "sgd2", "replicas": 2},
    {"name": "sgd4", "replicas": 4},
    {"name": "xla2", "replicas": 2, "jit_compile": True},
    {"name": "clipped2", "replicas": 2, "clip_norm": CLIP},
    {"name": "accumulated1", "accumulate": 2},
    {"name": "accumulated2", "replicas": 2, "accumulate": 2},
    {"name": "plain1", "norm": "layer"},
    {"name": "plain2", "replicas": 2, "norm": "layer", "accumulate": 4},
    {"name": "adamw1", "optimizer": "adamw"},
    {"name": "adamw4", "optimizer": "adamw", "replicas": 4},
]
THERE = [
    {"name": "sgd_hosts"},
    {"name": "accumulated_hosts", "accumulate": 2, "jit_compile": True, "max_bad_steps": 1},
    {"name": "clipped_hosts", "clip_norm": CLIP},
    {"name": "adamw_hosts", "optimizer": "adamw"},
]


def train_on_hosts(folder: Path, cases: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays of every case, by `case/array`, trained by two processes; both hold the same, bit for bit."""
    addresses = workers()
    options = [["--workers", addresses, "--index", str(i)] for i in (0, 1)]
    finish([start_words([*SCRIPT, str(folder / f"{o[-1]}.npz"), json.dumps(cases), *o]) for o in options])
    one, other = (dict(np.load(folder / f"{i}.npz")) for i in (0, 1))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    return one


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Micro-batches, clipping and skipping at once: on two hosts, and here on one device; and micro-batches alone."""
    arrays = train_on_hosts(tmp_path_factory.mktemp("trained"), [{"name": "all_hosts", **ALL}])
    for case in (Case("all1", **ALL), Case("accumulated1", accumulate=2)):
        arrays |= {f"{case.name}/{name}": value for name, value in train(case, build_strategy(Config())).items()}
    return arrays


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Each by itself, over more devices and hosts; one more process has four devices."""
    folder = tmp_path_factory.mktemp("more")
    finish([start_words([*SCRIPT, str(folder / "here.npz"), json.dumps(HERE)])])
    return train_on_hosts(folder, THERE) | dict(np.load(folder / "here.npz"))


def learned(name: str, array: np.ndarray) -> np.ndarray:
    """Leave out the attention's bias of the keys.

    Softmax does not see it, so its gradient is zero but for rounding, and AdamW makes whole steps of any rounding.
    """
    keys = array.size // 3
    kept = np.delete(array, range(keys, 2 * keys)) if "qkv" in name and "bias" in name else array
    return kept.astype("float64")


def of(trained: dict[str, np.ndarray], case: str) -> dict[str, np.ndarray]:
    return {name.split("/", 1)[1]: array for name, array in trained.items() if name.startswith(f"{case}/")}


def assert_the_same(trained: dict[str, np.ndarray], one: str, other: str, tolerance: float) -> None:
    """Losses of each step, the first step's gradients, and student, teacher and statistics after ten, each relative.

    An array's difference is measured by its norm against the array's; see `learned` for what is left out. Parts equal
    the whole (`plain`) where no BatchNorm is.
    """
    expected, found = of(trained, one), of(trained, other)
    assert expected.keys() == found.keys()
    assert sum("moving_variance" in name for name in expected) == (0 if one == "plain1" else 3)
    assert any("teacher_encoder" in name for name in expected)
    gradients = sum(name.startswith("gradient") for name in expected)
    assert gradients == (0 if one == "adamw1" else 44)  # one for each weight
    np.testing.assert_allclose(expected["losses"], found["losses"], rtol=tolerance)
    for name in expected:
        a, b = learned(name, expected[name]), learned(name, found[name])
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(a), name


@pytest.mark.slow
def test_ten_steps_on_two_hosts_are_the_same(trained: dict[str, np.ndarray]) -> None:
    assert_the_same(trained, "all1", "all_hosts", 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        ("sgd1", "sgd2", 1e-5),
        ("sgd1", "sgd4", 1e-5),
        ("sgd1", "sgd_hosts", 1e-5),
        ("sgd1", "xla2", 1e-5),
        ("accumulated1", "accumulated2", 1e-5),
        ("accumulated1", "accumulated_hosts", 1e-5),
        ("plain1", "plain2", 1e-5),
        ("adamw1", "adamw4", 1e-4),
        ("adamw1", "adamw_hosts", 1e-4),
    ],
)
def test_ten_steps_are_the_same(more: dict[str, np.ndarray], one: str, other: str, tolerance: float) -> None:
    assert_the_same(more, one, other, tolerance)


def assert_clipped(trained: dict[str, np.ndarray], one: str, other: str) -> None:
    """The global norm over all replicas, not each replica's: the first step is g · limit / |g| to 1e-5."""
    step = {name: array for name, array in of(trained, one).items() if name.startswith("gradient")}
    rate = 0.05  # SGD's first momentum is −rate · g
    norm = np.sqrt(sum(np.sum(np.square(array.astype("float64"))) for array in step.values())) / rate
    assert norm > 2 * CLIP
    clipped = of(trained, other)
    for name, array in step.items():
        a, b = learned(name, array) * CLIP / norm, learned(name, clipped[name])
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a), name


@pytest.mark.slow
def test_the_whole_gradient_of_hosts_is_clipped(trained: dict[str, np.ndarray]) -> None:
    assert_clipped(trained, "accumulated1", "all_hosts")


@pytest.mark.slow
@pytest.mark.parametrize("other", ["clipped2", "clipped_hosts"])
def test_the_whole_gradient_is_clipped_without_micro_batches_too(more: dict[str, np.ndarray], other: str) -> None:
    assert_clipped(more, "sgd1", other)


@pytest.mark.slow
def test_accumulated_parts_have_batch_norm_statistics_of_their_own(more: dict[str, np.ndarray]) -> None:
    assert np.abs(more["sgd1/losses"] - more["accumulated1/losses"]).max() > 1e-3


SETTINGS: dict[str, Any] = {"epochs": 4, "probe__every": 0, "checkpoint__every_steps": 3, "logging__tensorboard": False}


def start_hosts(run_dirs: list[Path], **settings: Any) -> list[subprocess.Popen[str]]:
    addresses = workers(len(run_dirs))
    several = {"strategy": "multi_worker", "workers": addresses}
    words = [command(run_dir, **SETTINGS, **several, worker_index=i, **settings) for i, run_dir in enumerate(run_dirs)]
    return [start_words(one) for one in words]


def await_new_checkpoint(run_dir: Path, processes: list[subprocess.Popen[str]]) -> None:
    before, deadline = max(checkpointed(run_dir), default=0), time.monotonic() + LIMIT
    while max(checkpointed(run_dir), default=0) <= before:
        assert time.monotonic() < deadline, "no checkpoint came"
        assert [process.poll() for process in processes] == [None] * len(processes), finish(processes)
        time.sleep(0.01)


def stop_one_of_two(run_dir: Path) -> int:
    """Start two hosts, send one of them SIGTERM, check that both stop and save the same step, and return it."""
    hosts = start_hosts([run_dir, run_dir])
    await_new_checkpoint(run_dir, hosts)
    hosts[1].send_signal(signal.SIGTERM)
    outputs = finish(hosts, expected=143)
    step = checkpointed(run_dir)[-1]
    assert f"stopped by another host, or a callback after step {step}, which is saved" in outputs[0]
    assert f"stopped by SIGTERM after step {step}, which is saved" in outputs[1]
    return step


@pytest.mark.slow
def test_a_signal_to_one_host_stops_and_saves_both(tmp_path: Path) -> None:
    assert stop_one_of_two(tmp_path / "run")


@pytest.mark.slow
def test_two_hosts_are_stopped_lose_one_another_and_one_host_ends_the_run(tmp_path: Path) -> None:
    """SIGTERM to one host stops and saves both; SIGKILL of one stops the other; one device goes on.

    The end is that of a run on one device which nobody stopped, to AdamW's tolerance.
    """
    run_dir = tmp_path / "run"
    step = stop_one_of_two(run_dir)
    hosts = start_hosts([run_dir, run_dir])
    await_new_checkpoint(run_dir, hosts)
    hosts[1].kill()
    killed = time.monotonic()
    output = hosts[0].communicate(timeout=LIMIT)[0]
    print(f"the other host stopped {time.monotonic() - killed:.1f} s after the SIGKILL")
    finish(hosts[1:], expected=-signal.SIGKILL)
    assert hosts[0].returncode == 1, output
    assert output.splitlines()[-1].startswith("lut-tf: worker 0 lost contact with another of the 2 workers: start all")
    assert f"going on after step {step} of 36" in output

    pretrain(small(run_dir, **SETTINGS))
    pretrain(small(tmp_path / "whole", **SETTINGS))
    for expected, found in zip(learned_lines(tmp_path / "whole"), learned_lines(run_dir), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_hosts_that_disagree_are_refused(tmp_path: Path) -> None:
    """Directories that they do not share, and with them other settings: status 2 and one line from each."""
    for output in finish(start_hosts([tmp_path / "a", tmp_path / "b"]), expected=2):
        last = output.splitlines()[-1]
        assert last.startswith("lut-tf: error: replicas disagree about the settings: [1] differ from replica 0")
        assert "a run_dir that all hosts share" in last
    assert not (tmp_path / "a" / "metrics.jsonl").exists() or not lines(tmp_path / "a")


WITHOUT_MIXING = ["--views.mixup", "0", "--views.cutmix", "0", "--classifier.ema", "0.9"]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "more"), [("finetune", WITHOUT_MIXING), ("probe", [])])
def test_two_hosts_fine_tune_and_probe_as_one_does(verb: str, more: list[str], tmp_path: Path) -> None:
    """RandAugment, drop path and an average of the weights too; each host mixes its own images, so without that."""
    tiny_encoder().save(tmp_path / "encoder.keras")
    words = [sys.executable, "-m", "lut_tf.cli", verb, str(tmp_path / "encoder.keras"), *more]
    words += ["--epochs", "2", "--optimizer.batch_size", "256", "--optimizer.warmup_epochs", "1"]
    several = ["--run_dir", str(tmp_path / "two"), "--strategy", "multi_worker", "--workers", workers()]
    finish([start_words([*words, "--run_dir", str(tmp_path / "one")])])
    finish([start_words([*words, *several, "--worker_index", str(index)]) for index in (0, 1)])
    one, two = (lines(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 2
    for here, there in zip(one, two, strict=True):
        np.testing.assert_allclose(there["loss"], here["loss"], rtol=1e-4)
