"""Which strategy a configuration gives, and what cannot be had is refused."""

from __future__ import annotations

import pytest
import tensorflow as tf

from lut_tf.config import ComputeConfig, Config
from lut_tf.training.strategy import Host, build_strategy, distribute, this_host


@pytest.mark.parametrize("config", [Config(), Config(strategy="single"), Config(devices=1)])
def test_one_device_needs_no_strategy(config: Config) -> None:
    strategy = build_strategy(config)
    assert strategy.num_replicas_in_sync == 1
    assert not isinstance(strategy, tf.distribute.MirroredStrategy)


@pytest.mark.parametrize("name", ["auto", "mirrored"])
def test_two_devices_are_mirrored(name: str) -> None:
    strategy = build_strategy(Config(strategy=name, devices=2))
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 2
    assert this_host(strategy) == Host(0, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", tf.distribute.ReductionToOneDevice),
        ("one_device", tf.distribute.ReductionToOneDevice),
        ("hierarchical", tf.distribute.HierarchicalCopyAllReduce),
        ("nccl", tf.distribute.NcclAllReduce),
    ],
)
def test_what_sums_between_devices_can_be_chosen(name: str, expected: type) -> None:
    config = Config(strategy="mirrored", devices=2, compute=ComputeConfig(all_reduce=name))
    assert type(build_strategy(config).extended._cross_device_ops) is expected


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"devices=7 but this process has 2 CPU device\(s\): give fewer --devices"):
        build_strategy(Config(devices=7))


def test_several_hosts_need_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"does not know the hosts: give --workers .* or set TF_CONFIG"):
        build_strategy(Config(strategy="multi_worker"))


def test_one_host_takes_the_whole_data_set() -> None:
    seen: list[Host] = []

    def dataset(host: Host) -> tf.data.Dataset:
        seen.append(host)
        return tf.data.Dataset.range(3)

    assert list(distribute(build_strategy(Config()), dataset).as_numpy_iterator()) == [0, 1, 2]
    assert seen == [Host(0, 1)]
