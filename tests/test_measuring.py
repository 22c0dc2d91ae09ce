"""`lut-tf knn` and `lut-tf few-shot` from the command to the file, and what they refuse; encoders wherever they lie."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from networks import tiny_encoder, tiny_lut
from PIL import Image
from runs import small

from lut_tf.cli.program import main
from lut_tf.config import settings
from lut_tf.config.measuring import FewShotConfig, FrozenConfig, KnnConfig
from lut_tf.data.reading.sources import digits
from lut_tf.evaluate import find_results, knn_accuracy, measure_few_shot, measure_knn, read_result
from lut_tf.evaluate.features import encoder_features
from lut_tf.interop import find_encoder, load_keras, open_encoder, save_encoder
from lut_tf.interop.encoders import save_folder
from lut_tf.interop.sources import checksum
from lut_tf.tasks.pretrain import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training run on the digits, of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    quick = {"epochs": 1, "probe__every": 0, "probe__before_and_after": False, "logging__tensorboard": False}
    pretrain(small(folder, **quick))
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one encoder in several forms, and what is none."""
    folder = tmp_path_factory.mktemp("encoders")
    keras.utils.set_random_seed(0)
    encoder = tiny_encoder(width=64, heads=1)
    encoder.save(folder / "encoder.keras")
    tiny_lut(encoder).save(folder / "lut.keras")
    save_encoder(encoder, folder / "timm.safetensors")
    save_folder(encoder, folder / "huggingface")
    tiny_encoder(class_token=False).save(folder / "tokenless.keras")
    with zipfile.ZipFile(folder / "classifier.keras", "w") as archive:
        archive.writestr("config.json", '{"registered_name": "lut_tf>ViTClassifier"}')
    for name, config in (("finetuned", "classifier:\n  pooling: mean\n"), ("nothing", "")):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(config)
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images: two classes of three, one class, and flat."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(["two/a", "two/b", "one/a", "flat"]):
        (folder / name).mkdir(parents=True)
        for image in range(3):
            Image.fromarray(np.full((16, 16, 3), 60 * number + image, np.uint8)).save(folder / name / f"{image}.png")
    return folder


@pytest.mark.medium
def test_the_verbs_measure_a_run_on_its_own_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knn", str(run), "--neighbours", "5,20"]) == 0
    (knn,) = (read_result(path) for path in find_results([run]))
    extract, train, held = encoder_features(load_keras(run / "encoder.keras")), digits("train"), digits("heldout")
    data = extract(train, np.arange(1197)), train.labels, extract(held, np.arange(300)), held.labels
    assert {name: figure.value for name, figure in knn.figures.items()} == {
        f"knn{k}": pytest.approx(knn_accuracy(*data, neighbours=k)) for k in (5, 20)
    }
    assert knn.figures["knn5"].count == 300
    assert knn.data["part"] == "300 held-out images"
    assert knn.model["checksum"] == checksum(load_keras(run / "encoder.keras"))
    features = {path.name: path.stat().st_mtime_ns for path in (run / "features").iterdir()}
    assert main(["few-shot", str(run), "--shots", "1,5", "--draws", "5"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (run / "features").iterdir()} == features
    assert "written: " in capsys.readouterr().out
    assert len(find_results([run])) == 2
    from_python = measure_few_shot(run, FewShotConfig(shots=(1, 5), draws=5))
    assert from_python.name in {path.stem for path in find_results([run])}
    assert from_python.figures["1_shot"].value < from_python.figures["5_shot"].value
    assert from_python.figures["5_shot"].count == 5
    assert len(from_python.details["5_shot"]["accuracies"]) == 5


@pytest.mark.medium
def test_an_encoder_opens_from_wherever_a_run_has_it(run: Path, tmp_path: Path) -> None:
    finished = open_encoder(run)
    assert (finished.origin, finished.data, finished.run.root) == (str(run), small(run).data, run)
    assert finished.checksum == open_encoder(run / "encoder.keras").checksum == open_encoder(run, step=9).checksum
    shutil.copytree(run, tmp_path / "unfinished")
    for name in ("encoder.keras", "model.weights.h5"):
        (tmp_path / "unfinished" / name).unlink()
    unfinished = open_encoder(tmp_path / "unfinished")
    assert unfinished.checksum == finished.checksum
    assert unfinished.origin.endswith("(its checkpoint of step 9)")
    assert unfinished.data == finished.data
    resized = open_encoder(run, image_size=32)
    assert resized.encoder.image_size == (32, 32)
    assert "positions resized from 16×16 to 32×32 pixels" in resized.origin
    assert resized.checksum != finished.checksum


@pytest.mark.medium
def test_an_encoder_is_the_same_in_every_form(encoders: Path) -> None:
    forms = ("encoder.keras", "lut.keras", "timm.safetensors", "huggingface")
    opened = [open_encoder(encoders / form) for form in forms]
    assert len({each.checksum for each in opened[:3]}) == 1
    assert all(each.run is None and each.data is None for each in opened)
    weights = [each.encoder.get_weights() for each in opened]
    assert all(np.array_equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other, strict=True))


@pytest.mark.medium
def test_settings_of_data_that_are_not_given_are_the_runs_own(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "data:\n  source: image_folder\n  path: p\n  holdout: 0.5\n  bits: 12\n"
    config = (run / "config.yaml").read_text()
    other = run.parent / "other"
    shutil.copytree(run, other)
    (other / "config.yaml").write_text(own + config[: config.index("data:")] + config[config.index("views:") :])

    def printed(*words: str) -> str:
        with pytest.raises(SystemExit):
            main(["knn", str(other), *words, "--print_config"])
        return capsys.readouterr().out

    assert all(line in printed("--data.path", "mine") for line in ("path: mine", "holdout: 0.5", "bits: 12"))
    assert all(line in printed("--data.source", "digits") for line in ("path: null", "holdout: 0.0", "bits: null"))


FOLDER = "--data.source image_folder --data.path {photos}/two"
EVALUATED = f"{FOLDER} --data.evaluation_path {{photos}}/two"
# Verb and words; what the line names, and the remedy.
MISTAKES = [
    ("knn", "ENCODER is missing", "lut-tf knn takes ENCODER"),
    ("knn nowhere", "ENCODER='nowhere' does not exist", "give a pre-training run's directory"),
    ("knn {encoders}/notes.txt", "is no file of weights", "give a pre-training run's directory"),
    ("knn {encoders}/nothing", "config.yaml", "give the directory of another run"),
    ("knn {photos}", "is no run directory", "give a pre-training run's directory"),
    ("knn {encoders}/classifier.keras", "holds a ViTClassifier", "lut-tf evaluate"),
    ("few-shot {encoders}/classifier.keras", "holds a ViTClassifier", "lut-tf evaluate"),
    ("few-shot {encoders}/finetuned", "trained a classifier", "lut-tf evaluate"),
    ("knn {encoders}/encoder.keras --step 3", "step=3 is for a run directory", "leave it out"),
    ("knn {encoders}/encoder.keras --neighbors 3", "unknown setting --neighbors", "did you mean --neighbours?"),
    ("knn {encoders}/encoder.keras --shots 3", "unknown setting --shots", "lut-tf knn --help"),
    ("knn {encoders}/encoder.keras --neighbours []", "neighbours=[]", "--neighbours N"),
    ("knn {encoders}/encoder.keras --neighbours 0", "neighbours=[0]", "from 1 up"),
    ("few-shot {encoders}/encoder.keras --shots []", "shots=[]", "--shots N"),
    ("few-shot {encoders}/encoder.keras --draws 4", "draws=4", "from 5 up"),
    ("knn {encoders}/tokenless.keras --pooling cls", "pooling=cls", "give mean"),
    ("knn {encoders}/encoder.keras --image_size 18", "image_size=18", "give image_size 16"),
    (f"knn {{encoders}}/encoder.keras {FOLDER}", "data.evaluation_path=null", "--data.holdout 0.1"),
    (f"few-shot {{encoders}}/encoder.keras {FOLDER}", "data.evaluation_path=null", "--data.holdout 0.1"),
    (f"knn {{encoders}}/encoder.keras {EVALUATED}", "neighbours=[10, 20] is more than the 6", "--neighbours 6"),
    (f"few-shot {{encoders}}/encoder.keras {EVALUATED} --shots 4", "shots=[4] is more than the 3", "--shots 3"),
    (f"few-shot {{encoders}}/encoder.keras {EVALUATED} --shots 1,3", "shots=[1, 3] takes all 6", "--shots 2"),
    (
        "knn {encoders}/encoder.keras --data.source image_folder --data.path {photos}/flat",
        "has no labels",
        "sort the images into class folders",
    ),
    (
        "knn {encoders}/encoder.keras --data.source image_folder --data.path {photos}/one "
        "--data.evaluation_path {photos}/one",
        "has one class",
        "give images of several classes",
    ),
]


@pytest.mark.parametrize(("words", "named", "remedy"), MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(
    words: str, named: str, remedy: str, encoders: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(encoders.rglob("*"))
    assert main(words.format(encoders=encoders, photos=photos).split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lut-tf: error: ")
    assert err.count("\n") == 1
    assert named in err and remedy in err, err
    assert sorted(encoders.rglob("*")) == before


# Another value for every setting that is not of `data`.
OTHER = {
    "image_size": 32, "pooling": "cls", "neighbours": (1,), "temperature": 1e-5, "shots": (2,), "draws": 6, "seed": 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("measure", "config"), [(measure_knn, KnnConfig()), (measure_few_shot, FewShotConfig())])
def test_every_setting_changes_what_is_found(
    measure: Any, config: FrozenConfig, encoders: Path, tmp_path: Path
) -> None:
    encoder = shutil.copy(encoders / "encoder.keras", tmp_path)
    found = measure(encoder, config)
    for name in settings(type(config)):
        if not name.startswith("data."):
            other = measure(encoder, replace(config, **{name: OTHER[name]}))
            assert (other.figures, other.model["checksum"]) != (found.figures, found.model["checksum"]), name
            assert other.name != found.name, name
    assert measure(encoder, config).figures == found.figures


def test_python_takes_the_same_and_says_the_same(encoders: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source='nowhere' does not exist"):
        find_encoder("nowhere")
    with pytest.raises(ValueError, match="neighbours=2000 is more than the 1197|neighbours=\\[2000\\]"):
        measure_knn(encoders / "encoder.keras", KnnConfig(neighbours=(2000,)))
