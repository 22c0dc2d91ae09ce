"""What a measure found: figures with their intervals, of which model, on which images; one JSON file each.

No TensorFlow: results are read and compared wherever they lie.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lut_tf import __version__
from lut_tf.config import build_group
from lut_tf.paths import spelled_out
from lut_tf.writing import write_text

CONFIDENCE = 0.95
RESAMPLES = 1000
"""Draws of as many images, with replacement, that a bootstrap interval is made of."""
FOLDER = "results"
"""The folder of a run directory, or beside an encoder's file, that results are written to."""


@dataclass(frozen=True)
class Figure:
    """A number and where the true one lies, at 95 % confidence.

    Attributes:
        value: what was measured; a share in 0 … 1.
        low: the interval's lower end.
        high: its upper end.
        count: of what the interval tells the chance: images, or draws.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """Show the figure in per cent: `61.2 [60.2, 62.2]`."""
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Result:
    """What one protocol found of one model.

    Attributes:
        protocol: `knn`, `few_shot`, `linear_probe`, `logistic_probe`, `finetune` or `evaluate`.
        figures: by name (`top1`, `knn20`, `cls/top1`, `5_shot`), the one that models are sorted by first.
        model: its `source`, `origin` (in words), `kind` (`encoder`, `classifier`), `checksum`, `parameters`,
            `image_size` and `pooling`.
        data: `source`, `name`, digests, numbers of images and classes, and `part`: what it was scored on, in words.
        settings: of the protocol, as they came to be.
        details: whatever else is worth keeping, such as each class' accuracy or the rate that was chosen.
        versions: of the programs, and the date.
    """

    protocol: str
    figures: dict[str, Figure]
    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())

    @property
    def name(self) -> str:
        """The name of its file: the same for the same protocol, model, data and settings, so a repeat replaces it."""
        identity = [self.protocol, self.model.get("checksum"), _data_identity(self.data), self.settings]
        letters = hashlib.sha256(json.dumps(_plain(identity), sort_keys=True).encode()).hexdigest()[:8]
        words = re.sub(r"[^A-Za-z0-9.-]+", "-", str(self.data.get("name") or self.data.get("source", "")))[:60]
        return f"{self.protocol}_{words.strip('-.') or 'data'}_{letters}"


def versions() -> dict[str, str]:
    """Return the versions of the programs that this process has loaded, and the date, in UTC."""
    found = {"lut_tf": __version__, "python": platform.python_version()}
    for name in ("tensorflow", "keras", "numpy", "sklearn"):
        if name in sys.modules:
            found[name] = str(sys.modules[name].__version__)
    return {**found, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def accuracy(correct: int, total: int) -> Figure:
    """Return a share of images with its Wilson interval, which holds for few images and near 0 and 1 too.

    Args:
        correct: images that were right.
        total: images that were asked about.

    Raises:
        ValueError: no images, or more right ones than there are.
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"correct={correct} of total={total} is no share: give images, and how many of them are right")
    from scipy.special import ndtri

    share, z = correct / total, float(ndtri(0.5 + CONFIDENCE / 2))
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # At the ends the interval reaches them exactly, but for rounding.
    low, high = min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
    return Figure(share, low, high, int(total))


def bootstrap(
    values: ArrayLike, statistic: Callable[[np.ndarray], float] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Figure:
    """Return a statistic of images with its percentile interval over draws of as many images, with replacement.

    Args:
        values: (N, …) what is known of each image; a row an image.
        statistic: of such rows; None: their mean. Of a draw for which it is not finite (such as one without a positive
            image) nothing is taken.
        seed: decides the draws.
        resamples: how many.

    Raises:
        ValueError: there are no images, or the statistic of all of them is not finite.
    """
    rows = np.asarray(values)
    if not len(rows):
        raise ValueError("values: a bootstrap of no images: give one row or more")
    of = statistic or (lambda drawn: float(np.mean(drawn)))
    value = float(of(rows))
    if not math.isfinite(value):
        raise ValueError(f"values: their statistic is {value}, no finite number: give others")
    random = np.random.default_rng(seed)
    drawn = np.array([of(rows[random.integers(len(rows), size=len(rows))]) for _ in range(resamples)])
    tails = [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]
    low, high = np.quantile(drawn[np.isfinite(drawn)], tails) if np.isfinite(drawn).any() else (value, value)
    return Figure(value, min(value, float(low)), max(value, float(high)), len(rows))


def mean_of_draws(values: Sequence[float]) -> Figure:
    """Return the mean of what was measured several times, with Student's interval for it, inside 0 … 1.

    Args:
        values: shares, one of each draw (of the labelled images, of a seed).

    Raises:
        ValueError: there are fewer than two, which tell nothing of the chance.
    """
    if len(values) < 2:
        raise ValueError(f"values: {len(values)} tell nothing of the chance: give two or more")
    from scipy.special import stdtrit

    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * deviation / math.sqrt(len(values))
    return Figure(mean, max(0.0, mean - half), min(1.0, mean + half), len(values))


def results_path(source: str | os.PathLike[str], name: str) -> Path:
    """Return `results/NAME.json` in a run directory or another folder of weights, or beside a file of them."""
    path = Path(spelled_out(source))
    return (path if path.is_dir() else path.parent) / FOLDER / f"{name}.json"


def write_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON; folders are made, an earlier file is replaced once the new one is whole.

    Raises:
        OSError: it could not be written.
        ValueError: a number in it is not finite.
    """
    text = json.dumps(_plain(asdict(result)), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(Path(path), text + "\n")


def save_result(result: Result, source: str | os.PathLike[str]) -> Path:
    """Write a result where those of its model lie, under its own name, and return the path; see `results_path`."""
    path = results_path(source, result.name)
    write_result(result, path)
    return path


def read_result(path: str | os.PathLike[str]) -> Result:
    """Return the result that a file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"RESULT={path} does not exist as a file: give a result's .json file, or a run directory"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = {name: _figure(**figure) for name, figure in content.pop("figures").items()}
        result = build_group(Result, {**content, "figures": figures})
        groups = (result.model, result.data, result.settings, result.details, result.versions)
        if not isinstance(result.protocol, str) or not all(isinstance(group, dict) for group in groups):
            raise TypeError("a part of it is of the wrong type")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"RESULT={path} holds no result ({' '.join(str(error).split())}): give another file"
        ) from error
    return result


def find_results(sources: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files of results that were named, each once; a run directory, or a folder, stands for all in it.

    Those of runs in it are among them: a probe lies in the directory of the run that it is of.

    Raises:
        FileNotFoundError: one is not there, or is a folder without results.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(spelled_out(source))
        inside = _inside(path) if path.is_dir() else [path]
        if not inside or not path.exists():
            reason = "holds no results" if path.is_dir() else "does not exist"
            raise FileNotFoundError(
                f"RESULT={path} {reason}: give a result's .json file, or a run directory that was measured "
                "(lut-tf knn RUN_DIR)"
            )
        found += inside
    return list(dict.fromkeys(found))


def _inside(folder: Path) -> list[Path]:
    own = sorted(folder.glob(f"{FOLDER}/*.json")), sorted(folder.glob(f"*/{FOLDER}/*.json"))
    return [*own[0], *own[1]] or sorted(folder.glob("*.json"))


def _figure(value: float, low: float, high: float, count: int) -> Figure:
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in (value, low, high, count)):
        raise ValueError("a figure is no number")
    return Figure(value, low, high, count)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: NumPy's numbers and arrays, tuples and paths become Python's lists and texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _data_identity(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes images the same, wherever they lie and whatever reads them."""
    return {name: value for name, value in data.items() if name not in ("source", "name")}


def table(results: Sequence[Result]) -> str:
    """Lay results out side by side for people: a table for each protocol and data, sorted, in per cent with intervals.

    Only what was measured by one protocol on the same images stands in one table. Settings in which its rows differ
    stand in the row. A line below says which differences the intervals do not bear out: those of models whose intervals
    overlap.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        identity = json.dumps(_plain([result.protocol, _data_identity(result.data)]), sort_keys=True)
        groups.setdefault(identity, []).append(result)
    tables = [_table(group) for group in groups.values()]
    if len(tables) > 1:
        tables.append(
            f"{len(tables)} tables: figures of different protocols, images or parts of them are not comparable, "
            "and stand apart"
        )
    return "\n\n".join(tables)


def _table(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    rows = sorted(results, key=lambda result: [-result.figures[n].value if n in result.figures else 1.0 for n in names])
    words = _row_names(rows)
    cells = [[str(row.figures[name]) if name in row.figures else "–" for name in names] for row in rows]
    head = [names, *cells]
    widths = [max(len(line[column]) for line in head) for column in range(len(names))]
    first = max(map(len, words))
    lines = [_title(rows[0])]
    for word, line in zip(["", *words], head, strict=True):
        fields = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        lines.append("  ".join([f"{word:<{first}}", *fields]).rstrip())
    return "\n".join([*lines, *_not_borne_out(rows, words, names)])


def _title(result: Result) -> str:
    data = result.data
    part = f", {data['part']}" if data.get("part") else ""
    return f"{result.protocol} on {data.get('name') or data.get('source')}{part}: per cent [95 % interval]"


def _row_names(results: Sequence[Result]) -> list[str]:
    """Return what each row is called: its model, and where rows differ in settings, these."""
    facts = [{**result.settings, **_model_settings(result)} for result in results]
    known = list(dict.fromkeys(name for each in facts for name in each))
    odd = [name for name in known if len({json.dumps(_plain(each.get(name)), sort_keys=True) for each in facts}) > 1]
    names = []
    for result, each in zip(results, facts, strict=True):
        origin = str(result.model.get("origin") or result.model.get("source"))
        settings = ", ".join(f"{name}={json.dumps(_plain(each[name]))}" for name in odd if name in each)
        names.append(f"{origin}; {settings}" if settings else origin)
    return names


def _model_settings(result: Result) -> dict[str, Any]:
    return {name: result.model[name] for name in ("image_size", "pooling") if name in result.model}


def _not_borne_out(rows: Sequence[Result], words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a line for each figure and row that is ahead of others by less than the intervals allow to say."""
    if len(rows) < 2:
        return []
    lines = []
    for name in names:
        known = [(row.figures[name], word) for row, word in zip(rows, words, strict=True) if name in row.figures]
        known.sort(key=lambda pair: -pair[0].value)
        for place, (figure, word) in enumerate(known):
            if level := [other for below, other in known[place + 1 :] if below.high >= figure.low]:
                lines.append(f"  {name}: {word} is not shown to differ from {' or from '.join(level)}")
    if not lines:
        return ["the intervals bear out every difference"]
    return ["not borne out, because the intervals overlap:", *lines]
