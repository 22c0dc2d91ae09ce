"""Recipes start on data sets of their size: 1.28 million training and 50,000 evaluation images of 1,000 classes.

The data set is made: its listing names two photographs again and again. The networks are narrow, because two cores
would need hours for ViT-B on the 20,000 images of the first probe; data, batch, probes and all else are the recipe's.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from runs import CONFIGS, replaced
from sklearn.datasets import load_sample_image

from lut_tf.config import from_yaml, validate
from lut_tf.data.reading.cache import Texts
from lut_tf.data.reading.folder import FolderListing
from lut_tf.data.reading.listing import Listing
from lut_tf.tasks.pretrain import pretrain

TRAINING, EVALUATION, CLASSES = 1_281_167, 50_000, 1_000
NARROW = {
    "encoder__width": 24, "encoder__depth": 1, "encoder__heads": 2, "decoder__width": 16, "decoder__depth": 1,
    "decoder__heads": 2, "method__head__hidden": 32,
}  # fmt: skip


class FirstStep(Exception):
    """The run has taken it."""


def listing_of(files: list[bytes], count: int) -> FolderListing:
    labels = np.sort(np.arange(count, dtype=np.int32) % CLASSES)
    return FolderListing(
        Texts.of([files[i % len(files)] for i in range(count)]),
        labels,
        [str(i) for i in range(CLASSES)],
        np.zeros(0, np.int64),
        {},
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lut_vit_base_imagenet", "mae_vit_large_imagenet"])
def test_an_imagenet_recipe_starts(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines, probes' features and the first step, in bounded memory.

    10 GiB: nearly all of it are batches of 4,096 on one machine, 1.2 GB of bytes each for two views, and a micro-batch
    of 1,024 as floats; the 20,000 images of the probe are features of a few MB.
    """
    files = []
    for name in ("china", "flower"):
        path = tmp_path / f"{name}.jpg"
        Image.fromarray(load_sample_image(f"{name}.jpg")).resize((500, 375)).save(path)
        files.append(str(path).encode())
    config = from_yaml((CONFIGS / f"{recipe}.yaml").read_text(encoding="utf-8"))
    wanted = {name: value for name, value in NARROW.items() if config.method.name == "lut" or "head__" not in name}
    for name, value in {**wanted, "run_dir": str(tmp_path / "run")}.items():
        config = replaced(config, name.split("__"), value)
    validate(config)
    listing = Listing(TRAINING, EVALUATION, listing_of(files, TRAINING), listing_of(files, EVALUATION))

    def stop(self: object, batch: int, logs: object = None) -> None:
        raise FirstStep

    monkeypatch.setattr(keras.callbacks.TensorBoard, "on_train_batch_end", stop)
    monkeypatch.setattr("lut_tf.training.callbacks.TensorBoard", lambda path: keras.callbacks.TensorBoard(str(path)))
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FirstStep):
        pretrain(config, listing)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"{recipe}: first step after {time.monotonic() - start:.0f} s, {more:.1f} GiB more than before")
    assert more < 10
