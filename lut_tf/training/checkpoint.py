"""Saving where a run stands, so that a kill at any moment loses nothing that was saved, and finding it again.

A checkpoint is a folder `step_00000042/` of TensorFlow checkpoint files and `manifest.json` with their sizes and
SHA-256 sums. It is written under another name and renamed when it is whole: a name that counts is never half-written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from lut_tf.errors import Stopped
from lut_tf.step import Trainable
from lut_tf.writing import remove_unfinished, replacing

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class DamagedCheckpoint(Stopped):
    """A checkpoint's files are not the ones that were written."""


class SaveFailed(Stopped):
    """A checkpoint could not be written; those that were there are untouched."""


class Checkpoints:
    """The checkpoints of one run directory.

    See `state` for what a checkpoint holds.

    Args:
        directory: where the checkpoints lie.
        model: compiled, its optimizer built.
        keep: how many of the newest stay.
        keep_every: checkpoints at multiples of this step stay for ever; 0 keeps none beyond `keep`.
        chief: whether this process writes; the other hosts of a run only read.
    """

    def __init__(
        self, directory: Path, model: Trainable, keep: int = 2, keep_every: int = 0, chief: bool = True
    ) -> None:
        self.directory, self.model, self._keep, self._keep_every = directory, model, keep, keep_every
        self._chief = chief
        self._checkpoint = tf.train.Checkpoint(variables=state(model))

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints there are, oldest first."""
        return steps_in(self.directory)

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return path_of(self.directory, step)

    def save(self, step: int) -> Path:
        """Write a checkpoint of the model as it is.

        Args:
            step: optimizer steps that the run has behind it.

        Raises:
            SaveFailed: it could not be written; those that were there are untouched.
        """
        if self._chief:
            try:
                self._write(step)
            except (OSError, tf.errors.OpError) as error:
                raise SaveFailed(
                    f"the checkpoint of step {step} could not be written to {self.directory} ({_reason(error)}); "
                    f"the last good one is {self.newest()}: make room, then start again to go on from there"
                ) from error
            self._forget_old()
        return self.path(step)

    def newest(self) -> str:
        """Return the newest checkpoint's path for a message, or `none`."""
        return newest(self.directory)

    def _write(self, step: int) -> None:
        with replacing(self.path(step)) as folder:  # also in the place of a damaged one of the same step
            folder.mkdir()
            self._checkpoint.write(str(folder / "state"))
            _write_manifest(folder, step)

    def restore(self) -> int:
        """Load the newest checkpoint that is whole and return its step; 0 where there is none (a fresh start).

        Damaged ones are reported, passed over and renamed `damaged_…`.

        Raises:
            DamagedCheckpoint: there are checkpoints, and none is whole.
        """
        if self._chief:
            remove_unfinished(self.directory)
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            try:
                _verify(self.path(step))
            except DamagedCheckpoint as damage:
                logger.warning("checkpoint of step %d is damaged (%s): trying the one before", step, damage)
                damaged.append(self.path(step))
                continue
            status = self._checkpoint.read(str(self.path(step) / "state"))
            status.assert_existing_objects_matched().expect_partial()
            self._set_aside(damaged)
            return step
        if steps:
            raise DamagedCheckpoint(
                f"none of the {len(steps)} checkpoints in {self.directory} is whole: bring back a copy of one, or give "
                f"another --run_dir to begin anew"
            )
        return 0

    def _forget_old(self) -> None:
        for step in self.steps()[: -self._keep]:
            if not self._keep_every or step % self._keep_every:
                shutil.rmtree(self.path(step), ignore_errors=True)

    def _set_aside(self, damaged: list[Path]) -> None:
        """Rename damaged checkpoints: left in place they would count as the newest, and push good ones out."""
        for path in damaged if self._chief else []:
            aside = path.with_name(f"damaged_{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def steps_in(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in a directory, oldest first."""
    folders = (path.name for path in directory.glob("step_*") if path.is_dir())
    return sorted(int(name[5:]) for name in folders if name[5:].isdigit())


def path_of(directory: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return directory / f"step_{step:08d}"


def newest(directory: Path) -> str:
    """Return the path of the newest checkpoint in a directory for a message, or `none`."""
    steps = steps_in(directory)
    return str(path_of(directory, steps[-1])) if steps else "none"


def state(model: Trainable) -> dict[str, tf.Variable]:
    """Return every variable of a run: student, teacher, BatchNorm statistics, optimizer, running means of the metrics.

    Named one by one, because `tf.train.Checkpoint(model=…)` does not look into a Keras 3 layer's *lists* of layers: it
    leaves blocks and heads out without a word, and gives back only those that the optimizer happens to hold. Numbered,
    because Keras counts the names of layers and optimizers up within a process.
    """
    means = [variable for metric in model.metrics for variable in metric.variables]
    groups = {"model": model.variables, "optimizer": model.optimizer.variables, "means": means}
    named = {f"{group}_{i:04d}": v.value for group, variables in groups.items() for i, v in enumerate(variables)}
    return {**named, "agreement": model.agreement}


def _reason(error: Exception) -> str:
    """Return the system's words for what is wrong with the disk, without TensorFlow's and the path before them."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rsplit("; ", 1)[-1].split(" [Op:")[0][:300]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name != MANIFEST)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, step: int) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sum(path)} for path in _files(folder)}
    (folder / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1), encoding="utf-8")


def _verify(folder: Path) -> None:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read: {error}") from error
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpoint(f"{name} is missing")
        if path.stat().st_size != wanted["bytes"] or _sum(path) != wanted["sha256"]:
            raise DamagedCheckpoint(f"{name} is not what was written")
