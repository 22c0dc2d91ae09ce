"""Public data sets, downloaded and prepared by tensorflow-datasets."""

from __future__ import annotations

import importlib.resources.abc
import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from lut_tf.data.preparing.space import check_space

ARCHIVE = re.compile(r"[\w.-]+\.(?:tar\.gz|tar\.bz2|tgz|tar|zip)\b")


def manual_files(instructions: str | None) -> list[str]:
    """Return the archives that a data set's instructions for manual downloads name."""
    return sorted(set(ARCHIVE.findall(instructions or "")))


def import_tfds() -> Any:
    """Return tensorflow-datasets, able to prepare its own data sets.

    Its version 4.9.10 asks for `importlib_resources` as it does so, and requires it of old versions of Python only:
    where it is not installed, the standard library's own, which it became, stands in.
    """
    if "importlib_resources" not in sys.modules and importlib.util.find_spec("importlib_resources") is None:
        sys.modules["importlib_resources"] = importlib.resources
    import tensorflow_datasets as tfds

    return tfds


def prepare_public(name: str, to: str, output: str | None) -> str:
    """Download and prepare a data set of tensorflow-datasets; see `prepare`."""
    os.environ.setdefault("TFDS_DATA_DIR", str(Path.home() / "tensorflow_datasets"))
    tfds = import_tfds()
    from lut_tf.data.reading.public import similar  # imports TensorFlow

    folder = Path(output or os.environ["TFDS_DATA_DIR"]).expanduser()
    try:
        builder = tfds.builder(name, data_dir=str(folder), file_format=to)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        raise ValueError(
            f"SOURCE={name!r} is neither a folder nor a data set of tensorflow-datasets{similar(name)}: "
            "give one of them"
        ) from None
    if not builder.info.splits:
        sizes = [_size(builder.info.download_size), _size(builder.info.dataset_size)]
        check_space(folder, sum(sizes) + _check_manual(builder, folder))
        config = tfds.download.DownloadConfig(manual_dir=str(folder / "downloads" / "manual"))
        builder.download_and_prepare(file_format=to, download_config=config)
    counts = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    where = "" if output is None else f" --data.path {shlex.quote(str(folder))}"
    command = f"lut-tf train --data.source tfds --data.name {shlex.quote(name)}{where}"
    return f"{name} is ready in {builder.data_dir} ({counts}): {command}"


def _size(size: Any) -> int:
    """Return a size in bytes; sizes that tensorflow-datasets does not know count as 0."""
    try:
        return max(int(size), 0)
    except (TypeError, ValueError):
        return 0


def _check_manual(builder: Any, folder: Path) -> int:
    """Return the bytes that manual downloads will unpack to.

    Raises:
        FileNotFoundError: one of them is not where it must be.
    """
    place = folder / "downloads" / "manual"
    names = manual_files(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
    missing = [str(place / name) for name in names if not (place / name).is_file()]
    if missing or (builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not place.is_dir()):
        said = " ".join(str(builder.MANUAL_DOWNLOAD_INSTRUCTIONS).split())
        raise FileNotFoundError(
            f"SOURCE={builder.name!r} needs files that only you can download: put them at "
            f"{', '.join(missing) or place} ({said})"
        )
    return sum((place / name).stat().st_size for name in names)
