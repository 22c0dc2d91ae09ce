"""Whether a run may begin, or go on, in a directory (no TensorFlow)."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

from lut_tf.config import COMPARED_BY_IMAGES, RunConfig, differences, get_setting, may_differ, show
from lut_tf.training.run_directory import GO_ON, IMAGES, RunFiles, facts_of, has_weights, read_saved
from lut_tf.writing import nearest_existing


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
    files, named = RunFiles(folder), f"run_dir={config.run_dir!r}"
    files.check(named)
    if files.config.is_file():
        saved = read_saved(files, type(config), named, GO_ON)
        if has_begun(files):
            _check_same_run(config, saved)


def has_begun(files: RunFiles) -> bool:
    """Tell whether a run has saved anything that was learned; one that has not begins anew, with any settings."""
    return has_weights(files) or files.encoder.is_file() or files.classifier.is_file()


def same_place(one: Any, other: Any) -> bool:
    """Tell whether two settings are the same path in other words: relative or not, by a link, with a slash more."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return one == other
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))


def check_same_images(config: RunConfig, digest: str, images: int) -> None:
    """Refuse to go on with other images than the run has begun with; where they lie does not matter.

    Args:
        config: of the run, whose directory `check_run_dir` has been content with.
        digest: of the images, as `lut_tf.data.reading.digest` finds it.
        images: how many there are to train on.

    Raises:
        ValueError: the images, or where nobody has written down what they were, the folders, are others.
    """
    files = RunFiles(Path(config.run_dir))
    if not (files.config.is_file() and has_begun(files)):
        return
    begun = _begun_with(files)
    if begun is not None:
        if begun == digest:
            return
        what = (
            f"has begun with other images ({IMAGES} in {files.resolved.name}): names, numbers or classes have changed"
        )
        raise ValueError(f"run_dir={config.run_dir!r} {what}: give --data.path of those, or another --run_dir")
    saved = read_saved(files, type(config), f"run_dir={config.run_dir!r}", GO_ON)
    pairs = {name: (get_setting(saved, name), get_setting(config, name)) for name in COMPARED_BY_IMAGES}
    _refuse_others(config, saved, [name for name, pair in pairs.items() if not same_place(*pair)])
    if (number := facts_of(files).get("images", images)) != images:
        raise ValueError(
            f"run_dir={config.run_dir!r} was begun on {number} images, and there are {images} now: give another "
            "--run_dir, or the images of then (files of more formats are read than in earlier versions)"
        )


def _begun_with(files: RunFiles) -> str | None:
    """Return the digest in `resolved.json`; None where there is none, as in earlier versions', or in a torn file."""
    found = facts_of(files).get(IMAGES)
    return found if isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found) else None


def _check_same_run(config: RunConfig, saved: RunConfig) -> None:
    changed = [name for name in differences(saved, config) if not may_differ(name) and name not in COMPARED_BY_IMAGES]
    if "init_from" in changed and (
        config.strategy == "multi_worker"  # hosts may have the weights in different places
        or same_place(get_setting(saved, "init_from"), get_setting(config, "init_from"))
    ):
        changed.remove("init_from")
    _refuse_others(config, saved, changed)


def _refuse_others(config: RunConfig, saved: RunConfig, changed: list[str]) -> None:
    """Name the settings that may not change when a run goes on.

    Raises:
        ValueError: there are any.
    """
    if not changed:
        return
    listed = "; ".join(
        f"{name} was {show(get_setting(saved, name))}, now {show(get_setting(config, name))}" for name in changed
    )
    files = RunFiles(Path(config.run_dir))
    whole = has_weights(files)
    starts = whole and hasattr(config, "encoder") and not any(name.startswith("encoder.") for name in changed)
    more = f" (with --init_from {shlex.quote(config.run_dir)} it starts from these weights)" if starts else ""
    raise ValueError(
        f"run_dir={config.run_dir!r} holds a run of another configuration ({listed}): "
        f"give another --run_dir{more}, or the old value{'s' if len(changed) > 1 else ''}"
    )
