"""What was meant by a setting that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args

# What other programs, and people, call settings.
USUAL = {
    "accum_iter": "optimizer.accumulate", "arch": "encoder.preset", "backbone": "encoder.preset",
    "base_lr": "optimizer.base_learning_rate", "batch": "optimizer.batch_size", "blr": "optimizer.base_learning_rate",
    "bs": "optimizer.batch_size", "clip_grad": "optimizer.clip_norm", "data": "data.path", "data_dir": "data.path",
    "data_path": "data.path", "data_root": "data.path", "dataset": "data.source", "decay": "optimizer.weight_decay",
    "encoder": "encoder.preset", "gpus": "devices", "img_size": "encoder.image_size",
    "input_size": "encoder.image_size", "learning_rate": "optimizer.base_learning_rate", "log_dir": "run_dir",
    "lr": "optimizer.base_learning_rate", "mask": "method.mask_ratio", "model": "encoder.preset",
    "num_epochs": "epochs", "num_gpus": "devices", "num_workers": "data.parallel_calls", "objective": "method.name",
    "out_dir": "run_dir", "output": "run_dir", "output_dir": "run_dir", "resume": "run_dir", "save_dir": "run_dir",
    "save_every": "checkpoint.every_epochs", "save_freq": "checkpoint.every_epochs", "train_dir": "data.path",
    "val_dir": "data.evaluation_path", "validation_split": "data.holdout",
    "val_path": "data.evaluation_path", "wd": "optimizer.weight_decay",
    "warmup": "optimizer.warmup_epochs", "world_size": "devices",
}  # fmt: skip
RESUMES = " (a run that is started again on its run_dir goes on by itself)"


def nearest(name: str, known: Iterable[str], dashes: str = "") -> str:
    """Return `, did you mean X?` for the known names that are most like `name`, or nothing."""
    candidates = list(known)
    name = name.replace("-", "_").lower()
    leaf = _leaf(name)
    meant = [candidate for candidate in candidates if _leaf(candidate) == leaf]
    if not meant and USUAL.get(leaf) in candidates:
        meant = [USUAL[leaf]]
    meant = (
        difflib.get_close_matches(name, meant, n=3, cutoff=0)
        or difflib.get_close_matches(name, candidates, n=1)
        or _like(leaf, candidates)
    )
    if not meant:
        return ""
    return f", did you mean {' or '.join(dashes + one for one in meant)}?{RESUMES if leaf == 'resume' else ''}"


def meant_in_group(group: str, value: Any, settings: dict[str, Any]) -> str | None:
    """Return the setting of a group that a value given to the group itself is meant for, or None.

    Args:
        group: its dotted name.
        value: what was given.
        settings: names and types of all settings.
    """
    inside = {name: hint for name, hint in settings.items() if name.startswith(f"{group}.")}
    choices = [name for name, hint in inside.items() if value in _choices(hint)]
    usual = USUAL.get(group)
    return choices[0] if choices else usual if isinstance(value, str) and usual in inside else None


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _like(leaf: str, candidates: list[str]) -> list[str]:
    close = difflib.get_close_matches(leaf, {_leaf(candidate) for candidate in candidates}, n=1)
    return [candidate for candidate in candidates if close and _leaf(candidate) == close[0]]


def _choices(hint: Any) -> list[Any]:
    """Return the texts that a setting takes one of, if it does."""
    found = [choice for choice in get_args(hint) if isinstance(choice, str)]
    return found + [choice for option in get_args(hint) for choice in _choices(option)]
