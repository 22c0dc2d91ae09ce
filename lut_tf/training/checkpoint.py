"""Saving where a run stands, so that a kill at any moment loses nothing that was saved, and finding it again.

A checkpoint is a folder `step_00000042/` of TensorFlow checkpoint files and `manifest.json` with their sizes and
SHA-256 sums. It is written under another name and renamed when it is whole: a name that counts is never half-written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from lut_tf.errors import Stopped
from lut_tf.paths import without_patterns
from lut_tf.step import Trainable
from lut_tf.training.run_directory import newest, path_of, steps_in
from lut_tf.writing import remove_unfinished, replacing

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
WEIGHTS = "model"
"""What the names of the model's own variables begin with."""
COUNTED = re.compile(r"_\d+(?=/|$)")


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
            _write_manifest(folder, step, described(self.model))

    def restore(self) -> int:
        """Load the newest checkpoint that is whole and return its step; 0 where there is none (a fresh start).

        Damaged ones are reported, passed over and renamed `damaged_…`.

        Raises:
            DamagedCheckpoint: there are checkpoints, and none is whole.
            ValueError: the newest whole one holds other variables, or in another order: another version's.
        """
        if self._chief:
            remove_unfinished(self.directory)
        steps = self.steps()
        if not steps:
            return 0
        try:
            step, held, damaged = _newest_whole(self.directory, steps)
        except DamagedCheckpoint as error:
            raise DamagedCheckpoint(
                f"{error}: bring back a copy of one, or give another --run_dir to begin anew"
            ) from error
        try:
            _read(self._checkpoint, self.path(step), held, described(self.model))
        except ValueError as error:
            remedy = "give the settings and the version that it was made with, or another --run_dir"
            raise ValueError(f"{error}: {remedy}") from error
        self._set_aside(damaged)
        return step

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


def read_weights(model: Any, directory: Path, step: int | None = None) -> int:
    """Load the weights of a checkpoint alone — student, teacher, BatchNorm statistics — and return its step.

    Nothing on the disk is touched: the run that the checkpoint belongs to may be under way. The messages of errors are
    the reason alone: callers know what can be done.

    Args:
        model: of the run's configuration; it need not be compiled.
        directory: where the checkpoints lie; there is one at least.
        step: of the checkpoint; None takes the newest that is whole.

    Raises:
        DamagedCheckpoint: the one that was asked for, or every one, is damaged.
        ValueError: it holds another network.
    """
    found, held, _ = _newest_whole(directory, steps_in(directory) if step is None else [step])
    weights = _weights(model)
    if held is not None:
        held = {name: what for name, what in held.items() if name.startswith(f"{WEIGHTS}_")}
    checkpoint = tf.train.Checkpoint(variables={name: variable.value for name, variable in weights.items()})
    _read(checkpoint, path_of(directory, found), held, _described(weights))
    return found


def _newest_whole(directory: Path, steps: list[int]) -> tuple[int, dict[str, Any] | None, list[Path]]:
    """Return the step of the newest checkpoint that is whole, its variables by name, and the damaged newer ones.

    The variables are None in checkpoints of the first version, which do not name them.

    Raises:
        DamagedCheckpoint: none of `steps` is whole.
    """
    damaged: list[Path] = []
    for step in reversed(steps):
        try:
            return step, _verify(path_of(directory, step), step).get("variables"), damaged
        except DamagedCheckpoint as damage:
            before = ": trying the one before" if step != steps[0] else ""
            logger.warning("checkpoint of step %d is damaged (%s)%s", step, damage, before)
            damaged.append(path_of(directory, step))
    what = f"{damaged[0]} is not" if len(steps) == 1 else f"none of the {len(steps)} checkpoints in {directory} is"
    raise DamagedCheckpoint(f"{what} whole")


def _read(
    checkpoint: tf.train.Checkpoint, folder: Path, held: dict[str, Any] | None, wanted: dict[str, list[Any]]
) -> None:
    """Read a checkpoint, and refuse to read weights into others' places.

    Raises:
        ValueError: it holds other variables, or in another order.
    """
    odd = [name for name in sorted(wanted.keys() | held.keys()) if wanted.get(name) != held.get(name)] if held else []
    if odd and held:
        found, here = held.get(odd[0], "nothing"), wanted.get(odd[0], "nothing")
        raise _others(folder, f"{odd[0]} is {found} there and {here} here")
    try:
        with without_patterns(folder) as plain:
            status = checkpoint.read(str(plain / "state"))
            status.assert_existing_objects_matched().expect_partial()
    except (ValueError, AssertionError, tf.errors.OpError) as error:  # of the first version, whose names nobody knows
        raise _others(folder, str(error).splitlines()[0][:200]) from error


def _others(folder: Path, why: str) -> ValueError:
    return ValueError(f"{folder} is of a run with other settings, or of another version ({why})")


def _weights(model: Any) -> dict[str, Any]:
    return _enumerated({WEIGHTS: model.variables})


def _numbered(model: Trainable) -> dict[str, Any]:
    """Return the Keras variables of a run: student, teacher, BatchNorm statistics, optimizer, means of the metrics."""
    means = [variable for metric in model.metrics for variable in metric.variables]
    return {**_weights(model), **_enumerated({"optimizer": model.optimizer.variables, "means": means})}


def _enumerated(groups: dict[str, Any]) -> dict[str, Any]:
    return {f"{group}_{i:04d}": v for group, variables in groups.items() for i, v in enumerate(variables)}


def state(model: Trainable) -> dict[str, tf.Variable]:
    """Return everything that a run saves, by name.

    Named one by one, because `tf.train.Checkpoint(model=…)` does not look into a Keras 3 layer's *lists* of layers: it
    leaves blocks and heads out without a word, and gives back only those that the optimizer happens to hold. Numbered,
    because Keras counts the names of layers and optimizers up within a process.
    """
    return {**{name: variable.value for name, variable in _numbered(model).items()}, "agreement": model.agreement}


def described(model: Trainable) -> dict[str, list[Any]]:
    """Return path and shape of each numbered variable, the path without what Keras counts up within a process."""
    return _described(_numbered(model))


def _described(numbered: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [COUNTED.sub("", v.path), list(v.shape)] for name, v in numbered.items()}


def _reason(error: Exception) -> str:
    """Return the system's words for what is wrong with the disk, without TensorFlow's and the path before them."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rsplit("; ", 1)[-1].split(" [Op:")[0][:300]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name != MANIFEST)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, step: int, variables: dict[str, list[Any]]) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sum(path)} for path in _files(folder)}
    manifest = {"step": step, "files": files, "variables": variables}
    text = json.dumps({**manifest, "sha256": _own_sum(manifest)}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _own_sum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _verify(folder: Path, step: int) -> dict[str, Any]:
    """Return a checkpoint's manifest if its files are those that were written.

    Raises:
        DamagedCheckpoint: they are not, or the manifest is not one, or another step's.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wanted = {name: (int(file["bytes"]), str(file["sha256"])) for name, file in manifest["files"].items()}
        said, own = manifest["step"], manifest.pop("sha256", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{MANIFEST} cannot be read: {type(error).__name__} {error}") from error
    if own is not None and own != _own_sum(manifest):  # the first version's has none
        raise DamagedCheckpoint(f"{MANIFEST} is not what was written")
    if said != step:
        raise DamagedCheckpoint(f"{MANIFEST} says step {said}")
    if "state.index" not in wanted or len(wanted) < 2:
        raise DamagedCheckpoint(f"{MANIFEST} names no files of a checkpoint")
    for name, (size, sum_) in wanted.items():
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpoint(f"{name} is missing")
        if path.stat().st_size != size or _sum(path) != sum_:
            raise DamagedCheckpoint(f"{name} is not what was written")
    return manifest
