"""Data sets for tensorflow-datasets, which knows them by name once this is imported."""

from __future__ import annotations

from typing import Any

import tensorflow_datasets as tfds
from data_helpers import plain


class LutToy(tfds.core.GeneratorBasedBuilder):
    """Twelve images to train on and four to test on."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples(12), "test": self._generate_examples(4)}

    def _generate_examples(self, count: int) -> Any:
        for number in range(count):
            yield number, {"image": plain(number), "label": number % 2}


class LutManual(LutToy):
    """As above, with a file that only a user can download."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir should contain LUT_images.tar, from example.org."
