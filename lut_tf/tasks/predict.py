"""`lut-tf predict`: a classifier's answers to image files, in a table, as JSON and as a picture."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lut_tf.data.reading.formats import ENDINGS, ending_of
from lut_tf.errors import Stopped, told_together
from lut_tf.evaluate.class_maps import imagenet_ids, imagenet_names
from lut_tf.interop.classifier_sources import open_classifier
from lut_tf.paths import check_path, spelled_out

DRAWN = 48
"""Most images of the picture."""
BATCH = 32
CELL = 30
"""Most letters of a class' name in the table."""


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of an image.

    Attributes:
        image: the file.
        classes: the numbers of the five likeliest classes, or of all where there are fewer, the likeliest first; none
            of a file that gives no image.
        probabilities: theirs.
        fault: why the file gives no image, in a word or two; empty where it gives one.
    """

    image: str
    classes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of some images.

    Attributes:
        each: of every image, in order.
        names: of all classes, or None where the classifier has none.
        picture: the picture that was written, or None.
        drawn: how many images it shows.
    """

    each: tuple[Prediction, ...]
    names: tuple[str, ...] | None
    picture: Path | None = None
    drawn: int = 0

    def name(self, number: int) -> str:
        """Return what people call a class: its name, with its words where that is an id of WordNet; or its number."""
        return class_words(self.names[number]) if self.names else f"class {number}"

    def table(self) -> str:
        """Lay the answers out for people, a line an image."""
        names = [each.image for each in self.each]
        width = max(map(len, names))
        cells = [
            [f"{share:6.1%} {_cut(self.name(n))}" for n, share in zip(each.classes, each.probabilities, strict=True)]
            for each in self.each
        ]
        column = max((len(cell) for row in cells for cell in row), default=0)
        lines = [
            f"{each.image:<{width}}  "
            + (f"gives no image: {each.fault}" if each.fault else "  ".join(f"{cell:<{column}}" for cell in row))
            for each, row in zip(self.each, cells, strict=True)
        ]
        notes = [] if self.names else ["the classifier has no names for its classes: these are their numbers, from 0"]
        if self.picture is not None:
            whole = self.drawn == sum(not each.fault for each in self.each)
            some = "" if whole else f" (the first {self.drawn} images)"
            notes.append(f"wrote {self.picture}{some}")
        return "\n".join([line.rstrip() for line in lines] + notes)

    def as_json(self) -> str:
        """Return the answers as JSON: a list of objects with `image`, and `predictions` or `error`."""
        return json.dumps([self._plain(each) for each in self.each], indent=2, ensure_ascii=False)

    def _plain(self, each: Prediction) -> dict[str, Any]:
        if each.fault:
            return {"image": each.image, "error": each.fault}
        found = [
            {"class": number, "name": self.names[number] if self.names else None, "probability": share}
            for number, share in zip(each.classes, each.probabilities, strict=True)
        ]
        return {"image": each.image, "predictions": found}

    def check_all_read(self) -> None:
        """End with status 1 where a file gave no image.

        Raises:
            Stopped: it names them.
        """
        damaged = [f"{each.image} is {each.fault}" for each in self.each if each.fault]
        if damaged:
            more = f", and {len(damaged) - 20} more" if len(damaged) > 20 else ""
            raise Stopped(f"{len(damaged)} of {len(self.each)} files give no image: {', '.join(damaged[:20])}{more}")


def find_images(words: Sequence[str]) -> list[str]:
    """Return the image files that words name, each once, in order.

    Args:
        words: files, whatever they are called; folders, of which all files are taken, at any depth, that end as images
            do and are not hidden; and patterns (`photos/*.jpg`, `**` for any depth) of such files.

    Raises:
        FileNotFoundError: one names nothing.
        ValueError: one is no path.
    """
    told_together(*(lambda word=word: check_path("IMAGES", spelled_out(word)) for word in words))
    return list(dict.fromkeys(path for word in words for path in _found(spelled_out(word), word)))


def _found(path: str, word: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        found = sorted(_below(path))
        reason = f"holds no images: give a folder of files that end in {' '.join(sorted(ENDINGS))}"
    else:
        found = sorted(name for name in glob.glob(path, recursive=True) if _is_image(name))
        reason = "is neither a file nor a folder, and no pattern that finds images: give one of them"
    if not found:
        raise FileNotFoundError(f"IMAGES={word!r} {reason}")
    return found


def _below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (os.path.join(place, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if _is_image(path))


def _is_image(path: str) -> bool:
    return ending_of(path) in ENDINGS and os.path.isfile(path)


def predict(source: str | os.PathLike[str], paths: Sequence[str], output: Path | None = None) -> Predictions:
    """Ask a classifier what is in some image files.

    Files are read as `lut-tf train` reads them; one that gives no image is told of, and the others go on.

    Args:
        source: see `lut_tf.interop.classifier_sources.find_classifier`.
        paths: of the files.
        output: a picture (.png) of the images and answers to write; None: none.

    Raises:
        FileNotFoundError, ValueError: as `open_classifier`.
        lut_tf.evaluate.answers.NonFiniteLogits: an image's logits hold NaN or infinity.
    """
    opened = open_classifier(source)
    from lut_tf.evaluate.answers import NonFiniteLogits, likeliest, logits_of

    classifier, each = opened.classifier, []
    shown: list[tuple[Prediction, NDArray[np.uint8]]] = []
    for batch in _views(paths, classifier):
        read = [(path, view) for path, view, _ in batch if view is not None]
        answers: dict[str, Prediction] = {}
        if read:
            logits = logits_of(classifier)(np.stack([view for _, view in read])).numpy()
            for (path, view), row in zip(read, logits, strict=True):
                if not np.isfinite(row).all():
                    raise NonFiniteLogits(f"the logits of {path} are not finite: give another classifier")
                best, shares = likeliest(row[np.newaxis])
                answers[path] = Prediction(_shown(path), tuple(best[0].tolist()), tuple(shares[0].tolist()))
                shown += [(answers[path], view)] if len(shown) < DRAWN else []
        each += [answers.get(path) or Prediction(_shown(path), fault=fault) for path, _, fault in batch]
    predictions = Predictions(tuple(each), classifier.class_names)
    if output is None or not shown:
        return predictions
    from lut_tf.analysis.answers import draw_answers

    names = titles([one.image for one, _ in shown])
    captions = [
        (title, [(predictions.name(n), share) for n, share in zip(one.classes, one.probabilities, strict=True)])
        for title, (one, _) in zip(names, shown, strict=True)
    ]
    draw_answers([view for _, view in shown], captions, output)
    return Predictions(predictions.each, predictions.names, output, len(shown))


def _views(paths: Sequence[str], classifier: Any) -> Iterator[list[tuple[str, NDArray[np.uint8] | None, str]]]:
    """Yield batches of (file, its view (H, W, 3) or None, why it gives none)."""
    import tensorflow as tf

    from lut_tf.data.reading.contents import ImageFault, Unreachable, patiently, read_file
    from lut_tf.data.reading.pillow import decode_with_pillow
    from lut_tf.data.views.crops import evaluation_view

    signature = [tf.TensorSpec((None, None, 3), tf.uint8)]
    size, how = classifier.image_size, classifier.preprocessing
    seen = tf.function(lambda image: evaluation_view(image, size, how), input_signature=signature)

    def read(path: str) -> tuple[str, NDArray[np.uint8] | None, str]:
        try:
            image = decode_with_pillow(patiently(lambda: read_file(path)))
        except ImageFault as fault:
            return path, None, fault.kind
        except Unreachable as failure:
            return path, None, f"out of reach in {failure}"
        return path, seen(image).numpy(), ""

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), BATCH):
            yield list(pool.map(read, paths[start : start + BATCH]))


def titles(images: Sequence[str]) -> list[str]:
    """Return the files' names; of those that are called alike, with the folder, `ship/0001.jpg`."""
    names = [Path(image).name for image in images]
    parts = [Path(image).parts for image in images]
    return [name if names.count(name) == 1 else "/".join(of[-2:]) for name, of in zip(names, parts, strict=True)]


def class_words(name: str) -> str:
    """Return a class' name, with ImageNet's words where it is the WordNet id of one of its classes."""
    ids = imagenet_ids()
    return imagenet_names()[ids.index(name)] if name in ids else name


def _shown(path: str) -> str:
    """Return a path as a terminal and JSON take it: bytes that are no UTF-8 are spelled out."""
    return path.encode("utf-8", "backslashreplace").decode()


def _cut(name: str) -> str:
    return name if len(name) <= CELL else f"{name[: CELL - 1]}…"
