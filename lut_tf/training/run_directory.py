"""A run's directory: what is written where, and what of a run is there (no TensorFlow)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from lut_tf.config import TREES, Config, RunConfig, from_yaml, verb_of
from lut_tf.config.data import SOURCE_SETTINGS
from lut_tf.config.run import DATA_BEFORE
from lut_tf.paths import spelled_out
from lut_tf.writing import write_text

CHECKPOINT = re.compile(r"step_([0-9]{8,})")
IMAGES, EVALUATION_IMAGES = "images_digest", "evaluation_digest"
"""The names in `resolved.json` of the digests of what the run learns from, and of what its closing table is about."""

GO_ON = (
    "bring back a copy of it; or remove it and give the run's own settings to go on, or another --run_dir to begin anew"
)

Tree = TypeVar("Tree", bound=RunConfig)


@dataclass(frozen=True)
class RunFiles:
    """Where a run writes what (inside a checkpoint: `lut_tf.training.checkpoint`)."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def resolved(self) -> Path:
        """What the settings came to: peak learning rate, batch, steps, devices, parameters."""
        return self.root / "resolved.json"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.root / "metrics.jsonl"

    @property
    def probes(self) -> Path:
        """Accuracies before and after training."""
        return self.root / "probes.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's logs."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """What the run goes on from when it is started again."""
        return self.root / "checkpoints"

    @property
    def pictures(self) -> Path:
        """Reconstructions, confusion of classes, and curves."""
        return self.root / "pictures"

    @property
    def curves(self) -> Path:
        """Losses and probes over the epochs."""
        return self.pictures / "curves.png"

    @property
    def encoder(self) -> Path:
        """The encoder, as Keras saves it."""
        return self.root / "encoder.keras"

    @property
    def weights(self) -> Path:
        """The weights of the whole model: student, decoder, heads, teacher; or classifier and average."""
        return self.root / "model.weights.h5"

    @property
    def classifier(self) -> Path:
        """The fine-tuned classifier as the last epoch left it, as Keras saves it."""
        return self.root / "classifier.keras"

    @property
    def best(self) -> Path:
        """The classifier of the epoch with the best validation accuracy."""
        return self.root / "best.keras"

    @property
    def candidates(self) -> Path:
        """What may become the best while the run goes on."""
        return self.root / "best"

    @property
    def structure(self) -> Path:
        """The classifier's arguments: a run that goes on need not find its first encoder again."""
        return self.root / "classifier.json"

    @property
    def classes(self) -> Path:
        """A line for each class: how many images, how many of them right, what the others were taken for."""
        return self.root / "classes.csv"

    @property
    def confusion(self) -> Path:
        """Which classes were taken for which."""
        return self.pictures / "confusion.png"

    @property
    def exported(self) -> Path:
        """Files for serving, where no other directory is asked for."""
        return self.root / "export"

    @property
    def lock(self) -> Path:
        """Held by the process that runs; its text says which."""
        return self.root / "lock"

    def check(self, named: str) -> None:
        """Refuse a folder where the run writes a file, and a file where it keeps a folder.

        Args:
            named: the run directory in the message.

        Raises:
            ValueError: the first that is in the way.
        """
        files = (
            self.config, self.resolved, self.metrics, self.probes, self.curves, self.encoder, self.weights, self.lock,
            self.classifier, self.best, self.structure, self.classes, self.confusion,
        )  # fmt: skip
        wrong = [(path, "folder", "file") for path in files if path.is_dir()]
        folders = (self.checkpoints, self.pictures, self.tensorboard, self.candidates)
        wrong += [(path, "file", "folder") for path in folders if path.exists() and not path.is_dir()]
        for path, found, wanted in wrong:
            raise ValueError(
                f"{named} holds the {found} {path.relative_to(self.root)} where a run keeps a {wanted}: move it away, "
                "or give another --run_dir"
            )


class Saved(NamedTuple, Generic[Tree]):
    """Where a run directory keeps the weights of its whole model.

    Attributes:
        files: of the run.
        config: of the run.
        step: of the checkpoint that was asked for; None: of the finished model, or the newest checkpoint that is whole.
    """

    files: RunFiles
    config: Tree
    step: int | None

    @property
    def finished(self) -> bool:
        """Whether the weights are those that the run left when it was through; see `is_through`."""
        return self.step is None and self.files.weights.is_file() and is_through(self.files)


def find_saved(
    run_dir: str | os.PathLike[str],
    step: int | None = None,
    setting: str = "source",
    tree: type[Tree] = Config,  # type: ignore[assignment]
) -> Saved[Tree]:
    """Return where a run keeps its weights, having looked at names alone.

    Args:
        run_dir: of a run, finished or not.
        step: of the checkpoint that is wanted; None takes the finished model, else the newest checkpoint.
        setting: what errors call `run_dir`.
        tree: of the task that it must be a run of; pre-training by default.

    Raises:
        FileNotFoundError: there is no configuration, no such checkpoint, or no weights at all.
        ValueError: the configuration cannot be read, or is another task's.
    """
    files, named = RunFiles(Path(spelled_out(run_dir))), f"{setting}={str(run_dir)!r}"
    if not files.config.is_file():
        raise FileNotFoundError(f"{named} holds no {files.config.name}: give the directory of a run")
    config, steps = read_saved(files, tree, named, "give the directory of another run"), steps_in(files.checkpoints)
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise FileNotFoundError(f"step={step} is no checkpoint of {named}, which has {there}: give one of them")
    if not has_weights(files):
        raise FileNotFoundError(
            f"{named} holds neither {files.weights.name} nor a checkpoint: give the directory of a run that has saved "
            "something"
        )
    return Saved(files, config, step)


def is_through(files: RunFiles) -> bool:
    """Tell whether the networks that lie in a run's directory are its last, and no checkpoint is of a later start.

    A run that a callback has stopped leaves its networks and goes on when it is started again; and where checkpoints
    were removed a run begins anew beside those of the one before. Without checkpoints there is nothing else.
    """
    steps, facts = steps_in(files.checkpoints), facts_of(files)
    epochs, of_each = facts.get("epochs"), facts.get("steps_per_epoch")
    return not (steps and isinstance(epochs, int) and isinstance(of_each, int)) or steps[-1] >= epochs * of_each


def steps_in(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in a directory, oldest first."""
    names = (path.name for path in directory.glob("step_*") if path.is_dir())
    return sorted(int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name)))


def path_of(directory: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return directory / f"step_{step:08d}"


def newest(directory: Path) -> str:
    """Return the path of the newest checkpoint in a directory for a message, or `none`."""
    steps = steps_in(directory)
    return str(path_of(directory, steps[-1])) if steps else "none"


def has_weights(files: RunFiles) -> bool:
    """Tell whether there are weights of the whole model."""
    return files.weights.is_file() or bool(steps_in(files.checkpoints))


def read_saved(files: RunFiles, tree: type[Tree], named: str, remedy: str) -> Tree:
    """Return the configuration that a run directory holds.

    Settings that did not exist when the run was begun are as it went without them.

    Args:
        files: of the run.
        tree: of its task.
        named: the run directory in the message.
        remedy: what the message says can be done.

    Raises:
        ValueError: it is empty, this version cannot read it, or the run is another task's.
    """
    try:
        text = files.config.read_text(encoding="utf-8")
        if not text.strip("\0 \n"):
            raise ValueError("it is empty")
    except ValueError as error:
        raise _unreadable(files, named, error, remedy) from error
    verb, wanted = verb_of(text), next((verb for verb, known in TREES.items() if known is tree), None)
    if wanted is not None and verb not in (wanted, None):
        raise ValueError(
            f"{named} is the directory of a run of lut-tf {verb}, and one of lut-tf {wanted} is wanted: give another"
        )
    try:
        read = SOURCE_SETTINGS[from_yaml(text, tree).data.source]
        return from_yaml(text, tree, {f"data.{name}": value for name, value in DATA_BEFORE.items() if name in read})
    except ValueError as error:
        raise _unreadable(files, named, error, remedy) from error


def _unreadable(files: RunFiles, named: str, error: ValueError, remedy: str) -> ValueError:
    return ValueError(f"{named} holds a {files.config.name} that this version cannot read ({error}): {remedy}")


def verb_of_run(files: RunFiles) -> str | None:
    """Return the verb of `lut-tf` whose run a directory holds; None where its configuration does not tell."""
    try:
        return verb_of(files.config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def facts_of(files: RunFiles) -> dict[str, Any]:
    """Return what `resolved.json` says; nothing where it is torn or not there."""
    try:
        facts = json.loads(files.resolved.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


class Structure(NamedTuple):
    """What a fine-tuning run has written down of its classifier.

    Attributes:
        origin: where the encoder that it began with is from, in words.
        checksum: of that encoder; see `lut_tf.interop.sources`.
        classifier: the classifier's arguments, as `ViTClassifier.get_config` returns them.
    """

    origin: str
    checksum: str
    classifier: dict[str, Any]


def structure_of(files: RunFiles) -> Structure | None:
    """Return what `classifier.json` says; None where it is torn or not there."""
    try:
        found = json.loads(files.structure.read_text(encoding="utf-8"))
        return Structure(str(found["origin"]), str(found["checksum"]), dict(found["classifier"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_structure(files: RunFiles, structure: Structure) -> None:
    """Write it for `structure_of`, so that the encoder's own file may be gone when the run goes on."""
    write_text(files.structure, json.dumps(structure._asdict(), indent=2, ensure_ascii=False) + "\n")
