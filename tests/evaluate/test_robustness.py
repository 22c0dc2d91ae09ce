"""Each robustness set in its published layout, made small, against figures counted by hand.

Guards `lut_tf.evaluate.suite`, `lut_tf.evaluate.robustness` and `lut_tf.evaluate.class_maps`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from networks import tiny_classifier
from PIL import Image
from sklearn.metrics import average_precision_score

from lut_tf import ViTClassifier
from lut_tf.config.evaluating import SETS, EvaluateConfig
from lut_tf.data.preparing.public import import_tfds
from lut_tf.evaluate import class_maps
from lut_tf.evaluate.answers import Answers, NonFiniteLogits, likeliest
from lut_tf.evaluate.robustness import anomaly_figure, check_head, measure_set, right_within
from lut_tf.evaluate.suite import SUITE, filled, find_suite
from lut_tf.models.preprocess import normalise

SIZE = 16
IDS = class_maps.imagenet_ids()


@pytest.fixture(scope="module")
def classifier() -> ViTClassifier:
    """Of 1,000 classes, with answers that differ from image to image."""
    return tiny_classifier(1000)


class Shown:
    """Images that a classifier has answered already, so that folders can be made in which it is right or not.

    Args:
        classifier: whose input is SIZE × SIZE.
    """

    def __init__(self, classifier: ViTClassifier) -> None:
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (200, 2, 2, 3)).astype(np.uint8)
        self.pixels = coarse.repeat(SIZE // 2, axis=1).repeat(SIZE // 2, axis=2)
        self.logits = np.asarray(classifier(normalise(self.pixels)))

    def ranked(self, image: int, among: np.ndarray | None = None) -> list[int]:
        """Return the classes, the likeliest first."""
        order = np.argsort(-self.logits[image])
        return [int(n) for n in order if among is None or n in among]

    def find(self, place: int, numbers: Container[int]) -> int:
        """Return the first image whose guess at a place is one of some classes."""
        return next(image for image in range(len(self.pixels)) if self.ranked(image)[place] in numbers)

    def write(self, path: Path, image: int, border: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        red = np.full((SIZE + 2 * border, SIZE + 2 * border, 3), (255, 0, 0), np.uint8)
        red[border : border + SIZE, border : border + SIZE] = self.pixels[image]
        Image.fromarray(red).save(path)


@pytest.fixture(scope="module")
def shown(classifier: ViTClassifier) -> Shown:
    return Shown(classifier)


# Each makes a set's folder of some images and returns its figures, counted by hand.


def make_v2(shown: Shown, root: Path) -> dict[str, float]:
    """Of three images the first, third and last guess is right: folders are called by class numbers."""
    for image, place in enumerate((0, 2, 999)):
        shown.write(root / "imagenetv2-matched-frequency-format-val" / str(shown.ranked(image)[place]) / "a.png", image)
    return {"v2/top1": 1 / 3, "v2/top5": 2 / 3}


def make_sketch(shown: Shown, root: Path) -> dict[str, float]:
    for image, place in enumerate((0, 4, 5, 0)):
        shown.write(root / "sketch" / IDS[shown.ranked(image)[place]] / f"sketch_{image}.png", image)
    return {"sketch/top1": 2 / 4, "sketch/top5": 3 / 4}


def make_real(shown: Shown, root: Path) -> dict[str, float]:
    """One right by its second label, one wrong, one without labels (left out), one right; its folder says nothing."""
    labels: list[list[int]] = [[] for _ in range(6)]
    for image, place in ((0, 0), (1, 7), (3, 0)):
        labels[image + 1] = [shown.ranked(image)[500], shown.ranked(image)[place]]
    for image in range(4):
        shown.write(root / "val" / IDS[5] / f"ILSVRC2012_val_{image + 2:08d}.png", image)
    (root / "real").mkdir()
    (root / "real" / "real.json").write_text(json.dumps(labels))
    return {"real/top1": 2 / 3}


def subset_maker(letter: str) -> Callable[[Shown, Path], dict[str, float]]:
    def make(shown: Shown, root: Path) -> dict[str, float]:
        """Right among the 200 classes, though the first guess of all 1,000 is another."""
        among = class_maps.subset(letter)
        for image, place in enumerate((0, 1, 0, 0)):
            shown.write(root / f"imagenet-{letter}" / IDS[shown.ranked(image, among)[place]] / f"{image}.png", image)
        assert any(shown.ranked(image)[0] not in among for image in (0, 2, 3))
        (root / f"imagenet-{letter}" / "README.txt").write_text("of the archive")
        return {f"{letter}/top1": 3 / 4}

    return make


def make_o(shown: Shown, root: Path) -> dict[str, float]:
    """Anomalies are told from validation images of the same 200 classes; one of another class is not asked about."""
    among = class_maps.subset("o")
    other = next(number for number in range(1000) if number not in among)
    scores = []
    for image in range(7):
        logits = shown.logits[image, among].astype(np.float64)
        scores.append(-(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()).max())
        folder = root / ("o" if image < 3 else "val") / IDS[among[image]]
        shown.write(folder / f"{image}.png", image)
    shown.write(root / "val" / IDS[other] / "7.png", 7)
    return {"o/aupr": average_precision_score([1, 1, 1, 0, 0, 0, 0], scores)}


def make_objectnet(shown: Shown, root: Path) -> dict[str, float]:
    """First guess, fifth guess, wrong; a folder of several classes, one without a class, and a border to be cut off."""
    images = root / "objectnet-1.0" / "images"
    folders = {number: folder for folder, numbers in class_maps.objectnet().items() for number in numbers}
    first = shown.find(0, folders)
    later = next(image for image in range(len(shown.pixels)) if _only_at(shown.ranked(image), 4, folders))
    wrong = next(folder for number, folder in folders.items() if number not in shown.ranked(0)[:5])
    for image, folder in (
        (first, folders[shown.ranked(first)[0]]),
        (later, folders[shown.ranked(later)[4]]),
        (0, wrong),
    ):
        shown.write(images / folder / f"{image}_.png", image, border=2)
    shown.write(images / "air_freshener" / "1.png", 1, border=2)
    return {"objectnet/top1": 1 / 3, "objectnet/top5": 2 / 3}


def _only_at(ranked: list[int], place: int, folders: dict[int, str]) -> bool:
    """Tell whether the guess at `place` is of a folder that none of those before it is of."""
    folder = folders.get(ranked[place])
    return folder is not None and all(folders.get(number) != folder for number in ranked[:place])


def make_si_score(shown: Shown, root: Path) -> dict[str, float]:
    """One factor as it unpacks, one by our name; the third is not there."""
    names = {numbers[0]: name for name, numbers in class_maps.si_score().items()}
    image = shown.find(0, names)
    name = names[shown.ranked(image)[0]]
    for factor, others in (("area", 1), ("rotation", 3)):
        shown.write(root / "si_score" / factor / name / "0.png", image)
        for other in range(others):
            wrong = next(folder for number, folder in names.items() if number != shown.ranked(other)[0])
            shown.write(root / "si_score" / factor / wrong / f"{other + 1}.png", other)
    return {"si_score/size": 1 / 2, "si_score/rotation": 1 / 4}


MADE: dict[str, Callable[[Shown, Path], dict[str, float]]] = {
    "v2": make_v2,
    "real": make_real,
    "a": subset_maker("a"),
    "r": subset_maker("r"),
    "o": make_o,
    "sketch": make_sketch,
    "objectnet": make_objectnet,
    "si_score": make_si_score,
}


@pytest.mark.medium
@pytest.mark.parametrize("name", [pytest.param(s, marks=pytest.mark.medium) if s == "o" else s for s in SETS])
def test_a_set_is_scored_as_counted_by_hand(name: str, shown: Shown, classifier: ViTClassifier, tmp_path: Path) -> None:
    expected = MADE[name](shown, tmp_path)
    config = EvaluateConfig(suite=("all",), suite_path=str(tmp_path))
    found = find_suite(config)
    assert list(found) == [name]
    figures = measure_set(name, found[name], classifier).figures
    assert {figure: each.value for figure, each in figures.items()} == pytest.approx(expected, abs=1e-6)
    assert all(each.low <= each.value <= each.high for each in figures.values())


@pytest.mark.parametrize(
    ("folder", "guesses", "right"),
    [
        ("bicycle", [444], True),
        ("bicycle", [671], True),
        ("bicycle", [443], False),
        ("helmet", [1, 2, 3, 4, 518], True),
        ("banana", [953, 955], False),
    ],
)
def test_an_object_of_several_classes_is_right_by_any_of_them(folder: str, guesses: list[int], right: bool) -> None:
    classes = filled([class_maps.objectnet()[folder], ()])
    assert right_within(np.array([guesses, guesses]), classes, 5).tolist() == [right, False]


def test_folders_called_by_class_numbers_are_not_sorted_as_words(shown: Shown, tmp_path: Path) -> None:
    for image, folder in enumerate(("10", "2", "0", "999")):
        shown.write(tmp_path / "v2" / folder / f"{image}.png", image)
    (listed,) = find_suite(EvaluateConfig(suite=("v2",), suite_path=str(tmp_path)))["v2"].values()
    assert listed.right is not None and listed.right[:, 0].tolist() == [0, 10, 2, 999]  # "10" sorts before "2"


def test_class_maps_are_the_published_ones() -> None:
    """Counts, and the first classes as their authors' code lists them."""
    assert len(IDS) == 1000 and list(IDS) == sorted(IDS)
    assert (IDS[0], class_maps.imagenet_names()[0]) == ("n01440764", "tench, Tinca tinca")
    first = {"a": [6, 11, 13, 15, 17], "r": [1, 2, 4, 6, 8], "o": [1, 51, 70, 79, 89]}
    for letter, numbers in first.items():
        assert class_maps.subset(letter)[:5].tolist() == numbers and len(class_maps.subset(letter)) == 200
    objects = class_maps.objectnet()
    assert len(objects) == 113 and sum(map(len, objects.values())) == 125
    assert (objects["alarm_clock"], objects["chair"]) == ((409, 530), (423, 559, 765))
    assert (class_maps.si_score()["koala"], class_maps.si_score()["microwave oven"]) == ((105,), (651,))
    assert set(SUITE) == set(SETS)


@pytest.mark.medium
def test_aupr_is_the_average_precision_of_doubt_with_an_interval_around_it() -> None:
    random = np.random.default_rng(0)
    known, odd = random.uniform(0.4, 1, (300, 1)), random.uniform(0.1, 0.8, (60, 1))
    told = [Answers(np.zeros((len(p), 1), int), p.astype("float32"), np.arange(len(p)) != 5) for p in (odd, known)]
    figure = anomaly_figure(*told)
    scores = [-np.delete(p[:, 0], 5) for p in (odd, known)]  # the unreadable image is left out
    expected = average_precision_score([1] * 59 + [0] * 299, np.concatenate(scores).astype("float32"))
    assert figure.value == pytest.approx(expected, abs=1e-9) and figure.count == 358
    assert 0.5 < figure.low < figure.value < figure.high < 1


def test_answers_are_the_likeliest_of_the_classes_asked_about() -> None:
    logits = np.log(np.array([[0.5, 0.1, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4]], np.float32))
    best, shares = likeliest(logits)
    assert best.tolist() == [[0, 2, 3, 1], [3, 2, 1, 0]] and shares[0] == pytest.approx([0.5, 0.2, 0.2, 0.1], abs=1e-6)
    best, shares = likeliest(logits, np.array([1, 2]))
    assert best.tolist() == [[2, 1], [2, 1]] and shares == pytest.approx(
        np.array([[2, 1], [3, 2]]) / [[3], [5]], abs=1e-6
    )


def test_a_damaged_image_is_not_counted(shown: Shown, classifier: ViTClassifier, tmp_path: Path) -> None:
    """Another is shown in its place, of which nothing is to be said here."""
    folder = tmp_path / "sketch" / IDS[shown.ranked(0)[0]]
    for image in range(3):
        shown.write(folder / f"{image}.png", 0)
    (folder / "3.png").write_bytes(b"no image")
    found = find_suite(EvaluateConfig(suite=("sketch",), suite_path=str(tmp_path)))["sketch"]
    measured = measure_set("sketch", found, classifier, damaged_share=0.5)
    assert measured.unreadable == 1
    assert (measured.figures["sketch/top1"].value, measured.figures["sketch/top1"].count) == (1.0, 3)


def test_an_image_with_logits_that_are_not_finite_is_named(shown: Shown, tmp_path: Path) -> None:
    broken = tiny_classifier(1000)
    kernel, bias = broken.head.get_weights()
    broken.head.set_weights([kernel * np.nan, bias])
    shown.write(tmp_path / "sketch" / IDS[0] / "a.png", 0)
    found = find_suite(EvaluateConfig(suite=("sketch",), suite_path=str(tmp_path)))["sketch"]
    with pytest.raises(NonFiniteLogits, match=r"logits of .*a\.png are not finite: leave the image out"):
        measure_set("sketch", found, broken)


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (None, True),
        (list(IDS), True),
        (list(class_maps.imagenet_names()), True),
        ([name.partition(",")[0].replace(" ", "_") for name in class_maps.imagenet_names()], True),
        (list(reversed(IDS)), False),
        ([f"class {number}" for number in range(1000)], False),
    ],
)
def test_a_head_of_other_classes_is_refused(names: list[str] | None, fits: bool) -> None:
    classifier = tiny_classifier(1000, names)
    if fits:
        check_head(classifier, "CLASSIFIER='x'")
    else:
        with pytest.raises(ValueError, match=r"CLASSIFIER='x' calls its class 0 .*, and ImageNet's is n01440764"):
            check_head(classifier, "CLASSIFIER='x'")


def prepared(name: str, folder: Path, split: str, examples: list[dict[str, Any]]) -> None:
    """Prepare a data set of tensorflow-datasets by its own features, without its download."""
    builder = import_tfds().builder(name, data_dir=str(folder))
    builder._split_generators = lambda _: {split: ((str(i), example) for i, example in enumerate(examples))}
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(folder)))


@pytest.mark.medium
@pytest.mark.parametrize("name", ["v2", "real", "a", "o", "si_score"])
def test_prepared_data_sets_give_the_figures_of_folders(
    name: str, shown: Shown, classifier: ViTClassifier, tmp_path: Path
) -> None:
    def example(image: int, **labels: Any) -> dict[str, Any]:
        path = tmp_path / "pixels" / f"{image}.png"  # by itself it would become a JPEG, and another image
        shown.write(path, image)
        return {"image": str(path), **labels}

    def ranked(image: int, letter: str = "") -> list[int]:
        return shown.ranked(image, class_maps.subset(letter) if letter else None)

    if name == "v2":
        rows = [example(i, label=ranked(i)[place], file_name=str(i)) for i, place in enumerate((0, 3, 900))]
        prepared("imagenet_v2/matched-frequency", tmp_path, "test", rows)
        expected = {"v2/top1": 1 / 3, "v2/top5": 2 / 3}
    elif name == "real":
        labels = [[ranked(0)[9], ranked(0)[0]], [ranked(1)[1]], []]
        rows = [example(i, original_label=7, real_label=own, file_name=str(i)) for i, own in enumerate(labels)]
        prepared("imagenet2012_real", tmp_path, "validation", rows)
        expected = {"real/top1": 1 / 2}
    elif name == "a":
        rows = [example(i, label=ranked(i, "a")[place], file_name=str(i)) for i, place in enumerate((0, 1, 0))]
        prepared("imagenet_a", tmp_path, "test", rows)
        expected = {"a/top1": 2 / 3}
    elif name == "o":
        expected = make_o(shown, tmp_path)
        among = class_maps.subset("o")
        rows = [example(i, label=int(among[i]), file_name=str(i)) for i in range(3, 7)]
        rows.append(example(7, label=next(n for n in range(1000) if n not in among), file_name="7"))
        shutil.rmtree(tmp_path / "val")
        prepared("imagenet2012", tmp_path, "validation", rows)
    else:
        rows = [example(i, image_id=i, label=ranked(i)[place], dataset_label=0) for i, place in enumerate((0, 5, 9, 0))]
        prepared("siscore/location", tmp_path, "test", rows)
        expected = {"si_score/location": 2 / 4}
    found = find_suite(EvaluateConfig(suite=(name,), suite_path=str(tmp_path)))
    figures = measure_set(name, found[name], classifier).figures
    assert {figure: each.value for figure, each in figures.items()} == pytest.approx(expected, abs=1e-6)
