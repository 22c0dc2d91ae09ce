"""Every setting does something: another value changes what a run builds or does, in the respect named here.

`pretrain` is started as a user starts it, on small images; where it would train, what it has built is
looked at instead. A setting that this file does not know, and one whose use is lost on the way, fail.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_helpers import png, turned
from networks import tiny_batch, tiny_encoder
from PIL import Image
from settings_table import OTHER, changed_all

from lut_tf.config import Config, settings
from lut_tf.data import pretraining_dataset
from lut_tf.data.preparing.prepare import prepare
from lut_tf.errors import Stopped
from lut_tf.step import TrainableModel
from lut_tf.tasks.pretrain import pretrain
from lut_tf.training.strategy import build_strategy

pytestmark = pytest.mark.medium

BASE: dict[str, Any] = {
    "epochs": 4, "encoder.preset": None, "encoder.image_size": 16, "encoder.patch_size": 4, "encoder.width": 16,
    "encoder.depth": 1, "encoder.heads": 2, "decoder.width": 16, "decoder.depth": 1, "decoder.heads": 2,
    "method.head.hidden": 16, "optimizer.batch_size": 16, "optimizer.warmup_epochs": 1.0,
}  # fmt: skip
FOLDER: dict[str, Any] = {
    "data.source": "image_folder", "data.path": "{}/folder", "data.evaluation_path": "{}/folder",
    "optimizer.batch_size": 12, "probe.neighbours": 5,
}  # fmt: skip
RECORDS = {
    **FOLDER,
    "data.source": "tfrecord",
    "data.label_feature": "label",
    "data.path": "{}/records",
    "data.evaluation_path": "{}/records",
}
TFDS = {
    **FOLDER, "data.source": "tfds", "data.path": "{}/tfds", "data.evaluation_path": None, "data.name": "lut_toy",
    "data.evaluation_split": "train", "optimizer.batch_size": 4, "probe.neighbours": 2,
}  # fmt: skip
SIMMIM: dict[str, Any] = {
    "method.name": "simmim", "method.mask_unit": 4, "method.mask_ratio": 0.5, "encoder.depth": 2,
    "method.head.hidden": Config().method.head.hidden,
    **{f"decoder.{part}": getattr(Config().decoder, part) for part in ("width", "depth", "heads")},
}  # fmt: skip
GUIDED = {"method.masking.name": "attention", "method.masking.guide": "teacher"}
# What a setting needs beside it to mean something, `{}` being a folder of images.
BESIDE: dict[str, dict[str, Any]] = {
    "worker_index": {"strategy": "multi_worker", "workers": "a:1,b:1", "worker_index": 1},
    "workers": {"strategy": "multi_worker", "workers": "a:1,b:1,c:1", "worker_index": 0},
    "compute.all_reduce": {"strategy": "mirrored", "devices": 2},
    "data.source": {"optimizer.batch_size": 12, "probe.neighbours": 5},
    "data.path": FOLDER,
    "data.evaluation_path": FOLDER,
    "data.name": TFDS,
    "data.holdout": {**FOLDER, "optimizer.batch_size": 6},
    "data.split": TFDS,
    "data.evaluation_split": TFDS,
    "data.image_feature": RECORDS,
    "data.label_feature": RECORDS,
    "data.apply_exif": {**FOLDER, "data.path": "{}/turned"},
    "data.bits": {**FOLDER, "data.path": "{}/deep"},
    "data.damaged_share": {**FOLDER, "data.path": "{}/damaged", "data.damaged_share": 0.1},
    "views.scale": {"views.crop": "random_resized"},
    "encoder.preset": {"encoder.preset": "vit_tiny_patch16", "encoder.width": None, "encoder.heads": None},
    "method.temperature": {"method.context_distance": "infonce"},
    "method.mask_unit": SIMMIM,
    "method.masking.throw_ratio": GUIDED,
    "method.masking.guide": GUIDED,
    "method.drop_path": SIMMIM,
    "checkpoint.every_minutes": {"checkpoint.every_epochs": 0},
    "checkpoint.on_failure": {"logging.tensorboard": False},
}
# Other values than the table's, where a run must be able to begin with them.
OTHER_HERE: dict[str, dict[str, Any]] = {
    "data.label_feature": {"data.label_feature": None},
    "data.damaged_share": {"data.damaged_share": 0.05},
    "run_dir": {"run_dir": "elsewhere"},
    "init_from": {"init_from": "{}/encoder.keras"},
    "data.source": FOLDER,
    "checkpoint.every_steps": {"checkpoint.every_steps": 50},
    "method.name": {"method.name": "mae", "method.head.hidden": Config().method.head.hidden},
    "method.masking.name": GUIDED,
    "method.masking.guide": {"method.masking.guide": "table"},
    "data.path": {"data.path": "{}/other"},
    "data.evaluation_path": {"data.evaluation_path": "{}/other"},
}


# In which respects a setting is seen; that of the longest name that begins the setting's.
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
    "data.evaluation_path": ["probes"],
    "data.holdout": ["batch", "probes"],
    "data.evaluation_split": ["probes"],
    "data.label_feature": ["probes"],
    "data.parallel_calls": ["calls"],
    "views": ["batch"],
    "encoder": ["networks"],
    "encoder.image_size": ["networks", "batch", "noise", "pixels"],
    "encoder.patch_size": ["networks", "noise"],
    "decoder": ["networks"],
    "method": ["networks"],
    "method.name": ["networks", "batch"],
    "method.teacher_mask_ratio": ["networks", "noise"],
    "optimizer": ["optimizer"],
    "optimizer.batch_size": ["peak", "batch", "fit"],
    "optimizer.max_bad_steps": ["optimizer", "bad steps"],
    "probe": ["probes"],
    "probe.every": ["files"],
    "logging": ["files"],
    "checkpoint": ["files"],
    "checkpoint.on_failure": ["full disk"],
    "compute.precision": ["networks"],
    "compute.teacher_precision": ["networks"],
    "compute.jit_compile": ["optimizer"],
    "compute.all_reduce": ["strategy"],
    "compute.deterministic": ["calls"],
}


# Their other values cannot be read, and that shows that they are asked for.
MISTAKEN = {"method.masking.guide", "data.name", "data.damaged_share", "data.label_feature"}


class Mistake(str):
    """What a run says that cannot begin, or not go on."""


class Enough(Exception):
    """Ends a run where it would train."""


class Watched:
    """A run that does not train: what it built, and what its callbacks make of the steps that it is told it took."""

    def __init__(self, config: Config, respect: str, patch: pytest.MonkeyPatch) -> None:
        self.root, self.respect, self.seen = Path(config.run_dir), respect, None
        self.calls: list[Any] = []
        self.probes: list[Any] = []
        self.clock = count(step=2.0)  # seconds
        watched = self
        patch.setattr(TrainableModel, "fit", lambda model, data, **options: watched.fit(model, data, **options))
        patch.setattr("lut_tf.evaluate.probe.pixel_probe", self.probe)
        patch.setattr("lut_tf.evaluate.probe.encoder_probe", self.probe)
        patch.setattr("lut_tf.tasks.pretrain.draw_reconstructions", self.draw)
        patch.setattr("lut_tf.tasks.pretrain.pretraining_dataset", self.batches)
        patch.setattr("lut_tf.training.run.check_agreement", lambda *arguments: None)  # takes as long as all the rest
        patch.setattr("lut_tf.training.guards.time", SimpleNamespace(monotonic=lambda: next(self.clock)))
        patch.setattr(tf.config.experimental, "enable_op_determinism", lambda: self.calls.append("deterministic"))
        side_by_side = tf.data.Dataset.map

        def mapped(data: Any, function: Any, num_parallel_calls: Any = None, **options: Any) -> Any:
            self.calls.append(num_parallel_calls)
            return side_by_side(data, function, num_parallel_calls=num_parallel_calls, **options)

        patch.setattr(tf.data.Dataset, "map", mapped)

    def probe(self, *arguments: Any, **few_shot: Any) -> dict[str, float]:
        """Note what a probe is asked: size or encoder, images and labels to learn from, images to classify, numbers."""
        what, bank, queries, *numbers = arguments
        sources = [(len(source), source.labels is None or source.labels.tolist()) for source in (bank, queries)]
        self.probes.append([what if isinstance(what, int) else what.image_size, sources, numbers])
        return {"knn": 0.0, "linear": 0.0}

    def batches(self, source: Any, *, batch_size: int, steps: int, **options: Any) -> tf.data.Dataset:
        """Make the pipeline only where it is looked at, and where it is not that of the pictures' one step."""
        if self.respect in ("batch", "noise", "calls") and steps > 1:
            return pretraining_dataset(source, batch_size=batch_size, steps=steps, **options)
        return tf.data.Dataset.from_tensors({"noise": np.zeros((batch_size, 1))})

    def draw(self, model: Any, batch: dict[str, Any], path: Path, title: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(len(batch["noise"])))

    def fit(self, model: Any, data: Any, **options: Any) -> None:
        self.seen = RESPECTS[self.respect](self, model, data, options)
        raise Enough

    def pretend(self, model: Any, callbacks: list[Any], epochs: int, steps: int, bad_step: bool = False) -> None:
        """Tell the callbacks of every step of the run."""
        told = keras.callbacks.CallbackList(callbacks, model=model, steps=steps, epochs=epochs)
        told.on_train_begin()
        for epoch in range(epochs):
            told.on_epoch_begin(epoch)
            for step in range(steps):
                told.on_train_batch_begin(step)
                if bad_step:
                    model.agreement.assign(np.eye(1, model.agreement.shape[0], dtype="float32")[0])
            told.on_epoch_end(epoch, {"loss": 1.0})


def networks(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """Shapes and precisions of all weights, losses of a batch (five digits), the teacher's momentum."""
    losses = model.compute_losses(tiny_batch(model), training=True)
    parts = [(layer.name, layer.compute_dtype) for layer in model.layers]
    shapes = [(variable.path, tuple(variable.shape)) for variable in model.variables]
    momentum = model.momentum_at(0)
    return shapes, parts, {k: f"{float(v):.5g}" for k, v in losses.items()}, momentum is not None and float(momentum)


def optimizer(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """Its rate over the run, decay and betas, and how the model was told to step."""
    one = model.optimizer
    rate = keras.optimizers.schedules.deserialize(one.get_config()["learning_rate"])
    rates = [f"{float(rate(step)):.5g}" for step in (1, 40, 74, 150, 250)]
    told = model.micro_batches, model.clip_norm, model.xla, model.max_bad_steps
    return type(one), rates, one.weight_decay, (one.beta_1, one.beta_2), told


def peak(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """The rate after the one epoch of warm-up."""
    rate = keras.optimizers.schedules.deserialize(model.optimizer.get_config()["learning_rate"])
    return f"{float(rate(options['steps_per_epoch'])):.5g}"


def batch(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """The first batch; its noise, whose length is the patches', is looked at by itself."""
    found = next(data.as_numpy_iterator())
    wanted = found.keys() - {"noise"} if run.respect == "batch" else ["noise"]
    return {name: (found[name].shape, found[name].tobytes()) for name in wanted}


def strategy(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    found = model.distribute_strategy
    reduction = getattr(found.extended, "_cross_device_ops", None)  # there is no public way to ask for it
    return type(found), found.num_replicas_in_sync, type(reduction)


def files(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """Checkpoints, pictures and the images in them, TensorBoard, lines with probes, at the run's end."""
    run.pretend(model, options["callbacks"], options["epochs"], options["steps_per_epoch"])
    root = run.root
    pictures = [(str(path), path.read_bytes()) for path in sorted(root.glob("pictures/*"))]
    lines = [sorted(json.loads(line)) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return sorted(path.name for path in root.glob("checkpoints/*")), pictures, (root / "tensorboard").exists(), lines


@contextmanager
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def outcome(run: Watched, model: Any, data: Any, options: dict[str, Any]) -> Any:
    """How a run with one bad step, or on a full disk, ends."""
    full, shown = run.respect == "full disk", options["callbacks"]
    try:
        with full_disk() if full else nullcontext():
            run.pretend(model, shown, options["epochs"], options["steps_per_epoch"], bad_step=not full)
    except (Stopped, OSError):
        return "stops"
    return "goes on"


RESPECTS: dict[str, Callable[..., Any]] = {
    "networks": networks,
    "optimizer": optimizer,
    "peak": peak,
    "batch": batch,
    "noise": batch,
    "strategy": strategy,
    "files": files,
    "place": lambda run, model, data, options: sorted(map(str, Path().rglob("config.yaml"))),
    "fit": lambda run, model, data, options: [options["epochs"], options["steps_per_epoch"]],
    "probes": lambda run, model, data, options: run.probes,
    "pixels": lambda run, model, data, options: run.probes[0],
    "calls": lambda run, model, data, options: run.calls,
    "bad steps": outcome,
    "full disk": outcome,
    "end": lambda run, model, data, options: "trains",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of images, one with a damaged file among twelve, records with two pictures each, a public set."""
    import toy_data_set  # noqa: F401

    root = tmp_path_factory.mktemp("images")
    for folder, first in (("folder", 0), ("other", 100), ("damaged", 0), ("turned", 0), ("deep", 0)):
        for number in range(14 if folder == "other" else 12):
            path = root / folder / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"torn" if (folder, number) == ("damaged", 3) else png(first + number))
            if folder == "turned":
                Image.open(path).save(path, exif=turned(6))
            if folder == "deep":
                Image.fromarray(np.full((8, 9), 300 * number, np.uint16)).save(path)
    with tf.io.TFRecordWriter(str(root / "records")) as writer:
        for number in range(12):
            features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(number + more)]))
                        for name, more in (("image/encoded", 0), ("png", 50))}  # fmt: skip
            features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    prepare("lut_toy", "tfrecord", str(root / "tfds"))
    tiny_encoder().save(root / "encoder.keras")
    return root


def seen(config: Config, respect: str, folder: Path) -> Any:
    """Return what a run of `config`, begun in an empty folder, is in a respect, or the mistake that it names."""
    if respect == "hosts":
        return hosts(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        watched = Watched(config, respect, patch)
        try:
            pretrain(config)
        except Enough:
            return watched.seen
        except (ValueError, FileNotFoundError) as mistake:
            return Mistake(mistake)
    raise AssertionError("nothing was trained")


def hosts(config: Config) -> Any:
    """Return what TensorFlow is told of a run's hosts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CONFIG", "{}")
        patch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda **options: options)
        build_strategy(config)
        return json.loads(os.environ["TF_CONFIG"])


def respects(name: str) -> list[str]:
    """Return in which respects a setting shows."""
    return SEEN[max((known for known in SEEN if f"{name}.".startswith(f"{known}.")), key=len)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config, str], Any]:
    """Return `seen`, which looks once at each configuration and respect."""
    return cache(lambda config, respect: seen(config, respect, tmp_path_factory.mktemp("base")))


def placed(values: dict[str, Any], images: Path) -> dict[str, Any]:
    return {name: value.format(images) if isinstance(value, str) else value for name, value in values.items()}


# One of each group and respect; the rest are slow, but need no more than a line in `SEEN` to be asked about.
NORMALLY = (
    "seed", "views.padding", "encoder.depth", "method.mask_ratio", "optimizer.weight_decay", "probe.every",
    "checkpoint.keep_every", "compute.precision",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in NORMALLY else pytest.param(name, marks=pytest.mark.slow) for name in settings()]
)
def test_another_value_changes_what_a_run_is(
    name: str, images: Path, base: Callable[[Config, str], Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = changed_all({"run_dir": "run", **BASE, **placed(BESIDE.get(name, {}), images)})
    other = changed_all(placed(OTHER_HERE.get(name, {name: OTHER.get(name)}), images), config)
    for respect in respects(name):
        expected = base(config, respect)
        assert not isinstance(expected, Mistake), expected
        found = seen(other, respect, tmp_path_factory.mktemp("other"))
        assert found != expected, respect
        assert isinstance(found, Mistake) == (name in MISTAKEN), found


@pytest.mark.parametrize(
    "respect",
    [name if name in ("networks", "batch") else pytest.param(name, marks=pytest.mark.slow) for name in RESPECTS],
)
def test_the_same_settings_are_the_same_run(respect: str, base: Callable[[Config, str], Any], tmp_path: Path) -> None:
    """Else the test above would see a difference whatever a setting does."""
    config = changed_all({"run_dir": "run", "logging.tensorboard": False, **BASE})
    assert seen(config, respect, tmp_path) == base(config, respect)
