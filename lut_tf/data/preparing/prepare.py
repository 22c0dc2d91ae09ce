"""`lut-tf prepare`: public data sets made ready, and folders of images put into TFRecord files, before any run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from lut_tf.data.reading.records import is_remote

GIB = 2**30
ARCHIVE = re.compile(r"[\w.-]+\.(?:tar\.gz|tar\.bz2|tgz|tar|zip)\b")
FORMATS = ("array_record", "tfrecord")


def prepare(source: str, to: str = "array_record", output: str | None = None, shards: int = 0, workers: int = 0) -> str:
    """Prepare a folder of images or a data set of tensorflow-datasets; what is done already is not done again.

    Args:
        source: an existing folder (only with `to` = tfrecord), or a data set's name (`cifar10`, `imagenet2012`).
        to: the format of the files written: `array_record` or `tfrecord`.
        output: the folder to write to; for public data sets it may be left out (tensorflow-datasets' own place).
        shards: files that a folder is put into; 0: about 1,000 images each.
        workers: processes; 0: one for every core.

    Returns:
        a line that says what is ready and how to use it.

    Raises:
        ValueError, FileNotFoundError, OSError: a mistake, too little space, or manual downloads that are not there.
    """
    if to not in FORMATS:
        raise ValueError(f"--to={to} is no format: give one of {', '.join(FORMATS)}")
    for option, number in (("shards", shards), ("workers", workers)):
        if number < 0:
            raise ValueError(f"--{option}={number} is out of range: give a number from 1 up, or leave it out")
    if is_remote(source):
        raise ValueError(f"SOURCE={source!r} is not on this machine: give a local or mounted folder")
    if not Path(source).expanduser().is_dir():
        if os.sep in source.strip("/") and not re.fullmatch(r"\w+/[\w.]+", source):
            raise FileNotFoundError(f"SOURCE={source!r} is no folder: give a folder of images, or a data set's name")
        return prepare_public(source, to, output)
    if to != "tfrecord":
        raise ValueError(f"--to={to} is for public data sets, and {source!r} is a folder: give --to tfrecord")
    if output is None:
        raise ValueError("--output=null, but a folder's records must go somewhere: give --output FOLDER")
    from lut_tf.data.preparing.shards import write_shards

    return write_shards(source, output, shards, workers or os.cpu_count() or 1)


def check_space(folder: Path, needed: int, option: str = "--output") -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        ValueError: fewer than `needed` bytes are free.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"{option}={str(folder)!r} has {free / GIB:.1f} GiB free and needs {needed / GIB:.1f}: "
            f"make room, or give another {option}"
        )


def manual_files(instructions: str | None) -> list[str]:
    """Return the archives that a data set's instructions for manual downloads name."""
    return sorted(set(ARCHIVE.findall(instructions or "")))


def prepare_public(name: str, to: str, output: str | None) -> str:
    """Download and prepare a data set of tensorflow-datasets; see `prepare`."""
    os.environ.setdefault("TFDS_DATA_DIR", str(Path.home() / "tensorflow_datasets"))
    import tensorflow_datasets as tfds

    folder = Path(output or os.environ["TFDS_DATA_DIR"]).expanduser()
    try:
        builder = tfds.builder(name, data_dir=str(folder), file_format=to)
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        raise ValueError(
            f"SOURCE={name!r} is neither a folder nor a data set of tensorflow-datasets: give one of them"
        ) from None
    if not builder.info.splits:
        sizes = [_size(builder.info.download_size), _size(builder.info.dataset_size)]
        check_space(folder, sum(sizes) + _check_manual(builder, folder))
        config = tfds.download.DownloadConfig(manual_dir=str(folder / "downloads" / "manual"))
        builder.download_and_prepare(file_format=to, download_config=config)
    counts = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    where = "" if output is None else f" --data.path {output}"
    return (
        f"{name} is ready in {builder.data_dir} ({counts}): lut-tf train --data.source tfds --data.name {name}{where}"
    )


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
