"""TensorFlow's SavedModel: for TensorFlow Serving, or any process that imports TensorFlow alone."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lut_tf.export.places import absolute, check_writable
from lut_tf.export.report import Report
from lut_tf.export.signature import description, float32_copy, serving_function
from lut_tf.export.verify import verify
from lut_tf.writing import replacing

if TYPE_CHECKING:
    from lut_tf.models.encoder import ViTEncoder

SIGNATURE = "serving_default"
# `assets.extra` is the place that TensorFlow keeps free for other people's notes.
NOTE = Path("assets.extra") / "lut_tf.json"
ENTRIES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}


def to_saved_model(encoder: ViTEncoder, path: str | os.PathLike[str]) -> Report:
    """Write `encoder` as a SavedModel with one signature, `serving_default`, and verify it.

    Input `pixel_values` (batch, H, W, 3) float32, normalised; outputs `tokens` (batch, 1 + L, D), `cls` (batch, D),
    `pooled` (batch, D), float32. The directory appears only after `verify` has found it right; a directory written
    by this function before, and not added to since, is replaced.

    Args:
        encoder: of any precision; the file computes in float32.
        path: directory to make.

    Returns:
        What `verify` measured.

    Raises:
        ExportError: the file does not compute what the encoder does; nothing is left on disk.
        FileExistsError: `path` is a file, or a directory that holds something else.
        NotADirectoryError, PermissionError: nothing can be written there.
        ValueError: Keras runs on another backend than TensorFlow.
    """
    target = absolute(path)
    check_saved_model_target(target)
    with replacing(target) as written:
        _write(float32_copy(encoder), written)
        report = verify(written, encoder)
    return dataclasses.replace(report, path=Path(path))


def check_saved_model_target(path: Path) -> None:
    """Refuse to replace what `to_saved_model` has not written itself (an empty directory may go).

    Raises:
        FileExistsError, NotADirectoryError, PermissionError: see `to_saved_model`.
    """
    check_writable(path)
    if not path.exists():
        return
    remedy = "give another output, or remove it first"
    if not path.is_dir():
        raise FileExistsError(f"output={path} is a file, and a SavedModel is a directory: {remedy}")
    names = {entry.name for entry in path.iterdir()}
    if names and not (names <= ENTRIES and (path / NOTE).is_file()):
        raise FileExistsError(f"output={path} holds something else than an earlier export: {remedy}")


def _write(encoder: ViTEncoder, path: Path) -> None:
    import tensorflow as tf

    serve, spec = serving_function(encoder)
    # Plain variables and one function, not `keras.export.ExportArchive`: that writes every weight twice (Keras 3.15.1).
    module = tf.Module()
    module.weights = [variable.value for variable in encoder.variables]
    function = tf.function(serve, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: function})
    note = path / NOTE
    note.parent.mkdir()
    note.write_text(json.dumps(description(encoder), indent=2) + "\n", encoding="utf-8")
