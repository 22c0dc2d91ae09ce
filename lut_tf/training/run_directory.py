"""A run's directory: what is written where, and whether a run may begin or go on there (no TensorFlow)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from lut_tf.config import RunConfig, differences, from_yaml, get_setting, may_differ, show
from lut_tf.config.data import SOURCE_SETTINGS
from lut_tf.config.run import DATA_BEFORE
from lut_tf.writing import nearest_existing


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
        """Reconstructions and curves."""
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
        """The weights of the whole method: student, decoder, heads, teacher."""
        return self.root / "model.weights.h5"

    @property
    def exported(self) -> Path:
        """Files for serving, where no other directory is asked for."""
        return self.root / "export"

    @property
    def lock(self) -> Path:
        """Held by the process that runs; its text says which."""
        return self.root / "lock"


def check_run_dir(config: RunConfig) -> None:
    """Refuse a run directory that cannot be written or holds another run; reads the disk and writes nothing.

    Raises:
        PermissionError: it cannot be written.
        ValueError: it cannot be made, or holds a run of another configuration.
    """
    folder = Path(config.run_dir)
    existing = nearest_existing(folder)
    if not existing.is_dir():
        raise ValueError(f"run_dir={config.run_dir!r} cannot be made, {existing} is a file: give another --run_dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"run_dir={config.run_dir!r} cannot be written, there is no write permission in {existing}: "
            "give another --run_dir"
        )
    saved = RunFiles(folder).config
    if saved.is_file():
        _check_same_run(config, _read_saved(config, saved))


def check_images(config: RunConfig, images: int) -> None:
    """Refuse to go on with another number of images than the run was begun on: each step would see others.

    Raises:
        ValueError: there are more or fewer.
    """
    try:
        begun = json.loads(RunFiles(Path(config.run_dir)).resolved.read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing has been begun there
    if begun != images:
        raise ValueError(
            f"run_dir={config.run_dir!r} was begun on {begun} images, and there are {images} now: give another "
            "--run_dir, or the images of then (files of more formats are read than in earlier versions)"
        )


def _read_saved(config: RunConfig, path: Path) -> RunConfig:
    try:
        return from_yaml(_as_begun(path.read_text(encoding="utf-8")), type(config))
    except ValueError as error:
        raise ValueError(
            f"run_dir={config.run_dir!r} holds a config.yaml that this version cannot read ({error}): "
            "give another --run_dir"
        ) from error


def _as_begun(text: str) -> str:
    """Add to a run's settings those that did not exist when it was begun, as it went without them.

    Raises:
        ValueError: it is no YAML.
    """
    try:
        saved = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    data = saved.get("data") if isinstance(saved, dict) else None
    if isinstance(data, dict):
        for setting, value in DATA_BEFORE.items():
            if setting in SOURCE_SETTINGS.get(data.get("source", ""), ()):
                data.setdefault(setting, value)
    return yaml.safe_dump(saved)


def _check_same_run(config: RunConfig, saved: RunConfig) -> None:
    changed = [name for name in differences(saved, config) if not may_differ(name)]
    if changed:
        listed = "; ".join(
            f"{name} was {show(get_setting(saved, name))}, now {show(get_setting(config, name))}" for name in changed
        )
        raise ValueError(
            f"run_dir={config.run_dir!r} holds a run of another configuration ({listed}): "
            f"give another --run_dir, or the old value{'s' if len(changed) > 1 else ''}"
        )
