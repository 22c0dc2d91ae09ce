"""Guards `data.holdout`: which images are held out, that parts stay apart, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import read, shown, write_files, write_records

from lut_tf.config import Config, DataConfig, may_differ
from lut_tf.data import ArraySource, list_data, open_sources
from lut_tf.data.reading.holdout import held_number, held_out
from lut_tf.data.reading.sources import Chosen, ImageFolder

CLASSES = {
    "equal": [10, 10, 10],
    "long tail": [40, 9, 3, 2, 1, 1],
    "shares that are halves": [5, 5, 5, 5],
    "two each": [2, 2, 2, 2, 2],
    "some unknown": [-3, 7, 4],
}


def labels_of(counts: list[int]) -> np.ndarray:
    """Class numbers among each other; a count below zero is of images whose class is not known."""
    each = [np.full(abs(count), -1 if count < 0 else number) for number, count in enumerate(counts)]
    return np.random.default_rng(0).permutation(np.concatenate(each)).astype(np.int32)


def nearest(counts: list[int], share: float, total: int) -> float:
    """The least sum of squared distances from every class' share, over all ways of holding out `total` images."""
    ways = itertools.product(*(range(max(count, 1)) for count in counts))
    fitting = [way for way in ways if sum(way) == total]
    return min(sum((k - share * max(n, 0)) ** 2 for k, n in zip(way, counts, strict=True)) for way in fitting)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("case", CLASSES)
def test_of_every_class_its_share_is_held_out(case: str, share: float) -> None:
    counts, labels = CLASSES[case], labels_of(CLASSES[case])
    if (case, share) == ("two each", 0.5):  # the most that there is: one stays of each
        assert np.bincount(labels[held_out(labels, share)]).tolist() == [1] * 5
    held = held_out(labels, share)
    assert held.sum() == held_number(len(labels), share) == int(len(labels) * share + 0.5)
    taken = [int(held[labels == number].sum()) for number in range(len(counts))]
    assert sum(taken) == held.sum()  # none of those whose class is not known
    assert all(k < max(n, 1) for k, n in zip(taken, counts, strict=True))  # every class is trained on
    distance = sum((k - share * max(n, 0)) ** 2 for k, n in zip(taken, counts, strict=True))
    assert distance == pytest.approx(nearest(counts, share, int(held.sum())))


@pytest.mark.parametrize(
    ("counts", "share", "known"),
    [
        ([10, 10, 10], 0.1, [2, 13, 22]),
        ([40, 9, 3, 2, 1, 1], 0.1, [4, 28, 30, 33, 41, 50]),
        ([5, 5, 5, 5], 0.3, [0, 6, 11, 13, 17, 19]),
    ],
)
def test_the_same_images_are_held_out_for_ever(counts: list[int], share: float, known: list[int]) -> None:
    """A run that goes on with a later version must train on what it has trained on."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    assert np.flatnonzero(held_out(labels, share)).tolist() == known


@pytest.fixture
def data(tmp_path: Path) -> dict[str, DataConfig]:
    """Fifteen images of three classes from each source, number n of class n % 3."""
    write_files(tmp_path / "folder", *(f"class{number % 3}/{number:02}.png" for number in range(15)))
    write_records(tmp_path / "records", range(15))
    return {
        "image_folder": DataConfig("image_folder", str(tmp_path / "folder"), holdout=0.2),
        "tfrecord": DataConfig("tfrecord", str(tmp_path / "records"), label_feature="label", holdout=0.2),
    }


@pytest.mark.medium
@pytest.mark.parametrize("source", ["image_folder", "tfrecord"])
def test_parts_are_disjoint_and_complete_and_counted_before(source: str, data: dict[str, DataConfig]) -> None:
    listing = list_data(data[source])
    parts = open_sources(data[source], listing)
    assert parts.validation is not None and parts.heldout is None and parts.final is parts.validation
    assert (listing.images, listing.evaluation_images) == (len(parts.train), len(parts.validation)) == (12, 3)
    trained, held = shown(parts.train), shown(parts.validation)
    assert sorted(trained + held) == list(range(15))
    for numbers, part in ((trained, parts.train), (held, parts.validation)):
        assert part.labels is not None and [number % 3 for number in numbers] == part.labels.tolist()
    assert sorted(number % 3 for number in held) == [0, 1, 2]
    assert parts.name(parts.validation) == "held-out" and listing.why_no_probes == ""


@pytest.mark.medium
def test_evaluation_images_beside_it_change_nothing_of_the_training(data: dict[str, DataConfig]) -> None:
    """Settings are then chosen on the held-out images, and results reported on the evaluation images."""
    alone = data["image_folder"]
    both = replace(alone, evaluation_path=alone.path)
    listings, parts = [list_data(each) for each in (alone, both)], [open_sources(each) for each in (alone, both)]
    assert listings[0].digest == listings[1].digest
    assert listings[0].evaluation_digest != listings[1].evaluation_digest
    assert [listing.evaluates_training for listing in listings] == [False, True]
    assert [listing.evaluation_images for listing in listings] == [3, 3]

    assert shown(parts[0].train) == shown(parts[1].train)  # batches are a function of these and of the step
    assert parts[1].validation is not None and parts[0].validation is not None and parts[1].heldout is not None
    assert shown(parts[0].validation) == shown(parts[1].validation)
    assert parts[1].final is parts[1].heldout and sorted(shown(parts[1].heldout)) == list(range(15))
    assert [parts[1].name(part) for part in parts[1][1:]] == ["validation", "evaluation"]


@pytest.mark.parametrize("shares", [(0.2, 0.3), (0.0, 0.2)])
def test_other_shares_are_other_images(shares: tuple[float, float], data: dict[str, DataConfig]) -> None:
    one, other = (list_data(replace(data["image_folder"], holdout=share)) for share in shares)
    assert one.digest != other.digest and one.evaluation_digest != other.evaluation_digest
    again = list_data(replace(data["image_folder"], holdout=shares[0]))
    assert (one.digest, one.evaluation_digest) == (again.digest, again.evaluation_digest)


def test_hosts_must_hold_out_the_same() -> None:
    """As any setting that decides what is learned, it is compared by the hosts, and when a run goes on."""
    one, other = (Config(data=DataConfig("image_folder", "photos", holdout=share)) for share in (0.2, 0.3))
    assert one.identity() != other.identity() and not may_differ("data.holdout")


def mended(number: int, part: list[int], labels: list[int], damaged: set[int]) -> int:
    """The next readable image of the same class in the same part, round from there."""
    same = [other for other in part if labels[other] == labels[number]]
    at = same.index(number)
    return next(other for other in same[at:] + same[:at] if other not in damaged)


@pytest.mark.medium
@pytest.mark.parametrize("source", ["image_folder", "tfrecord"])
def test_damage_brings_no_image_into_another_part(source: str, tmp_path: Path) -> None:
    """Every other image is damaged; 30 of two classes, a third held out."""
    damaged = set(range(0, 30, 2))
    labels = [number // 2 % 2 for number in range(30)]
    if source == "image_folder":
        write_files(tmp_path / "images", *(f"class{labels[number]}/{number:02}.png" for number in range(30)))
        for number in damaged:
            (tmp_path / "images" / f"class{labels[number]}" / f"{number:02}.png").write_bytes(b"torn")
        path, share = tmp_path / "images", 0.4
        numbers = sorted(range(30), key=lambda number: (labels[number], number))
        data = DataConfig("image_folder", str(path), holdout=share, damaged_share=1.0)
    else:
        labels = [number % 3 for number in range(30)]
        write_records(tmp_path / "records", range(30))
        content, size = bytearray((tmp_path / "records").read_bytes()), 0
        for number in range(30):
            length = int.from_bytes(content[size : size + 8], "little")
            if number in damaged:
                content[size + 12 + length] ^= 255  # the checksum of its data
            size += length + 16
        (tmp_path / "records").write_bytes(content)
        numbers = list(range(30))
        data = DataConfig("tfrecord", str(tmp_path / "records"), label_feature="label", holdout=0.4, damaged_share=1.0)
    parts = open_sources(data)
    assert parts.validation is not None
    held = held_out(np.array([labels[number] for number in numbers], np.int32), 0.4)
    for part, chosen in ((parts.train, ~held), (parts.validation, held)):
        own = [number for number, one in zip(numbers, chosen, strict=True) if one]
        assert shown(part) == [mended(number, own, labels, damaged) for number in own]
        assert len(part) == len(own)


@pytest.mark.medium
def test_both_parts_count_damage_together(tmp_path: Path) -> None:
    write_files(tmp_path, *(f"{number}.png" for number in range(4)))
    (tmp_path / "1.png").write_bytes(b"")
    whole = ImageFolder(tmp_path, damaged_share=0.5)
    parts = [Chosen(whole, np.array(indices)) for indices in ([0, 1], [3, 2])]
    assert [shown(part) for part in parts] == [[0, 0], [3, 2]] and shown(whole) == [0, 2, 2, 3]
    assert all(part.damage is whole.damage for part in parts) and whole.damage.counts == {"empty": 1}
    half = Chosen(Chosen(whole, np.arange(4)), np.array([1, 3]))  # a part of a part
    assert shown(half) == [3, 3] and half.name_of(0) == str(tmp_path / "1.png")


def test_some_images_of_an_array_are_a_source() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((2, 2), np.uint8)
    some = Chosen(
        Chosen(ArraySource(images, np.arange(5, dtype=np.int32), list("abcde")), np.array([4, 2, 0])), np.array([2, 0])
    )
    assert shown(some) == [0, 4] and some.labels is not None and some.labels.tolist() == [0, 4]
    assert some.classes == list("abcde") and len(some) == 2 and read(some, 1)[0].shape == (2, 2, 3)


FILES = {
    "flat": ["1.png", "2.png"],
    "one class": [f"a/{number}.png" for number in range(10)],
    "single images": ["a/1.png", "b/1.png", "c/1.png", "d/1.png"],
    "classes": [f"{name}/{number}.png" for name in "ab" for number in range(10)],
}
REFUSED = [
    (DataConfig(holdout=0.1), r"data\.holdout=0\.1 is not read by data\.source=digits: give .*leave data\.holdout out"),
    (DataConfig("image_folder", "classes", holdout=1.0), r"data\.holdout=1 is out of range: give .* under 1"),
    (DataConfig("image_folder", "classes", holdout=-0.1), r"data\.holdout=-0\.1 is out of range"),
    (DataConfig("image_folder", "classes", holdout=0.02), r"0\.02 holds out none of the 20 .*: give a larger share"),
    (DataConfig("image_folder", "classes", holdout=0.99), r"0\.99 holds out all the 20 .*: give a smaller share"),
    (DataConfig("image_folder", "classes", holdout=0.95), r"keeps one to train on: give 0\.9 or less"),
    (DataConfig("image_folder", "flat", holdout=0.5), r"data\.holdout=0\.5 is for labelled .* is flat: sort it into"),
    (DataConfig("image_folder", "one class", holdout=0.1), r"of 1 class: leave data\.holdout out"),
    (DataConfig("image_folder", "single images", holdout=0.3), r"asks for 1 of 4 .*: leave data\.holdout out"),
    (DataConfig("tfrecord", "records", holdout=0.1), r"is read without labels: give data\.label_feature"),
]


@pytest.mark.parametrize(("data", "named"), REFUSED)
def test_what_cannot_be_held_out_is_refused_before(
    data: DataConfig, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, names in FILES.items():
        write_files(tmp_path / folder, *names)
    write_records(tmp_path / "records", range(10))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=named) as refused:
        list_data(data)
    assert "\n" not in str(refused.value)
