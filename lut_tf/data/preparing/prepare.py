"""`lut-tf prepare`: public data sets made ready, and folders of images put into TFRecord files, before any run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lut_tf.data.preparing.public import prepare_public
from lut_tf.data.preparing.shards import write_shards
from lut_tf.data.reading.remote import is_remote

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
    return write_shards(source, output, shards, workers or os.cpu_count() or 1)
