"""Every setting of fine-tuning does something, as `test_settings` has it of pre-training's.

What `test_settings` sees of the same code, and what takes long, is looked at here by `make test-all` alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import test_settings
from data_helpers import turned
from networks import tiny_encoder
from PIL import Image
from settings_table import OTHER_FINETUNING, changed_all
from test_settings import FOLDER, MISTAKEN, RECORDS, TFDS, Enough, Mistake, Watched, hosts, images, placed  # noqa: F401

from lut_tf.config import FinetuneConfig, settings
from lut_tf.data import finetuning_dataset
from lut_tf.evaluate.answers import Answers
from lut_tf.tasks.finetune import finetune

pytestmark = pytest.mark.medium

BASE: dict[str, Any] = {
    "init_from": "{}/deep.keras", "epochs": 4, "optimizer.batch_size": 16, "optimizer.warmup_epochs": 1.0,
    "views.operations": 0,
}  # fmt: skip
# `probe` is not fine-tuning's, and its batches on twelve images are smaller.
WITHOUT_PROBE = {
    source: {name: value for name, value in values.items() if not name.startswith("probe.")}
    for source, values in {"folder": FOLDER, "records": {**RECORDS, "data.path": "{}/records"}, "tfds": TFDS}.items()
}
BESIDE = {
    **{
        name: {key: value for key, value in values.items() if not key.startswith(("probe.", "views.", "method."))}
        for name, values in test_settings.BESIDE.items()
        if name.startswith(("data.", "compute.", "checkpoint.", "worker"))
    },
    "data.source": {"optimizer.batch_size": 12},
    "data.apply_exif": {**WITHOUT_PROBE["folder"], "data.path": "{}/sloped"},
    "views.cutmix": {"views.mixup": 0.0},
    "views.magnitude": {"views.operations": 2},
    "views.magnitude_std": {"views.operations": 2},
}
OTHER_HERE: dict[str, dict[str, Any]] = {
    **{name: values for name, values in test_settings.OTHER_HERE.items() if name.startswith("data.")},
    "data.source": WITHOUT_PROBE["folder"],
    "run_dir": {"run_dir": "elsewhere"},
    "init_from": {"init_from": "{}/deeper.keras"},
    "checkpoint.every_steps": {"checkpoint.every_steps": 50},
    "views.switch": {"views.switch": 1.0},  # the first batch is mixed up by default
}
SEEN = {
    "run_dir": ["place"],
    "init_from": ["networks"],
    "epochs": ["fit", "optimizer"],
    "seed": ["networks", "batch"],
    "strategy": ["strategy"],
    "devices": ["strategy"],
    "workers": ["hosts"],
    "worker_index": ["hosts"],
    "data": ["batch"],
    "data.name": ["end"],
    "data.label_feature": ["end"],
    "data.evaluation_path": ["measures"],
    "data.evaluation_split": ["measures"],
    "data.holdout": ["batch", "measures"],
    "data.parallel_calls": ["calls"],
    "views": ["batch"],
    "classifier": ["networks"],
    "classifier.image_size": ["networks", "batch"],
    "optimizer": ["optimizer"],
    "optimizer.batch_size": ["peak", "batch", "fit"],
    "optimizer.max_bad_steps": ["optimizer", "bad steps"],
    "logging": ["files"],
    "checkpoint": ["files"],
    "checkpoint.on_failure": ["full disk"],
    "compute.precision": ["networks"],
    "compute.jit_compile": ["optimizer"],
    "compute.all_reduce": ["strategy"],
    "compute.deterministic": ["calls"],
}
NORMALLY = (
    "views.smoothing", "classifier.drop_path", "classifier.pooling", "optimizer.layer_decay",
    "optimizer.minimum_learning_rate",
)  # fmt: skip


class WatchedFinetuning(Watched):
    """A fine-tuning run that does not train; what it would guess of its images is that they are of class 0."""

    def __init__(self, config: FinetuneConfig, respect: str, patch: pytest.MonkeyPatch) -> None:
        super().__init__(config, respect, patch)
        patch.setattr("lut_tf.tasks.finetune.finetuning_dataset", self.batches)
        patch.setattr("lut_tf.tasks.finetune_result.answers", self.answers)
        patch.setattr(
            "lut_tf.models.classifier.ViTClassifier.save", lambda model, path: Path(path).write_bytes(b"saved")
        )

    def answers(self, classifier: Any, source: Any, chosen: np.ndarray) -> Answers:
        self.probes.append(len(chosen))
        count = len(chosen)
        return Answers(np.zeros((count, 1), np.int64), np.ones((count, 1), np.float32), np.ones(count, bool))

    def batches(self, source: Any, *, batch_size: int, steps: int, **options: Any) -> Any:
        """Make the pipeline only where it is looked at."""
        if self.respect in ("batch", "calls"):
            return finetuning_dataset(source, batch_size=batch_size, steps=steps, **options)
        return None

    def fit(self, model: Any, data: Any, **options: Any) -> None:
        self.seen = RESPECTS[self.respect](self, model, data, options)
        raise Enough


def networks(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """Shapes, precisions, and the loss of a batch that drops some paths; how slow the average is."""
    random = np.random.default_rng(0)
    classifier = model.classifier
    shape = (4, *classifier.image_size, 3)
    draws = random.random((4, 2 * classifier.encoder.depth), dtype="float32")
    inputs = {"images": random.normal(size=shape).astype("float32"), "drop_path_draws": draws}
    head = classifier.head.kernel.numpy().tobytes()
    classifier.head.kernel.assign(random.normal(size=classifier.head.kernel.shape))  # it begins near 0
    loss = model.compute_losses((inputs, np.eye(4, classifier.classes, dtype="float32")))["total"]
    shapes = [(variable.path.partition("/")[2], tuple(variable.shape)) for variable in model.variables]
    momentum = model.momentum_at(0)
    first = classifier.encoder.class_token.numpy().tobytes(), head, classifier.encoder.compute_dtype
    return shapes, first, f"{float(loss):.6g}", momentum is not None and float(momentum)


def optimizer(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    told = test_settings.optimizer(run, model, data, options)
    rate = keras.optimizers.schedules.deserialize(model.optimizer.get_config()["learning_rate"])
    config = {
        name: str(value)
        for name, value in model.optimizer.get_config().items()
        if name not in ("learning_rate", "name")
    }
    return told, f"{float(rate(10**6)):.3g}", config


def batch(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """The first batch, or where the setting is drop path's, that there are draws for it."""
    inputs, targets = next(data.as_numpy_iterator())
    parts = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    return [(part.shape, part.tobytes()) for part in (*parts, targets)]


def measures(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """The share of images of class 0, and how many there are, by the chief's callback."""
    (probe,) = (callback for callback in options["callbacks"] if type(callback).__name__ == "Probe")
    logs: dict[str, float] = {}
    probe.on_epoch_end(0, logs)
    return logs, run.probes


RESPECTS: dict[str, Callable[..., Any]] = {
    **test_settings.RESPECTS,
    "networks": networks,
    "optimizer": optimizer,
    "batch": batch,
    "measures": measures,
}


def seen(config: FinetuneConfig, respect: str, folder: Path) -> Any:
    """Return what a run of `config`, begun in an empty folder, is in a respect, or the mistake that it names."""
    if respect == "hosts":
        return hosts(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        watched = WatchedFinetuning(config, respect, patch)
        try:
            finetune(config)
        except Enough:
            return watched.seen
        except (ValueError, FileNotFoundError) as mistake:
            return Mistake(mistake)
    raise AssertionError("nothing was trained")


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FinetuneConfig, str], Any]:
    """Return `seen`, which looks once at each configuration and respect."""
    return cache(lambda config, respect: seen(config, respect, tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def here(images: Path) -> Path:  # noqa: F811
    """The folder of images, with two encoders to begin with; drop path leaves a single block alone."""
    for name, depth in (("deep", 2), ("deeper", 3)):
        keras.utils.set_random_seed(depth)
        tiny_encoder(depth=depth).save(images / f"{name}.keras")
    slope = Image.fromarray(np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3))
    for number in range(12):
        (images / "sloped" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        slope.save(images / "sloped" / f"class{number % 2}" / f"{number}.png", exif=turned(6))
    return images


def respects(name: str) -> list[str]:
    return SEEN[max((known for known in SEEN if f"{name}.".startswith(f"{known}.")), key=len)]


def marked(name: str) -> Any:
    return name if name.startswith(NORMALLY) else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in settings(FinetuneConfig)])
def test_another_value_changes_what_a_fine_tuning_run_is(
    name: str, here: Path, looked: Callable[[FinetuneConfig, str], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    beside = placed({**BASE, **BESIDE.get(name, {})}, here)
    config = changed_all({"run_dir": "run", **beside}, FinetuneConfig())
    other = changed_all(placed(OTHER_HERE.get(name, {name: OTHER_FINETUNING.get(name)}), here), config)
    for respect in respects(name):
        expected = looked(config, respect)
        assert not isinstance(expected, Mistake), expected
        found = seen(other, respect, tmp_path_factory.mktemp("other"))
        assert found != expected, respect
        assert isinstance(found, Mistake) == (name in MISTAKEN), found


@pytest.mark.slow
@pytest.mark.parametrize("respect", sorted({respect for found in SEEN.values() for respect in found} - {"hosts"}))
def test_the_same_settings_are_the_same_fine_tuning_run(
    respect: str, here: Path, looked: Callable[[FinetuneConfig, str], Any], tmp_path: Path
) -> None:
    """Else the test above would see a difference whatever a setting does."""
    config = changed_all({"run_dir": "run", **placed(BASE, here), "logging.tensorboard": False}, FinetuneConfig())
    assert json.dumps(str(seen(config, respect, tmp_path))) == json.dumps(str(looked(config, respect)))
