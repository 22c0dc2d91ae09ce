"""The robustness sets: where each lies, and which of ImageNet's classes are right for each of its images.

Looking for them and listing them needs no TensorFlow, unless they are data sets of tensorflow-datasets.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lut_tf.config.evaluating import ALL, EvaluateConfig
from lut_tf.data.reading.digest import digest_of
from lut_tf.data.reading.folder import FolderListing, list_folder
from lut_tf.evaluate import class_maps
from lut_tf.evaluate.class_maps import IMAGENET

if TYPE_CHECKING:
    from lut_tf.data.reading.public import SplitListing

Right = NDArray[np.int64]
"""(N, K): the classes that are right for each image; rows are filled up with -1, and one of -1 alone is not asked."""
SETTING = "suite_path"
VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
REAL_LABELS = Path("real") / "real.json"


class Images(NamedTuple):
    """Images of a set, wherever they lie.

    Attributes:
        folders: what a sub-folder of `suite_path` with them may be called: by our name, or as the archive unpacks.
        public: their name in tensorflow-datasets, or None.
        split: their split there.
        classes: gives the classes of each class folder.
        others: what class folders without a class are: left out, or a mistake.
    """

    folders: tuple[str, ...]
    public: str | None
    split: str
    classes: Callable[[], Mapping[str, tuple[int, ...]]]
    others: bool = False


@dataclass(frozen=True)
class RobustnessSet:
    """A set, and how its authors score it.

    Attributes:
        title: its name, for people.
        images: its images by part; a set of one part calls it by the empty name.
        top: whether the right class is the first guess, or among the first five.
        among: `a`, `r` or `o`: the subset of classes that alone are asked about; empty: all.
        border: pixels to be cut off all around.
    """

    title: str
    images: Mapping[str, Images]
    top: tuple[int, ...] = (1,)
    among: str = ""
    border: int = 0


def _one(*folders: str, public: str | None, classes: Callable[[], Mapping[str, tuple[int, ...]]]) -> dict[str, Images]:
    return {"": Images(folders, public, "test", classes)}


VALIDATION = Images(("val", "ILSVRC2012_img_val"), "imagenet2012", "validation", class_maps.by_id)
_SI_SCORE = {"size": "area", "rotation": "rotation", "location": "location20_area02_min0pc"}
SUITE = {
    "v2": RobustnessSet(
        "ImageNet-V2",
        _one(
            "v2",
            "imagenetv2-matched-frequency-format-val",
            public="imagenet_v2/matched-frequency",
            classes=class_maps.by_number,
        ),
        top=(1, 5),
    ),
    "real": RobustnessSet(
        "ImageNet-ReaL", {"": Images(VALIDATION.folders, "imagenet2012_real", "validation", class_maps.by_id)}
    ),
    "a": RobustnessSet(
        "ImageNet-A",
        _one("a", "imagenet-a", public="imagenet_a", classes=partial(class_maps.by_id_among, "a")),
        among="a",
    ),
    "r": RobustnessSet(
        "ImageNet-R",
        _one("r", "imagenet-r", public="imagenet_r", classes=partial(class_maps.by_id_among, "r")),
        among="r",
    ),
    "o": RobustnessSet(
        "ImageNet-O",
        {
            "anomalies": Images(("o", "imagenet-o"), None, "", partial(class_maps.by_id_among, "o")),
            "known": VALIDATION._replace(classes=partial(class_maps.by_id_among, "o"), others=True),
        },
        top=(),
        among="o",
    ),
    "sketch": RobustnessSet(
        "ImageNet-Sketch",
        _one("sketch", public="imagenet_sketch", classes=class_maps.by_id),
        top=(1, 5),
    ),
    "objectnet": RobustnessSet(
        "ObjectNet",
        {
            "": Images(
                ("objectnet/images", "objectnet-1.0/images", "objectnet"), None, "", class_maps.objectnet, others=True
            )
        },
        top=(1, 5),
        border=2,
    ),
    "si_score": RobustnessSet(
        "SI-Score",
        {
            part: Images(
                tuple(dict.fromkeys(f"si_score/{name}" for name in (part, unpacked))),
                f"siscore/{part}",
                "test",
                class_maps.si_score,
            )
            for part, unpacked in _SI_SCORE.items()
        },
    ),
}
"""The sets by their short names, as `lut_tf.config.evaluating.SETS` has them."""


@dataclass(frozen=True, eq=False)  # arrays cannot be compared
class Listed:
    """Images that were found.

    Attributes:
        listing: of them.
        right: see `Right`; None: their labels are class numbers, which are read once they are opened.
        real: ReaL's labels by the number of the validation image, where they are looked up by name; None: they are in
            the data set.
    """

    listing: FolderListing | SplitListing
    right: Right | None = None

    @property
    def digest(self) -> str:
        """Which images these are, in 64 letters."""
        return digest_of(self.listing)


def find_suite(config: EvaluateConfig) -> dict[str, dict[str, Listed]]:
    """Find and list the sets that are wanted: a dict of parts for each.

    Args:
        config: validated.

    Raises:
        FileNotFoundError: there is no `suite_path`, a set is not in it, or of `all` none is.
        ValueError: a folder holds no images, or class folders that are none of the set's.
    """
    root = config.suite_path and Path(config.suite_path)
    if root and not root.is_dir():
        raise FileNotFoundError(
            f"{SETTING}={config.suite_path!r} is not a folder: give the one that holds the sets' sub-folders"
        )
    found = {}
    for name in config.sets:
        missing = _missing(name, root)
        if missing and ALL not in config.suite:
            raise FileNotFoundError(_not_there(name, missing, root))
        if not missing:
            found[name] = _list_set(name, root)
    if not found:
        raise FileNotFoundError(
            f"suite={ALL}: none of the sets is in {SETTING}={config.suite_path or str(_public_root(None))!r}: give the "
            "folder that holds them, each in a sub-folder of its name (v2, real, val, a, …; docs/evaluation.md)"
        )
    return found


def _public_root(root: Path | None | str) -> Path:
    """Return where tensorflow-datasets' own are looked for."""
    return Path(root or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def _folder(images: Images, root: Path | None | str) -> Path | None:
    """Return the folder of some images, the first there is of its names."""
    return next((Path(root, name) for name in images.folders if root and Path(root, name).is_dir()), None)


def _is_prepared(images: Images, root: Path | None | str) -> bool:
    return images.public is not None and (_public_root(root) / images.public).is_dir()


def _missing(name: str, root: Path | None | str) -> list[str]:
    """Return what is not there of a set, in words; nothing where it can be measured."""
    parts = SUITE[name].images
    there = {part: _folder(images, root) is not None or _is_prepared(images, root) for part, images in parts.items()}
    if name == "si_score" and any(there.values()):
        return []  # a set of three experiments, each with a figure of its own
    missing = [_places(images) for part, images in parts.items() if not there[part]]
    if (
        name == "real"
        and not missing
        and not _is_prepared(parts[""], root)
        and not Path(root or "", REAL_LABELS).is_file()
    ):
        missing.append(f"the file {REAL_LABELS}")
    return missing


def _places(images: Images) -> str:
    public = f", or {images.public} of tensorflow-datasets" if images.public else ""
    return f"the sub-folder {' or '.join(images.folders)}{public}"


def _not_there(name: str, missing: Sequence[str], root: Path | None | str) -> str:
    return (
        f"suite={name}: {SETTING}={str(_public_root(root))!r} lacks {' and '.join(missing)}: put it there, give "
        f"another --{SETTING}, or leave {name} out (docs/evaluation.md says where each set is from)"
    )


def _list_set(name: str, root: Path | None | str) -> dict[str, Listed]:
    listed = {}
    for part, images in SUITE[name].images.items():
        folder = _folder(images, root)
        if name == "real" and _is_prepared(images, root):
            folder = None  # images and labels in one
        if folder is not None:
            listed[part] = (
                _list_real(folder, Path(root or "", REAL_LABELS)) if name == "real" else _list(images, folder)
            )
        elif _is_prepared(images, root):
            listed[part] = Listed(_list_public(images, root))
    return listed


def _list(images: Images, folder: Path) -> Listed:
    listing, table = list_folder(folder, SETTING), images.classes()
    if listing.classes is None or listing.labels is None:
        raise ValueError(
            f"{SETTING}: {str(folder)!r} is flat: sort its images into class folders, as the archive has them"
        )
    unknown = [name for name in listing.classes if name not in table]
    if len(unknown) == len(listing.classes) or unknown and not images.others:
        raise ValueError(
            f"{SETTING}: {str(folder)!r} holds the folder {unknown[0]!r}, which is no class of this set (such as "
            f"{next(iter(table))!r}): give the folder as its archive unpacks"
        )
    return Listed(listing, filled([table.get(name, ()) for name in listing.classes])[listing.labels])


def _list_real(folder: Path, labels: Path) -> Listed:
    """List the validation images, in class folders or flat, whose right classes the file `labels` has by number."""
    listing, by_number = list_folder(folder, SETTING), _read_real(labels)
    numbers = [_number_of(listing.files[index], len(by_number), labels) for index in range(listing.images)]
    return Listed(listing, filled(by_number)[numbers])


def _number_of(path: str, images: int, labels: Path) -> int:
    """Return the place of a validation image in the sorted list of all, from 0.

    Raises:
        ValueError: it is not called as they are, or the labels end before it.
    """
    found = VALIDATION_IMAGE.fullmatch(os.path.basename(path))
    if not found:
        raise ValueError(
            f"{SETTING}: {path!r} is not called ILSVRC2012_val_00000001.JPEG or so, and {labels.name} goes by these "
            "names: give ImageNet's validation images under their own names"
        )
    if not 1 <= int(found[1]) <= images:
        raise ValueError(
            f"{SETTING}: {path!r} has no labels, {str(labels)!r} has {images} entries: give the file as it is published"
        )
    return int(found[1]) - 1


def _read_real(path: Path) -> list[tuple[int, ...]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [tuple(map(int, row)) for row in content]
        if not rows or not all(0 <= number < IMAGENET for row in rows for number in row):
            raise ValueError(f"no lists of class numbers from 0 to {IMAGENET - 1}")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{SETTING}: {str(path)!r} holds no ReaL labels ({' '.join(str(error).split())}): give real.json as it is "
            "published"
        ) from error
    return rows


def filled(rows: Sequence[Sequence[int]]) -> Right:
    """Return lists of classes as one array (N, K), filled up with -1."""
    right = np.full((len(rows), max([1, *map(len, rows)])), -1, np.int64)
    for row, classes in zip(right, rows, strict=True):
        row[: len(classes)] = classes
    return right


def _list_public(images: Images, root: Path | None | str) -> SplitListing:
    from lut_tf.data.reading.public import builder_of, list_splits  # imports TensorFlow

    builder = builder_of(str(images.public), str(_public_root(root)))
    # SI-Score has a class number of its own beside ImageNet's.
    label = "label" if "label" in builder.info.features else None
    return list_splits(builder, [(images.split, SETTING)], label)[0]
