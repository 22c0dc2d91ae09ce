"""`lut-tf evaluate` and `lut-tf predict` as they are called, against answers taken from the classifier itself.

Guards `lut_tf.tasks.evaluate`, `lut_tf.tasks.predict`, `lut_tf.interop.classifier_sources` and both verbs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_helpers import encoded, turned
from networks import tiny_classifier, tiny_encoder
from PIL import Image

from lut_tf import ViTClassifier, cli
from lut_tf.config import DataConfig
from lut_tf.data.reading.listing import list_data
from lut_tf.data.reading.sources import digits
from lut_tf.data.views.crops import evaluation_view
from lut_tf.evaluate.class_maps import imagenet_ids
from lut_tf.evaluate.results import read_result
from lut_tf.interop.sources import checksum
from lut_tf.models.preprocess import normalise
from lut_tf.tasks.predict import titles

SIZE = 16
NAMES = ["ape", "bee", "cow"]


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of classifiers: of the digits' ten classes, of three with names, of ImageNet's; and an encoder."""
    folder = tmp_path_factory.mktemp("classifiers")
    tiny_classifier(10).save(folder / "ten.keras")
    tiny_classifier(3, NAMES).save(folder / "three.keras")
    tiny_classifier(1000).save(folder / "imagenet.keras")
    tiny_encoder().save(folder / "encoder.keras")
    return folder


def colours(count: int, seed: int = 0) -> np.ndarray:
    """Images (N, SIZE, SIZE, 3) of four colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3)).astype(np.uint8)
    return coarse.repeat(SIZE // 2, axis=1).repeat(SIZE // 2, axis=2)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def logits(classifier: ViTClassifier, images: np.ndarray) -> np.ndarray:
    return np.asarray(classifier(normalise(images)))


def only_result(folder: Path) -> Any:
    (path,) = (folder / "results").glob("*.json")
    return read_result(path)


@pytest.mark.medium
def test_evaluate_scores_the_digits_nobody_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = tiny_classifier(10)
    classifier.save(tmp_path / "ten.keras")
    assert cli.main(["evaluate", str(tmp_path / "ten.keras"), "--data.source", "digits"]) == 0
    source, result, out = digits("heldout"), only_result(tmp_path), capsys.readouterr().out
    images = np.stack([evaluation_view(source.image(i), SIZE).numpy() for i in range(300)])
    order = np.argsort(-logits(classifier, images), axis=1)
    hits = order == source.labels[:, None]
    assert result.figures["top1"].value == pytest.approx(hits[:, 0].mean())
    assert result.figures["top5"].value == pytest.approx(hits[:, :5].any(axis=1).mean())
    assert (result.data["images"], result.data["part"], result.model["kind"]) == (
        300,
        "300 held-out images",
        "classifier",
    )
    right, count = result.details["classes"]["3"]
    assert (right, count) == (int(hits[source.labels == 3, 0].sum()), 30)
    assert "top-1" in out and "result: " in out and out.count("\n") > 12


@pytest.mark.medium
def test_images_of_some_classes_are_matched_by_name(tmp_path: Path) -> None:
    """The folder lacks the first class, so its own numbers are not the classifier's."""
    classifier, images = tiny_classifier(3, NAMES), colours(40)
    classifier.save(tmp_path / "three.keras")
    best = logits(classifier, images).argmax(axis=1)
    for image, (pixels, number) in enumerate(zip(images, best, strict=True)):
        write(tmp_path / "photos" / NAMES[max(number, 1)] / f"{image}.png", pixels)
    words = ["evaluate", str(tmp_path / "three.keras"), "--data.source", "image_folder"]
    assert cli.main([*words, "--data.path", str(tmp_path / "photos")]) == 0
    result = only_result(tmp_path)
    assert result.figures["top1"].value == pytest.approx((best > 0).mean()) and 0 < (best > 0).mean() < 1
    assert (result.data["part"], list(result.details["classes"])) == (f"{result.data['images']} images", NAMES)


@pytest.mark.medium
def test_a_suite_is_one_table_and_one_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier, images, ids = tiny_classifier(1000), colours(3), imagenet_ids()
    classifier.save(tmp_path / "imagenet.keras")
    best = logits(classifier, images).argmax(axis=1)
    write(tmp_path / "suite" / "v2" / str(best[0]) / "a.png", images[0])
    write(tmp_path / "suite" / "sketch" / ids[best[1]] / "a.png", images[1])
    write(tmp_path / "suite" / "sketch" / ids[best[1] - 1] / "a.png", images[2])
    words = ["evaluate", str(tmp_path / "imagenet.keras"), "--suite", "all", "--suite_path", str(tmp_path / "suite")]
    assert cli.main(words) == 0
    out, result = capsys.readouterr().out, only_result(tmp_path)
    assert {name: figure.value for name, figure in result.figures.items() if "top1" in name} == {
        "v2/top1": 1.0,
        "sketch/top1": 0.5,
    }
    assert "ImageNet-V2" in out and "ImageNet-Sketch" in out and "50.0 [" in out
    assert result.settings == {"suite": ["v2", "sketch"]} and set(result.data["digests"]) == {"v2", "sketch"}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lut-tf: error: ") and err.count("\n") == 1
    return err


# Words after `evaluate` (C: the classifiers, T: bad sets); what the line says of mistake and remedy.
BAD = [
    ("C/imagenet.keras --suite v2,b", "suite=v2,b has no known set 'b'", "give some of v2, real"),
    ("C/imagenet.keras --suite scetch", "no known set 'scetch', did you mean sketch?", "give some of"),
    ("C/ten.keras --suite sketch --suite_path T/good", "C/ten.keras' tells 10 classes apart", "ImageNet's 1000"),
    ("C/imagenet.keras --suite v2 --suite_path T/good", "lacks the sub-folder v2 or imagenetv2", "leave v2 out"),
    ("C/imagenet.keras --suite real --suite_path T/good", "lacks the sub-folder val", "docs/evaluation.md"),
    ("C/imagenet.keras --suite all --suite_path T/none", "is not a folder", "give the one that holds"),
    ("C/imagenet.keras --suite all --suite_path T", "none of the sets is in suite_path", "in a sub-folder of its name"),
    ("C/imagenet.keras --suite a --suite_path T/good", "holds the folder 'n01440764'", "no class of this set"),
    ("C/imagenet.keras --suite r --suite_path T/good", "is flat", "sort its images into class folders"),
    ("C/imagenet.keras --suite real --suite_path T/bad", "holds no ReaL labels", "as it is published"),
    ("C/imagenet.keras --suite_path T/good", "is for a suite", "give --suite all too"),
    ("C/imagenet.keras --suite a --data.source tfds --data.name x", "data.source=tfds is not read", "leave"),
    ("C/imagenet.keras --suite a --suite_path gs://b/c", "is not on this machine", "local or mounted"),
    ("C/ten.keras", "does not say what to measure it on", "--suite all"),
    ("C/none.keras --data.source digits", "does not exist", "a fine-tuning run's directory"),
    ("C/encoder.keras --data.source digits", "holds a ViTEncoder, and a classifier is wanted", "lut-tf finetune"),
    ("C/three.keras --data.source digits", "10 of 10 classes (0, 1,", "give images of its classes"),
    ("C/ten.keras --data.source image_folder --data.path T/good/sketch", "10 apart", "give images of its classes"),
    ("C/three.keras --data.source image_folder --data.path T/flat", "have no labels", "lut-tf predict"),
    ("C/three.keras --data.source image_folder --data.path T/good/sketch", "n01440764) are none of those", "ape"),
    ("T/flat --data.source digits", "holds no classifier.keras", "give a fine-tuning run's directory"),
    ("T/run --data.source digits", "is a run that trained an encoder", "lut-tf finetune makes"),
    ("", "CLASSIFIER is missing", "lut-tf evaluate takes CLASSIFIER"),
]


@pytest.fixture(scope="module")
def bad_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, image = tmp_path_factory.mktemp("sets"), colours(1)[0]
    write(folder / "good" / "sketch" / "n01440764" / "a.png", image)
    write(folder / "good" / "a" / "n01440764" / "a.png", image)  # a class that ImageNet-A does not have
    write(folder / "good" / "r" / "a.png", image)
    write(folder / "bad" / "val" / "ILSVRC2012_val_00000001.png", image)
    (folder / "bad" / "real").mkdir()
    (folder / "bad" / "real" / "real.json").write_text("[[1], [1000]]")
    write(folder / "flat" / "a.png", image)
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("decoder: {}\n")
    return folder


@pytest.mark.medium
@pytest.mark.parametrize(("words", "mistake", "remedy"), BAD)
def test_what_cannot_be_measured_is_said_in_one_line(
    words: str, mistake: str, remedy: str, classifiers: Path, bad_sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def placed(word: str) -> str:
        root = {"C": classifiers, "T": bad_sets}.get(word.split("/")[0])
        return word if root is None else str(root) + word[1:]

    line = refused(["evaluate", *map(placed, words.split())], capsys)
    assert mistake.replace("C/", f"{classifiers}/") in line and remedy in line
    assert not (classifiers / "results").exists()


@pytest.mark.medium
def test_a_run_brings_its_own_evaluation_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is not measured on the images that it was trained on without a word."""
    classifier, images = tiny_classifier(3, NAMES), colours(9)
    run = tmp_path / "run"
    run.mkdir()
    classifier.save(run / "classifier.keras")
    (run / "classifier.json").write_text("{}")
    for image, pixels in enumerate(images):
        write(tmp_path / ("train" if image < 6 else "test") / NAMES[image % 3] / f"{image}.png", pixels)
    data = f"data: {{source: image_folder, path: {tmp_path}/train"
    (run / "config.yaml").write_text(f"{data}}}\n")
    assert "was trained on all images of its run's data" in refused(["evaluate", str(run)], capsys)
    learned = refused(["evaluate", str(run), "--data.holdout", "0.5"], capsys)
    assert "data.holdout=0.5 are not the images that the run of CLASSIFIER" in learned
    (run / "config.yaml").write_text(f"{data}, evaluation_path: {tmp_path}/test}}\n")
    assert cli.main(["evaluate", str(run)]) == 0
    result = only_result(run)
    best = logits(classifier, images[6:]).argmax(axis=1)
    assert (result.data["images"], result.data["part"]) == (3, "3 images")
    # Given by their folder alone they are read as the run's, and are the same images.
    assert cli.main(["evaluate", str(run), "--data.path", f"{tmp_path}/test"]) == 0
    assert only_result(run).data == result.data
    assert result.figures["top1"].value == pytest.approx((best == [0, 1, 2]).mean())


@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_it_is_said_that_a_classifier_has_learned_from_the_images(
    holdout: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given by their folder: the same images, whether the run has trained on all of them or kept a share apart."""
    run = tmp_path / "run"
    run.mkdir()
    tiny_classifier(3, NAMES).save(run / "classifier.keras")
    for image, pixels in enumerate(colours(12)):
        write(tmp_path / ("train" if image < 6 else "test") / NAMES[image % 3] / f"{image}.png", pixels)
    data = DataConfig(source="image_folder", path=str(tmp_path / "train"), holdout=holdout)
    (run / "config.yaml").write_text(f"data: {{source: image_folder, path: {data.path}, holdout: {holdout}}}\n")
    (run / "classifier.json").write_text("{}")
    (run / "resolved.json").write_text(json.dumps({"images_digest": list_data(data).digest}))
    for folder, learned in (("train", True), ("test", False)):
        assert cli.main(["evaluate", str(run), "--data.path", str(tmp_path / folder)]) == 0
        assert ("was trained on these images" in capsys.readouterr().out) == learned


def test_a_repeat_replaces_its_result_and_a_classifier_is_known_by_its_weights(tmp_path: Path) -> None:
    """Drop path has a seed of its own in every process, which is no part of it."""
    classifier = ViTClassifier.from_encoder(tiny_encoder(), 3, drop_path=0.1)
    classifier.save(tmp_path / "classifier.keras")
    write(tmp_path / "images" / "a" / "0.png", colours(1)[0])
    write(tmp_path / "images" / "b" / "0.png", colours(1)[0])
    write(tmp_path / "images" / "c" / "0.png", colours(1)[0])
    words = ["evaluate", str(tmp_path / "classifier.keras"), "--data.source", "image_folder"]
    for _ in range(2):
        assert cli.main([*words, "--data.path", str(tmp_path / "images")]) == 0
    assert only_result(tmp_path).model["checksum"] == checksum(classifier)
    again = ViTClassifier.from_encoder(classifier.encoder, 3, drop_path=0.1)
    again.set_weights(classifier.get_weights())
    assert checksum(again) == checksum(classifier)
    again.head.bias.assign([0.0, 1.0, 0.0])
    assert checksum(again) != checksum(classifier)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, one turned by its EXIF, in folders; one file is damaged."""
    folder, images = tmp_path_factory.mktemp("photos"), colours(3)
    write(folder / "a.png", images[0])
    write(folder / "below" / "deep" / "b.png", images[1])
    (folder / "below" / "c.jpg").write_bytes(encoded(Image.fromarray(images[2]), "JPEG", exif=turned(6), quality=100))
    write(folder / ".hidden" / "d.png", images[0])
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_predict_gives_the_likeliest_classes_with_their_probabilities(
    classifiers: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = keras.saving.load_model(classifiers / "three.keras")
    words = ["predict", str(classifiers / "three.keras"), str(photos), str(photos / "a.png"), "--json"]
    assert cli.main(words) == 1  # the damaged file names itself, the others go on
    out, err = capsys.readouterr()
    found = {Path(each["image"]).name: each for each in json.loads(out)}
    assert list(found) == ["a.png", "c.jpg", "b.png", "broken.png"]
    assert found["broken.png"]["error"] == "not an image" and "1 of 4 files give no image" in err
    for name, pixels in (("a.png", colours(3)[0]), ("b.png", colours(3)[1])):
        values = logits(classifier, pixels[None])[0]
        shares = np.exp(values) / np.exp(values).sum()
        told = found[name]["predictions"]
        assert [each["name"] for each in told] == [NAMES[i] for i in np.argsort(-shares)]
        assert [each["probability"] for each in told] == pytest.approx(sorted(shares, reverse=True), abs=1e-5)
    upright = np.rot90(np.asarray(Image.open(photos / "below" / "c.jpg")), -1)
    values = logits(classifier, upright[None])[0]
    assert found["c.jpg"]["predictions"][0]["class"] == values.argmax()


def test_predict_tables_and_pictures(
    classifiers: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "answers.png"
    words = ["predict", str(classifiers / "ten.keras"), str(photos / "*.png"), f"{photos}/**/b.png"]
    assert cli.main([*words, "--output", str(picture)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{photos}/a.png") and out[0].count("%  class") + out[0].count("% class") == 5
    assert out[1] == f"{photos}/broken.png".ljust(len(f"{photos}/below/deep/b.png")) + "  gives no image: not an image"
    assert "no names for its classes" in out[3] and out[4] == f"wrote {picture}"
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG" and drawn.width > 400


def test_images_that_are_called_alike_are_drawn_with_their_folders() -> None:
    assert titles(["p/ship/0.jpg", "p/frog/0.jpg", "p/frog/1.jpg"]) == ["ship/0.jpg", "frog/0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ("C/three.keras", "IMAGES is missing"),
        ("C/three.keras none.png", "IMAGES='none.png' is neither a file nor a folder"),
        ("C/three.keras C", "holds no images"),
        ("C/encoder.keras P/a.png", "a classifier is wanted"),
        ("C/three.keras P/a.png --output a.jpg", "output=a.jpg does not end in .png"),
    ],
)
def test_what_cannot_be_predicted_is_said_in_one_line(
    words: str, mistake: str, classifiers: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = [word.replace("C", str(classifiers), 1).replace("P/", f"{photos}/") for word in words.split()]
    assert mistake in refused(["predict", *placed], capsys)
