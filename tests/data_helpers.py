"""Images, files and records that the tests of data share."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image


def picture(height: int = 40, width: int = 60, seed: int = 0) -> Image.Image:
    """A smooth picture, so that JPEG keeps it nearly."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def plain(number: int) -> np.ndarray:
    """An image that is its number all over."""
    return np.full((8, 9, 3), number, np.uint8)


def png(number: int) -> bytes:
    return encoded(Image.fromarray(plain(number)), "PNG")


def example(number: int) -> bytes:
    """The same as a serialised `tf.train.Example`, of class number % 3."""
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(number)])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 3])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path: str | Path, numbers: Iterable[int]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in numbers:
            writer.write(example(number))


def write_files(folder: str | Path, *names: str) -> None:
    """Write images, of which each is its number among the names, on this machine or TensorFlow's file system."""
    for number, name in enumerate(names):
        path = f"{folder}/{name}"
        tf.io.gfile.makedirs(path.rpartition("/")[0])
        tf.io.write_file(path, png(number))


def read(source: Any, *indices: int) -> list[np.ndarray]:
    """Read through a graph, as pipelines do, several at a time."""
    wanted = tf.data.Dataset.from_tensor_slices(np.array(indices, np.int64))
    return list(wanted.map(source.image, num_parallel_calls=3).as_numpy_iterator())


def shown(source: Any) -> list[int]:
    """Return the numbers that `plain` images are, in order."""
    return [int(image[0, 0, 0]) for image in read(source, *range(len(source)))]
