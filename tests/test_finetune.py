"""Fine-tuning runs of tiny encoders: what they leave, going on after a stop, replicas. Guards `lut_tf.finetune`."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_helpers import png
from networks import tiny_encoder
from runs import assert_same_run, lines, small, small_finetuning, start_words

from lut_tf import ViTClassifier, cli
from lut_tf.analysis.confusion import confusion_matrix, draw_confusion
from lut_tf.config import FinetuneConfig, from_yaml, to_yaml
from lut_tf.data import digits
from lut_tf.evaluate.classification import class_rows, confusions, tally
from lut_tf.evaluate.results import find_results, read_result
from lut_tf.interop import convert, load_classifier, to_reference
from lut_tf.interop.runs import load_classifier_run
from lut_tf.methods.classification import Classification
from lut_tf.models.preprocess import normalise
from lut_tf.tasks import finetune_result
from lut_tf.tasks.finetune import _batches, finetune
from lut_tf.tasks.finetune_result import FinetuneResult
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.plan import Plan
from lut_tf.training.run_directory import find_saved
from lut_tf.training.strategy import build_strategy, distribute


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of two blocks."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    keras.utils.set_random_seed(3)
    tiny_encoder(depth=2).save(path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> FinetuneResult:
    """A run of three epochs that nobody stopped."""
    return finetune(small_finetuning(tmp_path_factory.mktemp("whole") / "run", encoder, epochs=3))


def same_classifiers(one: Path, other: Path) -> bool:
    pairs = zip(*(keras.saving.load_model(path).weights for path in (one, other)), strict=True)
    return all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in pairs)


def top1(classifier: Any, part: Any) -> float:
    """Share of a part's images that are right, computed all at once."""
    source = digits(part)
    images = tf.image.resize(tf.stack([source.image(i) for i in range(len(source))]), (16, 16), "bicubic")
    logits = classifier(normalise(tf.round(tf.clip_by_value(images, 0, 255)), classifier.preprocessing))
    return float(np.mean(np.argmax(logits, axis=1) == source.labels))


@pytest.mark.medium
def test_a_run_leaves_everything_that_it_promises(whole: FinetuneResult, encoder: Path) -> None:
    root = whole.files.root
    files = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    assert {
        "config.yaml", "resolved.json", "metrics.jsonl", "classifier.json", "classifier.keras", "best.keras",
        "model.weights.h5", "classes.csv", "pictures/confusion.png", "pictures/curves.png",
        "checkpoints/step_00000012/manifest.json",
    } <= files  # fmt: skip
    assert "best" not in files  # what might have become the best
    log = lines(root)
    assert [(line["epoch"], line["step"]) for line in log] == [(1, 4), (2, 8), (3, 12)]
    assert all({"loss", "learning_rate", "validation_top1", "validation_top5"} <= set(line) for line in log)
    facts = json.loads((root / "resolved.json").read_text(encoding="utf-8"))
    assert (facts["classes"], facts["steps_per_epoch"], facts["peak_learning_rate"]) == (10, 4, 5e-3 * 16 / 8)
    (path,) = find_results([root])
    assert read_result(path) == dataclasses.replace(whole.result, settings=read_result(path).settings)
    figures = read_result(path).figures
    assert figures["top1"].count == 300
    saved = keras.saving.load_model(root / "classifier.keras")
    assert abs(figures["top1"].value - top1(saved, "heldout")) < 0.02  # another resize than the pipeline's
    best = max(log, key=lambda line: line["validation_top1"])
    assert abs(best["validation_top1"] - top1(keras.saving.load_model(root / "best.keras"), "validation")) < 0.02
    with (root / "classes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["right"]) for row in rows) == round(300 * figures["top1"].value)
    assert "300 held-out images" in whole.summary() and str(whole.files.best) in whole.summary()
    assert saved.class_names == tuple("0123456789")
    step = load_classifier_run(find_saved(root, step=12, tree=FinetuneConfig), "")
    loaded = load_classifier(root)
    for a, b, c in zip(loaded.weights, step.classifier.weights, whole.classifier.weights, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)


@pytest.mark.medium
def test_a_finished_run_started_again_trains_and_measures_nothing(
    whole: FinetuneResult, tmp_path: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole.files.root, run_dir)
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    again = finetune(small_finetuning(run_dir, encoder, epochs=3))
    assert "this run is complete" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    written = {path.name for path, at in after.items() if at != before[path]}
    assert written <= {"lock", "config.yaml", "resolved.json"}
    assert again.result is not None and whole.result is not None
    assert again.result.figures == whole.result.figures
    assert again.classes == whole.classes


@pytest.mark.slow
def test_a_run_that_ends_before_its_result_is_written_finds_its_best_epoch_again(
    whole: FinetuneResult, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a signal that cannot be caught."""

    def killed(*_: Any) -> None:
        raise Killed

    config = small_finetuning(tmp_path / "run", encoder, epochs=3)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(finetune_result, "draw_confusion", killed)
        finetune(config)
    result = finetune(config).result
    assert result is not None and whole.result is not None and result.figures == whole.result.figures
    assert "best/top1" in result.figures and not (tmp_path / "run" / "best").exists()


@pytest.mark.medium
def test_a_runs_classifier_is_read_and_converted_as_one(whole: FinetuneResult, tmp_path: Path) -> None:
    """Finished, or of a checkpoint; settings that it knows are refused."""
    root = whole.files.root
    tensors = to_reference(whole.classifier)
    written = convert(root, tmp_path / "last.safetensors", layout="reference")
    of_step = convert(root, tmp_path / "step.safetensors", step=12)
    for found in (load_classifier(root), load_classifier(written, num_heads=2), load_classifier(of_step, num_heads=2)):
        for name, array in to_reference(found).items():
            np.testing.assert_array_equal(array, tensors[name], err_msg=name)
    with pytest.raises(ValueError, match="^num_heads is given, but .* knows its own: leave it out$"):
        load_classifier(root, num_heads=2)


class Stop(keras.callbacks.Callback):
    """Ends the process, as far as the run can tell, before a step."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at, self.epoch = (epoch, step), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.medium
def test_a_stopped_run_goes_on_bit_for_bit_without_its_first_encoder(
    whole: FinetuneResult, tmp_path: Path, encoder: Path
) -> None:
    """Stopped in the third epoch, two steps after the last checkpoint; with drop path, an average, mixing, and a best.

    The best of the second epoch is found again, and what the first process made of the steps that are done again does
    not count.
    """
    own = tmp_path / "encoder.keras"
    shutil.copy(encoder, own)
    config = small_finetuning(tmp_path / "run", own, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, callbacks=[Stop(2, 2)])
    own.unlink()
    later = tmp_path / "run" / "best" / "step_00000012.keras"
    later.write_bytes(b"of a process that came further, and was not saved")
    resumed = finetune(config)
    assert_same_run(whole.files.root, resumed.files.root)
    for name in ("classifier.keras", "best.keras"):
        assert same_classifiers(whole.files.root / name, resumed.files.root / name), name
    assert resumed.result is not None and whole.result is not None
    assert resumed.result.figures == whole.result.figures


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(tmp_path: Path, encoder: Path) -> None:
    settings = {"checkpoint__every_steps": 2, "compute__deterministic": True, "views__operations": 2, "epochs": 3}
    runs = [small_finetuning(tmp_path / name, encoder, **settings) for name in ("whole", "killed")]
    for config in runs:
        Path(f"{config.run_dir}.yaml").write_text(to_yaml(config), encoding="utf-8")

    def process(config: FinetuneConfig) -> Any:
        return start_words([sys.executable, "-m", "lut_tf.cli", "finetune", "--config", f"{config.run_dir}.yaml"])

    output, _ = process(runs[0]).communicate(timeout=240)
    killed, checkpoints = process(runs[1]), tmp_path / "killed" / "checkpoints"
    while killed.poll() is None and not list(checkpoints.glob("step_*")):
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "classifier.keras").exists()
    output, _ = process(runs[1]).communicate(timeout=240)
    assert "going on after step" in output
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert same_classifiers(tmp_path / "whole" / "best.keras", tmp_path / "killed" / "best.keras")


# What may not change the numbers: their tolerance is that of another order of the same sums.
WAYS: dict[str, dict[str, Any]] = {
    "two replicas": {"strategy": "mirrored", "devices": 2},
    "two micro-batches": {"optimizer__accumulate": 2},
    "two replicas, two micro-batches": {"strategy": "mirrored", "devices": 2, "optimizer__accumulate": 2},
    "XLA": {"compute__jit_compile": True},
}


def descended(encoder: Path, **settings: Any) -> dict[str, np.ndarray]:
    """Weights and loss after four steps of gradient descent; AdamW would take little but the gradients' signs.

    Batches as the run's, with mixing, drop path and an average.
    """
    config = small_finetuning(Path("none"), encoder, optimizer__batch_size=64, **settings)
    strategy = build_strategy(config)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        classifier = ViTClassifier.from_encoder(keras.saving.load_model(encoder), 10, drop_path=0.4)
        model = Classification(classifier, ema=0.6)
        model.compile(
            keras.optimizers.SGD(0.5),
            accumulate=config.optimizer.accumulate,
            jit_compile=config.compute.jit_compile,
        )
    data = partial(_batches, config, model, Plan(1, 64 * 4, 64), digits("train"), 0)
    history = model.fit(distribute(strategy, data), steps_per_epoch=4, shuffle=False, verbose=0)
    found = {f"{number} {weight.path}": weight.numpy() for number, weight in enumerate(model.weights)}
    return {**found, "loss": np.array(history.history["loss"])}


@pytest.fixture(scope="module")
def plainly_descended(encoder: Path) -> dict[str, np.ndarray]:
    return descended(encoder)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.medium if way == "two replicas, two micro-batches" else pytest.mark.slow)
        for way in WAYS
    ],
)
def test_devices_and_micro_batches_change_no_number(
    way: str, plainly_descended: dict[str, np.ndarray], encoder: Path
) -> None:
    """Batches are made whole before they are shared out, so mixing and drop path are the same too."""
    other = descended(encoder, **WAYS[way])
    moved = [not np.allclose(a, 0) for name, a in plainly_descended.items() if name.endswith("head/kernel")]
    assert moved == [True, True]  # of classifier and average
    for name, a in plainly_descended.items():
        np.testing.assert_allclose(a, other[name], rtol=1e-5, atol=2e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_in_mixed_precision_learns_and_keeps_float32(
    precision: str, whole: FinetuneResult, tmp_path: Path, encoder: Path
) -> None:
    run = finetune(small_finetuning(tmp_path / "run", encoder, epochs=3, compute__precision=precision))
    assert {weight.dtype for weight in run.classifier.weights} == {"float32"}
    assert run.classifier.encoder.compute_dtype == precision.removeprefix("mixed_")
    for mixed, full in zip(lines(run.files.root), lines(whole.files.root), strict=True):
        assert mixed["loss"] == pytest.approx(full["loss"], rel=0.02)


def folder_of(root: Path, **classes: int) -> Path:
    """Images in a folder a class."""
    for name, count in classes.items():
        for number in range(count):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    return root


def written_records(path: Path, labels: list[int]) -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, label in enumerate(labels):
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(number)])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return path


FOLDER = "--data.source image_folder --optimizer.batch_size 4"
RECORDS = "--data.source tfrecord --data.label_feature label --optimizer.batch_size 4"
DIGITS = "--optimizer.batch_size 4"
# Words after `finetune`; what the line names; a part of the remedy.
MISTAKES = {
    "no encoder": (DIGITS, "init_from=null", "give --init_from"),
    "an encoder that is not there": (f"{DIGITS} --init_from nowhere", "init_from='nowhere'", "give a pre-training run"),
    "a classifier": (f"{DIGITS} --init_from classifier.keras", "init_from='classifier.keras'", "an encoder is wanted"),
    "a fine-tuning run": (f"{DIGITS} --init_from tuned", "init_from='tuned'", "a pre-training run's directory"),
    "no labels": (f"{FOLDER} --data.path flat", "data.path='flat': the training images have no labels", "a folder a"),
    "records without a feature": (
        "--data.source tfrecord --data.path good.tfrecord --optimizer.batch_size 4",
        "data.path='good.tfrecord': the training images have no labels",
        "give --data.label_feature",
    ),
    "one class": (f"{FOLDER} --data.path single", "data.path='single': the training images are of one", "two classes"),
    "one class in records": (f"{RECORDS} --data.path one.tfrecord", "data.path='one.tfrecord'", "two classes or more"),
    "other classes": (
        f"{FOLDER} --data.path photos --data.evaluation_path others",
        "data.evaluation_path: 'others'",
        "make them equal",
    ),
    "another number of classes in records": (
        f"{RECORDS} --data.path good.tfrecord --data.evaluation_path more.tfrecord",
        "data.evaluation_path='more.tfrecord' holds the label 5",
        "evaluation images of the same classes",
    ),
    "a label below 0": (f"{RECORDS} --data.path below.tfrecord", "holds the label -3", "number them from 0"),
    "a label far too large": (
        f"{RECORDS} --data.path far.tfrecord",
        "holds the label 90000",
        "number the classes from",
    ),
    "an input size of broken patches": (
        f"{DIGITS} --classifier.image_size 18",
        "classifier.image_size=18 is not a multiple of 4",
        "--classifier.image_size 16",
    ),
    "no class token": (
        f"{DIGITS} --init_from bare.keras --classifier.pooling cls",
        "classifier.pooling=cls",
        "--classifier.pooling mean",
    ),
    "a pre-training run's directory": (f"{DIGITS} --run_dir begun", "run_dir='begun'", "of lut-tf train"),
    "a minimum above the peak": (
        f"{DIGITS} --optimizer.minimum_learning_rate 1",
        "optimizer.minimum_learning_rate=1",
        "give a smaller --optimizer.minimum_learning_rate",
    ),
    "a batch of more than there is": ("--optimizer.batch_size 2000", "optimizer.batch_size=2000", "1197 or less"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, whole: FinetuneResult, encoder: Path) -> Path:
    """A folder of what a user may give."""
    from lut_tf.config import Config

    root = tmp_path_factory.mktemp("bad")
    shutil.copy(encoder, root / "encoder.keras")
    shutil.copy(whole.files.classifier, root / "classifier.keras")
    shutil.copytree(whole.files.root, root / "tuned")
    tiny_encoder(class_token=False).save(root / "bare.keras")
    folder_of(root / "photos", a=4, b=4)
    folder_of(root / "others", a=4, c=4)
    folder_of(root / "single", a=8)
    shutil.copytree(root / "single" / "a", root / "flat")
    written_records(root / "good.tfrecord", [0, 1, 2, 0, 1, 2, 0, 1])
    written_records(root / "more.tfrecord", [0, 1, 5, 0])
    written_records(root / "one.tfrecord", [0, 0, 0, 0, 0])
    written_records(root / "below.tfrecord", [0, 1, -3, 0, 1])
    written_records(root / "far.tfrecord", [0, 1, 90000, 0, 1])
    (root / "begun" / "checkpoints" / "step_00000001").mkdir(parents=True)
    (root / "begun" / "config.yaml").write_text(to_yaml(Config()), encoding="utf-8")
    return root


@pytest.mark.medium
@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_before_anything_is_written(
    case: str, bad: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, named, remedy = MISTAKES[case]
    monkeypatch.chdir(bad)
    before = sorted(bad.rglob("*"))
    own = "" if "--run_dir" in words else "--run_dir new"
    start = "" if case == "no encoder" or "--init_from" in words else "--init_from encoder.keras"
    assert cli.main(["finetune", *f"{words} {own} {start}".split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lut-tf: error: ") and err.count("\n") == 1
    assert named in err
    assert remedy in err
    assert sorted(bad.rglob("*")) == before


@pytest.mark.medium
@pytest.mark.parametrize(
    "words",
    [
        "train --run_dir tuned",
        "train --run_dir new --init_from tuned",
        "export tuned --to onnx",
        "knn tuned",
    ],
)
def test_a_fine_tuning_run_is_refused_where_a_pre_training_run_is_wanted(
    words: str, bad: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bad)
    assert cli.main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "'tuned'" in err and ("lut-tf finetune" in err or "trained a classifier" in err)


@pytest.mark.slow
def test_another_input_size_resizes_the_positions_and_says_so(
    tmp_path: Path, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a folder that holds out a part; the classes' names go with the classifier, and the settings with the run."""
    folder_of(tmp_path / "photos", cat=12, dog=12, fox=12)
    run_dir = tmp_path / "run"
    words = f"finetune --init_from {encoder} --run_dir {run_dir} --data.source image_folder --epochs 1"
    words += f" --data.path {tmp_path / 'photos'} --data.holdout 0.25 --optimizer.batch_size 12 --views.operations 0"
    words += " --classifier.image_size [24,16] --optimizer.warmup_epochs 0 --logging.tensorboard false"
    assert cli.main(words.split()) == 0
    out = capsys.readouterr().out
    assert "positions resized from 4×4 to 6×4 patches" in out
    assert "9 held-out images" in out
    classifier = keras.saving.load_model(run_dir / "classifier.keras")
    assert classifier.image_size == (24, 16)
    assert classifier.class_names == ("cat", "dog", "fox")
    (path,) = find_results([run_dir])
    result = read_result(path)
    assert result.figures["top1"].count == 9 and result.data["part"] == "9 held-out images"
    assert "top5" not in result.figures  # of three classes
    config = from_yaml((run_dir / "config.yaml").read_text(encoding="utf-8"), FinetuneConfig)
    assert config.classifier.image_size == (24, 16)
    assert cli.main(["finetune", "--run_dir", str(run_dir)]) == 0  # its own settings
    assert "this run is complete" in capsys.readouterr().out


@pytest.mark.slow
def test_without_evaluation_images_it_trains_and_says_that_nothing_is_measured(tmp_path: Path, encoder: Path) -> None:
    folder = folder_of(tmp_path / "photos", cat=4, dog=4)
    data = {"data__source": "image_folder", "data__path": str(folder), "optimizer__batch_size": 4, "epochs": 1}
    run = finetune(small_finetuning(tmp_path / "run", encoder, classifier__ema=0.0, **data))
    assert run.result is None
    assert "not measured: there are no evaluation images" in run.summary()
    assert run.files.classifier.exists() and not run.files.best.exists()
    assert "validation_top1" not in lines(run.files.root)[0]


@pytest.mark.parametrize("classes", [3, 40, 1500])
def test_table_and_picture_of_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    """Counts by hand: class 1 is taken for class 2 twice, class 0 for class 1 once, all else is right."""
    labels = np.concatenate([np.arange(classes), [1, 1, 1, 0]]).astype(np.int32)
    guessed = labels.copy()
    guessed[-4:] = [2, 2, 1, 1]
    rows = class_rows(guessed, labels, [f"class {i}" for i in range(classes)])
    assert rows[0] == ("class 0", 2, 1, "class 1", 1)
    assert rows[1] == ("class 1", 4, 2, "class 2", 2)
    assert rows[2] == ("class 2", 1, 1, "", 0)
    assert confusions(guessed, labels) == [(1, 2, 2), (0, 1, 1)]
    matrix = confusion_matrix(guessed, labels, classes)
    assert matrix.shape == (min(classes, 1000),) * 2 and matrix.sum() == len(labels)
    draw_confusion(guessed, labels, [row.name for row in rows], [(1, 2, 2)], tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").stat().st_size > 5000
    top = np.stack([guessed, *(np.full_like(guessed, i) for i in (1, 2, 0, 0))], axis=1)
    found = tally(top, labels, classes)
    assert found.right == {"top1": classes + 1, **({"top5": classes + 4} if classes > 5 else {})}


@pytest.mark.slow
def test_fine_tuning_ends_above_the_linear_probe_of_the_same_encoder(tmp_path: Path) -> None:
    """On the digits' 300 held-out images: what pre-training has left to be learned, the whole network learns."""
    pretrained = pretrain(small(tmp_path / "lut", epochs=10, encoder__width=32, encoder__depth=2))
    probe = pretrained.probes["trained encoder"]["linear"]
    tuned = finetune(
        small_finetuning(
            tmp_path / "tuned", tmp_path / "lut", epochs=30, classifier__drop_path=0.1, classifier__ema=0.0,
            views__flip=False, views__scale=(0.6, 1.0), views__erasing=0.0, views__mixup=0.2, views__cutmix=0.0,
            optimizer__batch_size=64, optimizer__warmup_epochs=5.0, optimizer__base_learning_rate=3e-3,
            optimizer__rate_rule="none",
        )
    )  # fmt: skip
    assert tuned.result is not None
    assert tuned.result.figures["top1"].value > probe
