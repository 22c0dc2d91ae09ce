"""What `lut-tf export` and `lut-tf verify` do: find an encoder, write the files that were asked for, compare one."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lut_tf.export.onnx import check_onnx_target, to_onnx
from lut_tf.export.report import Report
from lut_tf.export.saved_model import check_saved_model_target, to_saved_model
from lut_tf.export.verify import check_file, verify
from lut_tf.paths import check_path, spelled_out
from lut_tf.startup import import_tensorflow
from lut_tf.training.run_directory import RunFiles, Saved, find_saved, is_through, steps_in

if TYPE_CHECKING:
    from lut_tf.models.encoder import ViTEncoder

logger = logging.getLogger(__name__)

ENCODER_CLASS = "lut_tf>ViTEncoder"


class Format(NamedTuple):
    """A kind of file: its name in an output directory, the check of a path, and what writes it."""

    name: str
    check: Callable[[Path], None]
    write: Callable[[ViTEncoder, Path], Report]


FORMATS = {
    "saved_model": Format("saved_model", check_saved_model_target, to_saved_model),
    "onnx": Format("encoder.onnx", check_onnx_target, to_onnx),
}


def export_encoder(
    source: str | os.PathLike[str],
    formats: str | Sequence[str],
    output: str | os.PathLike[str] | None = None,
    step: int | None = None,
) -> list[Report]:
    """Write an encoder in several formats, each verified. All that can be checked is, before TensorFlow is imported.

    Args:
        source: a run directory, finished or not, or the `.keras` file of an encoder.
        formats: of `saved_model` and `onnx`, as a list or as a text with commas.
        output: directory for `saved_model/` and `encoder.onnx`; by default `export/` next to the encoder.
        step: of a run's checkpoint; None takes the encoder that the finished run left, else the newest checkpoint.

    Returns:
        One report a format, in the order asked.

    Raises:
        ExportError: a file does not compute what the encoder does; it is not left on disk.
        FileNotFoundError: there is no encoder at `source`, or no such checkpoint.
        FileExistsError, NotADirectoryError, PermissionError: the output cannot be written.
        ValueError: an unknown format, or a file that holds no encoder.
    """
    found = find_encoder(source, step)
    chosen = _chosen(formats)
    beside = found.files if isinstance(found, Saved) else RunFiles(found.parent)
    folder = beside.exported if output is None else Path(spelled_out(output))
    for kind in chosen:
        kind.check(folder / kind.name)
    encoder = load_encoder(found)
    return [kind.write(encoder, folder / kind.name) for kind in chosen]


def verify_file(file: str | os.PathLike[str], source: str | os.PathLike[str], step: int | None = None) -> Report:
    """Compare a file with the encoder that it was exported from; see `verify`.

    Both are looked at before TensorFlow is imported.

    Args:
        file: an `.onnx` file, or a SavedModel's directory.
        source: a run directory, finished or not, or the `.keras` file of an encoder.
        step: see `export_encoder`.

    Raises:
        ExportError: the file does not compute what the encoder does, or cannot be opened.
        FileNotFoundError: there is no such file, or no encoder at `source`.
        ValueError: the file is of no known format, or the source holds no encoder.
    """
    file = Path(spelled_out(file))
    check_file(file)
    return verify(file, load_encoder(find_encoder(source, step)))


def _chosen(formats: str | Sequence[str]) -> list[Format]:
    names = [name.strip() for name in formats.split(",")] if isinstance(formats, str) else list(formats)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        asked = unknown[0] if unknown else ""
        raise ValueError(f"to={asked!r} is not a known format: give one or both of {','.join(FORMATS)}")
    return [FORMATS[name] for name in dict.fromkeys(names)]


def find_encoder(source: str | os.PathLike[str], step: int | None = None) -> Path | Saved:
    """Return where the encoder at `source` is, having looked there without TensorFlow: in a file, or in a checkpoint.

    Raises:
        FileNotFoundError: nothing is there, a directory with neither `encoder.keras` nor a checkpoint, or no such step.
        ValueError: the file is not Keras', or holds another model; or a step of a file.
    """
    given = Path(spelled_out(source))
    check_path("source", given)
    if step is not None and not given.is_dir():
        raise ValueError(f"step={step} is for a run directory, and source={given} is none: leave it out")
    path = RunFiles(given).encoder if given.is_dir() else given
    if given.is_dir() and (step is not None or not (path.is_file() and is_through(RunFiles(given)))):
        if step is None and not steps_in(RunFiles(given).checkpoints) and not RunFiles(given).weights.is_file():
            reason = f"holds no {path.name} and no checkpoints"
            raise FileNotFoundError(f"source={given} {reason}: give a run directory or an encoder's .keras file")
        return find_saved(given, step)
    if not path.is_file():
        raise FileNotFoundError(f"source={given} does not exist: give a run directory or an encoder's .keras file")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"source={path} is not a .keras file: give a run directory or an encoder's .keras file")
    try:
        with zipfile.ZipFile(path) as archive:
            held = json.loads(archive.read("config.json")).get("registered_name")
    except (KeyError, AttributeError, json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(f"source={path} is damaged ({error}): give another encoder's .keras file") from error
    if held != ENCODER_CLASS:
        raise ValueError(f"source={path} holds a {held}, not a ViTEncoder: give the .keras file of an encoder")
    return path


def load_encoder(path: Path | Saved) -> ViTEncoder:
    """Return the encoder that `find_encoder` has found; of a checkpoint that nobody named it is said which it is.

    Raises:
        lut_tf.training.checkpoint.DamagedCheckpoint: the checkpoint that was asked for, or every one, is damaged.
        ValueError: it cannot be read.
    """
    import_tensorflow()
    from lut_tf.interop.keras_files import load_keras
    from lut_tf.interop.runs import load_run, other_step

    if isinstance(path, Saved):
        found = load_run(path, other_step(path))
        if path.step is None and found.step is not None:
            logger.warning("%s is not finished: %s is taken", path.files.root, found.origin)
        return found.model.encoder
    try:
        return load_keras(path)
    except ValueError as error:
        raise ValueError(f"source={path} cannot be read ({error}): give another encoder's .keras file") from error
