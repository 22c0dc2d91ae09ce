"""Linear probes: a frozen encoder, rates side by side, a choice that the scored images have no part in."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from data_helpers import png
from networks import tiny_encoder
from runs import replaced

from lut_tf.cli.program import main
from lut_tf.config import LinearProbeConfig, ProbeViews, from_yaml, to_yaml
from lut_tf.data import ArraySource, digits
from lut_tf.data.batches.probing import probing_dataset
from lut_tf.data.reading.sources import Chosen, Parts
from lut_tf.evaluate import linear_heads
from lut_tf.evaluate.logistic import INVERSE_STRENGTHS, logistic_fit
from lut_tf.evaluate.results import read_result
from lut_tf.methods.linear_probe import FrozenEncoder, LinearProbe
from lut_tf.tasks import linear_probe_result
from lut_tf.tasks.judges import judges_of
from lut_tf.tasks.linear_probe import linear_probe
from lut_tf.tasks.linear_probe_result import ProbeResult
from lut_tf.training.lars import LARS

CHECKSUM = "0123456789abcdef" * 4
SMALL: dict[str, Any] = {
    "epochs": 2, "optimizer__batch_size": 256, "optimizer__warmup_epochs": 1.0, "logging__tensorboard": False,
    "optimizer__base_learning_rates": (1.0, 30.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    keras.utils.set_random_seed(3)
    tiny_encoder().save(path)
    return path


def probe_config(encoder: Path, run_dir: Path, **settings: Any) -> LinearProbeConfig:
    config = LinearProbeConfig(init_from=str(encoder), run_dir=str(run_dir))
    for name, value in {**SMALL, **settings}.items():
        config = replaced(config, name.split("__"), value)
    return config


class Whole(NamedTuple):
    """A probe that nobody stops: its run directory, what it gave, and who was asked about which linear layers."""

    run_dir: Path
    outcome: ProbeResult
    asked: list[tuple[np.ndarray, list[str]]]


@pytest.fixture(scope="module")
def whole(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    run_dir, asked = tmp_path_factory.mktemp("whole") / "probe", list[tuple[np.ndarray, list[str]]]()

    def watched(model: LinearProbe, source: Any, heads: Any, what: str = "") -> Any:
        asked.append((source.labels, list(heads)))
        return linear_heads.head_guesses(model, source, heads, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_probe_result, "head_guesses", watched)
        return Whole(run_dir, linear_probe(probe_config(encoder, run_dir)), asked)


def arrays(run_dir: Path) -> dict[str, np.ndarray]:
    """What a run has learned, by path."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(run_dir / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def only_result(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("results/*.json")
    return json.loads(path.read_text(encoding="utf-8"))


class Stop(Exception):
    """Ends a run at once."""


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.place, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.place:
            raise Stop


@pytest.mark.medium
def test_the_encoder_is_not_trained_and_not_saved(encoder: Path, whole: Whole) -> None:
    """What the run has learned is two linear layers for each of two tokens, two BatchNorms and a checksum."""
    shapes = sorted(array.shape for name, array in arrays(whole.run_dir).items() if not name.startswith("optimizer"))
    assert shapes == sorted([(16, 10), (10,)] * 4 + [(16,), (16,)] * 2 + [(16,)])
    manifest = json.loads(next((whole.run_dir / "checkpoints").glob("*/manifest.json")).read_text(encoding="utf-8"))
    assert not [path for path, _ in manifest["variables"].values() if "block" in path or "patch" in path]


@pytest.mark.medium
def test_a_step_moves_linear_layers_and_leaves_the_encoder() -> None:
    encoder = tiny_encoder()
    model = LinearProbe(FrozenEncoder(encoder, CHECKSUM), 10, (0.1, 1.0))
    model.compile(keras.optimizers.SGD(0.1))
    before = [v.numpy() for v in encoder.variables], [v.numpy() for v in model.trainable_variables]
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("uint8"), np.arange(8) % 10
    model.fit(tf.data.Dataset.from_tensors((images, labels.astype("int32"))), verbose=0)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before[0], encoder.variables, strict=True))
    assert not any(np.array_equal(a, b.numpy()) for a, b in zip(before[1], model.trainable_variables, strict=True))
    assert not {id(v) for v in encoder.variables} & {id(v) for v in (*model.variables, *model.optimizer.variables)}
    assert model.fits
    model.encoder_checksum.assign(model.encoder_checksum + 1)
    assert not model.fits


def test_batch_norm_has_no_scale_and_shift_and_is_one_for_all_rates() -> None:
    """In training the batch's own mean and deviation, over n; running ones move a tenth of the way, over n − 1."""
    encoder = tiny_encoder()
    model = LinearProbe(FrozenEncoder(encoder, CHECKSUM), 3, (0.1, 1.0))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("uint8")
    features = {name: np.asarray(x) for name, x in model.frozen.features(images).items()}
    np.testing.assert_allclose(features["cls"], encoder.features(_normal(images), "cls"), atol=1e-6)
    np.testing.assert_allclose(features["mean"], encoder.features(_normal(images)), atol=1e-6)
    for name, found in model.normalised(features, training=True).items():
        x = features[name].astype("float64")
        np.testing.assert_allclose(found, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(model.norms[name].moving_mean, 0.1 * x.mean(0), atol=1e-6)
        np.testing.assert_allclose(model.norms[name].moving_variance, 0.9 + 0.1 * x.var(0, ddof=1), atol=1e-5)
        assert not model.norms[name].trainable_variables
    kernels = [layer.kernel.numpy() for layer in model.linears.values()]
    assert len(kernels) == 4 and all(np.array_equal(kernels[0], kernel) for kernel in kernels)
    assert np.std(kernels[0]) == pytest.approx(0.01, rel=0.3)


def _normal(images: np.ndarray) -> np.ndarray:
    from lut_tf.models.preprocess import normalise

    return np.asarray(normalise(images))


@pytest.mark.medium
def test_rates_side_by_side_learn_what_each_learns_alone(encoder: Path, whole: Whole, tmp_path: Path) -> None:
    config = probe_config(encoder, tmp_path / "alone", optimizer__base_learning_rates=(1.0,))
    outcome, together = linear_probe(config), whole.outcome.model
    result, alone = outcome.result, outcome.model
    assert alone is not None and together is not None and alone.linears.keys() == {"cls_1", "mean_1"}
    for name, layer in alone.linears.items():
        for own, other in zip(layer.variables, together.linears[name].variables, strict=True):
            np.testing.assert_allclose(own.numpy(), other.numpy(), rtol=1e-5, atol=1e-6, err_msg=own.path)
    assert result is not None and result.details["base_learning_rate"] == {"cls": 1.0, "mean": 1.0}


@pytest.mark.medium
@pytest.mark.parametrize("rates", [(0.1, 1e4), (1e4,)])
def test_too_large_a_rate_disturbs_no_other_and_is_not_finite_where_it_is_alone(
    rates: tuple[float, ...],
) -> None:
    """Without an end in sight weights overflow after a hundred steps."""
    random = np.random.RandomState(0)
    images, labels = random.randint(0, 256, (8, 16, 16, 3)).astype("uint8"), np.arange(8) % 2
    model = LinearProbe(FrozenEncoder(tiny_encoder(), CHECKSUM), 2, rates)
    largest = max(rates)
    model.compile(optimizer=LARS(largest, shares={head: rate / largest for head, (_, rate) in model.heads.items()}))
    losses = [model.train_on_batch((images, labels), return_dict=True)["loss"] for _ in range(200)]
    assert np.isfinite(losses[-1]) == (len(rates) > 1)
    for name, layer in model.linears.items():
        if len(rates) > 1:
            assert np.isfinite(layer.kernel.numpy()).all(), name


@pytest.mark.medium
def test_a_run_that_was_stopped_ends_as_the_one_that_was_not(encoder: Path, whole: Whole, tmp_path: Path) -> None:
    """Stopped inside an epoch, after a checkpoint inside it; bit for bit, and the figures too."""
    config = probe_config(encoder, tmp_path / "probe", checkpoint__every_steps=3)
    with pytest.raises(Stop):
        linear_probe(config, callbacks=[StopAt(1, 3)])
    linear_probe(config)
    expected, found = arrays(whole.run_dir), arrays(tmp_path / "probe")
    assert {n: a.tobytes() for n, a in expected.items()} == {n: a.tobytes() for n, a in found.items()}
    assert only_result(whole.run_dir)["figures"] == only_result(tmp_path / "probe")["figures"]


@pytest.mark.slow
def test_two_replicas_learn_what_one_does(encoder: Path, whole: Whole, tmp_path: Path) -> None:
    linear_probe(probe_config(encoder, tmp_path / "probe", strategy="mirrored", devices=2))
    found = arrays(tmp_path / "probe")
    for name, array in arrays(whole.run_dir).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.medium
def test_another_encoder_is_refused_and_a_whole_run_scores_no_more(
    encoder: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "probe"
    shutil.copytree(whole.run_dir, run_dir)
    asked: list[Any] = []
    monkeypatch.setattr(linear_probe_result, "head_guesses", lambda *arguments: asked.append(arguments))
    result = linear_probe(probe_config(encoder, run_dir)).result
    assert result == read_result(next(whole.run_dir.glob("results/*.json"))) and not asked
    other = encoder.with_name("other.keras")
    tiny_encoder().save(other)
    shutil.copy(encoder, tmp_path / "kept.keras")
    shutil.copy(other, encoder)
    try:
        with pytest.raises(ValueError, match=r"is another encoder .* has begun with: give the encoder of then"):
            linear_probe(probe_config(encoder, run_dir))
    finally:
        shutil.copy(tmp_path / "kept.keras", encoder)


@pytest.mark.medium
def test_the_best_rate_is_chosen_by_some_images_and_scored_once_on_others(whole: Whole) -> None:
    result = whole.outcome.result
    assert result is not None
    shares = result.details["choosing_images"]
    best = {p: max((n for n in shares if n.startswith(p)), key=lambda name: shares[name]) for p in ("cls", "mean")}
    chosen = {p: float(name.split("_")[1]) for p, name in best.items()}
    assert result.details["base_learning_rate"] == chosen
    *choosing, (labels, heads) = whole.asked
    assert heads == list(best.values()) and np.array_equal(labels, digits("heldout").labels)
    assert len(choosing) == 2 + 1 and all(np.array_equal(own, digits("validation").labels) for own, _ in choosing)
    assert {name: figure.count for name, figure in result.figures.items()} == dict.fromkeys(
        ["cls/top1", "cls/top5", "mean/top1", "mean/top5"], 300
    )
    assert result.data["part"] == "300 held-out images" and result.data["choosing_images"] == 300
    lines = [json.loads(line) for line in (whole.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["validation_cls_top1"] == pytest.approx(shares[best["cls"]])
    assert lines[-1]["loss"] == pytest.approx(sum(lines[-1][name] for name in shares), rel=1e-5)
    assert "scored" not in whole.outcome.summary() and "cls: base learning rate" in whole.outcome.summary()


def labelled(count: int) -> ArraySource:
    return ArraySource(np.zeros((count, 8, 8), np.uint8), np.arange(count, dtype=np.int32) % 2)


HELD = Chosen(labelled(40), np.arange(20))
# Parts, several rates, and how many images choose and score, and what the latter are called.
JUDGES: dict[str, tuple[Parts, bool, tuple[int, int, str]]] = {
    "all parts": (Parts(labelled(40), HELD, labelled(6)), True, (20, 6, "evaluation")),
    "all parts, nothing to choose": (Parts(labelled(40), HELD, labelled(6)), False, (20, 6, "evaluation")),
    "held-out images only": (Parts(labelled(40), HELD, None), True, (10, 10, "held-out (the half that chose nothing)")),
    "held-out images only, nothing to choose": (Parts(labelled(40), HELD, None), False, (0, 20, "held-out")),
    "evaluation images only": (Parts(labelled(40), labelled(6), None), False, (0, 6, "evaluation")),
}


@pytest.mark.parametrize("case", JUDGES)
def test_who_judges(case: str) -> None:
    parts, several, expected = JUDGES[case]
    config = LinearProbeConfig(init_from="x")
    if not several:
        config = replaced(config, ["optimizer", "base_learning_rates"], (0.1,))
    judges = judges_of(config, parts)
    choosing = 0 if judges.choosing is None else len(judges.choosing)
    assert (choosing, len(judges.scoring), judges.name) == expected and judges.chooses == several
    assert set(judges.scoring.labels.tolist()) == {0, 1}


def test_halves_of_the_held_out_images_share_none() -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    held = Chosen(ArraySource(images, np.arange(40, dtype=np.int32) % 4), np.arange(30))
    judges = judges_of(LinearProbeConfig(init_from="x"), Parts(labelled(4), held, None))
    assert judges.choosing is not None
    shown = [{int(part.image(i)[0, 0, 0]) for i in range(len(part))} for part in (judges.choosing, judges.scoring)]
    assert shown[0] | shown[1] == set(range(30)) and not shown[0] & shown[1]
    with pytest.raises(ValueError, match=r"data.holdout=0.05 holds out 2 images, too few to choose by one half"):
        judges_of(LinearProbeConfig(init_from="x"), Parts(labelled(4), Chosen(labelled(40), np.arange(2)), None))


@pytest.mark.medium
def test_batches_begin_anywhere_and_leave_unknown_classes_out() -> None:
    source = ArraySource(np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3)).astype(np.uint8),
                         np.array([-1, 0, 1, 2] * 3, np.int32))  # fmt: skip
    settings: dict[str, Any] = {"batch_size": 3, "image_size": 8, "views": ProbeViews(), "seed": 1, "steps": 6}
    whole = list(probing_dataset(source, **settings).as_numpy_iterator())
    later = list(probing_dataset(source, **settings, start_step=4).as_numpy_iterator())
    assert all(
        np.array_equal(a, b)
        for one, other in zip(whole[4:], later, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert whole[0][0].shape == (3, 8, 8, 3) and whole[0][0].dtype == np.uint8
    assert sorted(np.concatenate([labels for _, labels in whole[:3]]).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert not np.array_equal(whole[0][0], whole[3][0])  # each epoch has its own


@pytest.mark.medium
def test_logistic_regression_chooses_refits_and_scores(encoder: Path, tmp_path: Path) -> None:
    own = tmp_path / "encoder.keras"
    shutil.copy(encoder, own)
    outcome = linear_probe(LinearProbeConfig(init_from=str(own), solver="logistic"))
    result, network = outcome.result, keras.saving.load_model(own)
    assert result is not None and result.protocol == "logistic_probe" and outcome.path is not None
    assert outcome.path.parent == tmp_path / "results" and read_result(outcome.path) == result
    from lut_tf.evaluate.features import encoder_features

    parts = [digits(part) for part in ("train", "validation", "heldout")]
    x = [encoder_features(network, "cls")(part, np.arange(len(part))) for part in parts]
    y = [part.labels for part in parts]
    shares, best = result.details["choosing_images"]["cls"], result.details["inverse_strength"]["cls"]
    assert shares.keys() == {f"{c:g}" for c in INVERSE_STRENGTHS} and shares[f"{best:g}"] == max(shares.values())
    assert shares[f"{best:g}"] == pytest.approx(np.mean(logistic_fit(x[0], y[0], best).predict(x[1]) == y[1]))
    fit = logistic_fit(np.concatenate(x[:2]), np.concatenate(y[:2]), best)
    assert result.figures["cls/top1"].value == pytest.approx(np.mean(fit.predict(x[2]) == y[2]))
    assert not (tmp_path / "encoder_probe").exists()


def test_where_a_probe_is_written() -> None:
    def place(source: str) -> str:
        return LinearProbeConfig(init_from=source).run_dir

    assert (place("runs/a"), place("runs/v1.2"), place("w/mae.pth")) == (
        "runs/a/probe",
        "runs/v1.2/probe",
        "w/mae_probe",
    )
    assert LinearProbeConfig(init_from="runs/a", run_dir="here").run_dir == "here"
    config = LinearProbeConfig(init_from="runs/a")
    assert from_yaml(to_yaml(config), LinearProbeConfig) == config


FOLDER = ["--data.source", "image_folder", "--data.path", "{}/images", "--optimizer.batch_size", "4"]
# Words of the command line, and what the one line says.
MISTAKES: dict[str, tuple[list[str], str]] = {
    "no encoder": ([], "init_from=null, but a probe measures an encoder: give"),
    "nothing there": (["{}/nothing"], "nothing' does not exist"),
    "a classifier": (["{}/classifier.keras"], "holds a ViTClassifier, and an encoder is wanted"),
    "another probe": (["{}/probe"], "is the run of a linear probe, which keeps no encoder"),
    "no rate": (["{}/encoder.keras", "--optimizer.base_learning_rates", "[]"], "base_learning_rates=[] is empty"),
    "a seed that is not read": (
        ["{}/encoder.keras", "--solver", "logistic", "--seed", "1"],
        "settings of seed are not read by solver=logistic",
    ),
    "a rate twice": (["{}/encoder.keras", "--optimizer.base_learning_rates", "1,1"], "has a rate twice"),
    "a rate of nothing": (
        ["{}/encoder.keras", "--optimizer.base_learning_rates", "0"],
        "base_learning_rates=[0] is out",
    ),
    "a batch larger than the images": (
        ["{}/encoder.keras"],
        "optimizer.batch_size=16384 is larger than the data set of 1197 training images",
    ),
    "no image to score on": (
        ["{}/encoder.keras", *FOLDER, "--data.holdout", "0"],
        "data.evaluation_path=null and data.holdout=0 leave no images to score on: give --data.evaluation_path",
    ),
    "no image to choose by": (
        ["{}/encoder.keras", *FOLDER, "--data.holdout", "0", "--data.evaluation_path", "{}/images"],
        "data.holdout=0 leaves no images to choose one of several optimizer.base_learning_rates by",
    ),
    "too few images held out": (
        ["{}/encoder.keras", *FOLDER, "--data.holdout", "0.25"],
        "holds out 2 images, too few to choose by one half",
    ),
    "no labels": (
        ["{}/encoder.keras", *FOLDER[:2], "--data.path", "{}/images/a", "--data.holdout", "0"],
        "the training images have no labels",
    ),
    "one class": (["{}/encoder.keras", *FOLDER[:2], "--data.path", "{}/one", "--data.holdout", "0"], "of one class"),
    "settings that logistic does not read": (
        ["{}/encoder.keras", "--solver", "logistic", "--epochs", "9"],
        "settings of epochs are not read by solver=logistic: leave them out",
    ),
    "an input of another size than the patches": (
        ["{}/encoder.keras", "--image_size", "17", "--optimizer.batch_size", "64"],
        "image_size",
    ),  # fmt: skip
}


@pytest.fixture(scope="module")
def places(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lut_tf.models.classifier import ViTClassifier

    root = tmp_path_factory.mktemp("places")
    for number in range(8):
        for path in (root / "images" / "ab"[number % 2], root / "one" / "a"):
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number}.png").write_bytes(png(number))
    shutil.copy(encoder, root / "encoder.keras")
    (root / "probe").mkdir()
    (root / "probe" / "config.yaml").write_text(to_yaml(LinearProbeConfig(init_from="x")), encoding="utf-8")
    ViTClassifier.from_encoder(tiny_encoder(), classes=2).save(root / "classifier.keras")
    return root


@pytest.mark.parametrize("case", MISTAKES)
def test_what_bad_input_gets(case: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, said = MISTAKES[case]
    assert main(["probe", *(word.format(places) for word in words)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(said in line for line in lines) and all(line.startswith("lut-tf: error: ") for line in lines), lines
    assert sorted(path.name for path in places.iterdir()) == [
        "classifier.keras", "encoder.keras", "images", "one", "probe",
    ]  # fmt: skip


def test_a_run_may_not_go_on_with_other_rates(encoder: Path, tmp_path: Path) -> None:
    config = probe_config(encoder, tmp_path)
    (tmp_path / "checkpoints" / "step_00000001").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    other = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, base_learning_rates=(1.0,)))
    with pytest.raises(ValueError, match=r"holds a run of another configuration \(optimizer.base_learning_rates"):
        linear_probe(other)
