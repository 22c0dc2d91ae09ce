"""Guards prepared data sets where tensorflow-datasets need not prepare one: parts of files, and files in buckets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from data_helpers import shown, write_records

from lut_tf.data.reading.public import list_splits, open_split


def builder(splits: dict[str, list[tuple[str, int, int]]]) -> Any:
    """What is asked of a builder: splits as parts of files, and the features of `data_helpers.example`."""
    kinds = {"image/encoded": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b", "c"])}

    def split(parts: list[tuple[str, int, int]]) -> Any:
        instructions = [SimpleNamespace(filename=file, skip=skip, take=take) for file, skip, take in parts]
        return SimpleNamespace(file_instructions=instructions)

    info = SimpleNamespace(
        name="toy",
        features=kinds,
        file_format=tfds.core.FileFormat.TFRECORD,
        splits={name: split(parts) for name, parts in splits.items()},
    )
    return SimpleNamespace(info=info)


@pytest.mark.medium
def test_remote_files_of_several_splits_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = "ram://prepared/0", "ram://prepared/1"
    tf.io.gfile.makedirs("ram://prepared")
    write_records(first, range(5))
    write_records(second, range(5, 8))
    toy = builder({"train": [(first, 0, 3), (second, 1, 2)], "test": [(first, 3, 2)], "none": [(first, 0, 0)]})
    original, whole = tf.data.TFRecordDataset, []
    monkeypatch.setattr(tf.data, "TFRecordDataset", lambda file: whole.append(file) or original(file))
    monkeypatch.setattr(tf.io.gfile, "GFile", None)  # labels that are read once more would fail
    train, test = map(open_split, list_splits(toy, [("train", "data.split"), ("test", "data.evaluation_split")]))
    assert whole == [first, second]
    assert shown(train) == [0, 1, 2, 6, 7] and shown(test) == [3, 4]
    assert train.labels is not None and train.labels.tolist() == [0, 1, 2, 0, 1]
    assert test.labels is not None and test.labels.tolist() == [0, 1] and test.classes == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"data\.split='none' of toy is empty"):
        list_splits(toy, [("none", "data.split")])
