"""What is measured of a classifier, as a tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lut_tf.config.data import DataConfig
from lut_tf.config.suggestions import nearest
from lut_tf.config.tree import joined, spell_paths_out
from lut_tf.config.types import show
from lut_tf.errors import told_together
from lut_tf.paths import check_path

SETS = ("v2", "real", "a", "r", "o", "sketch", "objectnet", "si_score")
"""The robustness sets by their short names, in the order of the table."""
ALL = "all"


@dataclass(frozen=True)
class EvaluateConfig:
    """What a classifier is measured on: the images of `data`, or sets that show how robust it is.

    Args:
        suite: robustness sets, such as `v2,real,a`: v2 (ImageNet-V2), real (-ReaL), a, r, o, sketch (ImageNet-A, -R,
            -O, -Sketch), objectnet, si_score; or `all` that are there. They want a classifier of ImageNet's 1,000
            classes. Without any, the images of `data` are asked about.
        suite_path: the folder that holds a sub-folder for each set, called by its short name or as its archive unpacks
            (`v2`, `imagenet-a`, `sketch`, …; `val`: ImageNet's validation images, for real and o), or data sets of
            tensorflow-datasets, as `lut-tf prepare imagenet_a --output FOLDER` puts them there; null: where
            tensorflow-datasets keeps its own.
        data: where the labelled images come from, where there is no suite. Asked about are the evaluation images
            (`data.evaluation_path`, `data.evaluation_split` or `data.holdout`) where they are named, else all of
            `data.path` or `data.split`. A fine-tuning run brings its own.
    """

    suite: tuple[str, ...] = ()
    suite_path: str | None = None
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        spell_paths_out(self, "suite_path")

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets that are wanted, each once, in the order of `SETS`."""
        return tuple(name for name in SETS if name in self.suite or ALL in self.suite)

    def check(self, name: str) -> None:
        """Refuse sets that do not exist, and settings that go with no suite or with a suite only; see `validate`."""
        told_together(lambda: self._check_suite(name), lambda: self._check_path(name))

    def _check_suite(self, name: str) -> None:
        for wanted in self.suite:
            if wanted not in (*SETS, ALL):
                raise ValueError(
                    f"{joined(name, 'suite')}={show(','.join(self.suite))} has no known set {wanted!r}"
                    f"{nearest(wanted, (*SETS, ALL))}: give some of {', '.join(SETS)}, or {ALL}"
                )
        if self.suite and replace(self.data, damaged_share=DataConfig.damaged_share) != DataConfig():
            raise ValueError(
                f"{joined(name, 'suite')}={','.join(self.suite)} is measured on its own sets, and "
                f"data.source={self.data.source} is not read: leave the settings of data out, or the suite"
            )

    def _check_path(self, name: str) -> None:
        path = self.suite_path
        if path is None:
            return
        if not self.suite:
            raise ValueError(f"{joined(name, 'suite_path')}={path!r} is for a suite: give --suite {ALL} too")
        if "://" in path:
            raise ValueError(
                f"{joined(name, 'suite_path')}={path!r} is not on this machine: give a local or mounted folder"
            )
        check_path(joined(name, "suite_path"), path)
