"""ONNX: for onnxruntime, OpenVINO, TensorRT and whatever else reads it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut_tf.export.places import absolute, check_writable
from lut_tf.export.report import Report
from lut_tf.export.signature import BATCH, OUTPUTS, description, float32_copy, serving_function
from lut_tf.export.verify import verify
from lut_tf.writing import replacing

if TYPE_CHECKING:
    from lut_tf.models.encoder import ViTEncoder

OPSETS = range(13, 19)  # what tf2onnx writes
# The only one of them at which tf2onnx leaves LayerNorm's means as `ReduceMean`, which runtimes fuse; below it
# they become `GlobalAveragePool`.
OPSET = 18
LARGEST = 2**31 - 2**24  # bytes of weights: a protobuf message ends at 2 GiB, and the graph needs room too


def to_onnx(encoder: ViTEncoder, path: str | os.PathLike[str], opset: int = OPSET) -> Report:
    """Write `encoder` as one ONNX file and verify it.

    Input `pixel_values` (batch, H, W, 3) float32, normalised; outputs `tokens` (batch, 1 + L, D), `cls` (batch, D),
    `pooled` (batch, D), float32. The file appears only after `verify` has found it right; an existing `.onnx` file is
    replaced.

    Args:
        encoder: of any precision; the file computes in float32.
        path: file to write, ending in `.onnx`.
        opset: version of ONNX' operators, 13 to 18; older ones are for older runtimes and run slower.

    Returns:
        What `verify` measured.

    Raises:
        ExportError: the file does not compute what the encoder does; nothing is left on disk.
        FileExistsError: `path` is a directory.
        NotADirectoryError, PermissionError: nothing can be written there.
        ValueError: no such opset, another suffix, an encoder of 2 GiB or more, or another backend than TensorFlow.
    """
    target = absolute(path)
    check_onnx_target(target)
    if opset not in OPSETS:
        raise ValueError(f"opset={opset} cannot be written: give {OPSETS[0]} to {OPSETS[-1]}")
    _check_size(encoder)
    with replacing(target) as written:
        _write(float32_copy(encoder), written, opset)
        report = verify(written, encoder)
    return dataclasses.replace(report, path=Path(path))


def check_onnx_target(path: Path) -> None:
    """Refuse a path that is not an ONNX file's, so that a slip of the hand overwrites nothing else.

    Raises:
        ValueError, FileExistsError, NotADirectoryError, PermissionError: see `to_onnx`.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"output={path} does not end in .onnx: give {path.name}.onnx")
    check_writable(path)
    if path.is_dir():
        raise FileExistsError(f"output={path} is a directory: give a file's path, or remove it first")


def _check_size(encoder: ViTEncoder) -> None:
    size = 4 * sum(math.prod(variable.shape) for variable in encoder.variables)
    if size > LARGEST:
        raise ValueError(
            f"the encoder has {size / 2**30:.1f} GiB of weights, and an ONNX file ends at 2: use saved_model"
        )


def _write(encoder: ViTEncoder, path: Path, opset: int) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    serve, spec = serving_function(encoder)
    model, _ = tf2onnx.convert.from_function(
        tf.function(serve, input_signature=[spec], autograph=False), [spec], opset=opset
    )
    _rename_batch(model.graph)
    _ease_fusion(model.graph)
    model.producer_name, _, model.producer_version = description(encoder)["producer"].partition(" ")
    onnx.helper.set_model_props(model, {key: _text(value) for key, value in description(encoder).items()})
    onnx.save(model, str(path))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _rename_batch(graph: Any) -> None:
    """Call every unknown dimension of input and outputs `batch` (tf2onnx: `unk__N`), and order the outputs."""
    graph.output.sort(key=lambda value: OUTPUTS.index(value.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


def _ease_fusion(graph: Any) -> None:
    """Spell LayerNorm's square and GELU's scaling as onnxruntime looks for them; the values stay the same.

    TensorFlow turns powers into products and quotients into products; onnxruntime recognises `Pow(x, 2)` in a
    LayerNorm and `Div(x, √2)` before a GELU's `Erf`, and neither product.
    """
    two, root = "lut_tf_two", "lut_tf_root_two"
    before_erf = {node.input[0] for node in graph.node if node.op_type == "Erf"}
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        if node.input[0] == node.input[1]:
            node.op_type, node.input[1] = "Pow", two
        elif node.output[0] in before_erf and _is_constant(graph, node.input[1], math.sqrt(0.5)):
            node.op_type, node.input[1] = "Div", root
    _set_constants(graph, {two: 2.0, root: math.sqrt(2.0)})


def _is_constant(graph: Any, name: str, wanted: float) -> bool:
    from onnx import numpy_helper

    found = (numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == name)
    return any(value.size == 1 and math.isclose(value.item(), wanted, rel_tol=1e-6) for value in found)


def _set_constants(graph: Any, values: dict[str, float]) -> None:
    """Add the constants of `values` that a node reads, and drop those that no node reads any more."""
    import numpy as np
    from onnx import numpy_helper

    used = {name for node in graph.node for name in node.input}
    for name, value in values.items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(np.asarray(value, "float32"), name))
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
