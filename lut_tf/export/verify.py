"""Does a file compute what its encoder computes? Asked of the runtime that will serve it, with photographs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lut_tf.export.report import ExportError, Report
from lut_tf.export.signature import BATCH, INPUT, OUTPUTS, float32_copy, full_float32
from lut_tf.paths import check_path, spelled_out, without_patterns

if TYPE_CHECKING:
    from lut_tf.models.encoder import ViTEncoder
    from lut_tf.models.preprocess import Preprocessing

TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 7)

Outputs = dict[str, np.ndarray]
Shapes = dict[str, list[Any]]


def verify(path: str | os.PathLike[str], encoder: ViTEncoder, images: np.ndarray | None = None) -> Report:
    """Open a file in its runtime and compare it with `encoder` at batch sizes 1, 2 and 7.

    An ONNX file is checked by ONNX' own checker and run by onnxruntime on the CPU, a SavedModel by
    `tf.saved_model.load`. Names, dtypes and shapes of input and outputs are checked, and that the batch is free.

    Args:
        path: an ONNX file or a SavedModel's directory, as this package writes them.
        encoder: what the file should compute; of mixed precision, it is compared in float32.
        images: (N, H, W, 3) float32, normalised; by default seven crops of two photographs.

    Returns:
        The largest absolute difference of each output, all of them within 1e-4 · max(1, rms of the output).

    Raises:
        ExportError: the file cannot be opened, has other inputs or outputs, or differs by more.
        FileNotFoundError: there is no such file.
        ValueError: `images` do not fit the encoder, or the file is of no known format.
    """
    path = Path(spelled_out(path))
    check_file(path)
    images = (
        sample_images(encoder.image_size, encoder.preprocessing)
        if images is None
        else _checked(images, encoder.image_size)
    )
    with full_float32():
        expected = _expected(encoder, images)
        shapes = {name: [BATCH, *value.shape[1:]] for name, value in expected.items()}
        run = _open(path, {INPUT: [BATCH, *encoder.image_size, 3]}, shapes)
        differences = _differences(path, run, images, expected)
    tolerances = {name: TOLERANCE * max(1.0, _rms(value)) for name, value in expected.items()}
    _check_differences(path, differences, tolerances)
    return Report(path, _size(path), differences, tolerances, BATCH_SIZES)


def check_file(path: Path) -> None:
    """Refuse a file that does not exist or is of no known format, before anything slow starts.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is no path, or neither a SavedModel's directory nor an `.onnx` file.
    """
    remedy = "give an .onnx file or a SavedModel's directory"
    check_path("file", path)
    if not path.exists():
        raise FileNotFoundError(f"file={path} does not exist: {remedy}")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise ValueError(f"file={path} is a directory without saved_model.pb: {remedy}")
    if path.is_file() and path.suffix != ".onnx":
        raise ValueError(f"file={path} does not end in .onnx: {remedy}")


def sample_images(image_size: tuple[int, int], preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Return seven crops, from wide to close, of the two photographs that scikit-learn ships.

    Args:
        image_size: (H, W) in pixels.
        preprocessing: the encoder's; None: ImageNet's.

    Returns:
        (7, H, W, 3) float32, normalised.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from lut_tf.models.preprocess import IMAGENET

    height, width = image_size
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    crops = []
    for i in range(max(BATCH_SIZES)):
        photograph = photographs[i % 2]
        scale = 0.8 ** (i // 2) * min(photograph.width / width, photograph.height / height)
        left, top = (photograph.width - scale * width) / 2, (photograph.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        crops.append(np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)))
    how = preprocessing or IMAGENET
    return ((np.stack(crops) / 255.0 - how.mean) / how.std).astype("float32")


def _checked(images: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or images.shape[1:] != (*image_size, 3) or images.dtype.kind != "f":
        raise ValueError(
            f"images of shape {images.shape} and dtype {images.dtype} do not fit: "
            f"give (N, {image_size[0]}, {image_size[1]}, 3) float32, normalised"
        )
    return images.astype("float32")


def _batches(count: int) -> Iterator[np.ndarray]:
    """Yield indices of images: one, two, then all of them by sevens, the first ones again to fill up."""
    smaller, largest = BATCH_SIZES[:-1], BATCH_SIZES[-1]
    for size in smaller:
        yield np.arange(size) % count
    for start in range(0, count, largest):
        yield np.arange(start, start + largest) % count


def _expected(encoder: ViTEncoder, images: np.ndarray) -> Outputs:
    """Return the outputs by the encoder's own public methods, not by the function that was exported."""
    full = encoder.compute_dtype == encoder.variable_dtype == "float32"
    encoder = encoder if full else float32_copy(encoder)
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), BATCH_SIZES[-1]):
        batch = images[start : start + BATCH_SIZES[-1]]
        tokens = encoder(batch, training=False)
        outputs = {"tokens": tokens, "pooled": encoder.features(batch, pooling="mean")}
        if encoder.has_class_token:
            outputs["cls"] = encoder.features(batch, pooling="cls")
        for name, value in outputs.items():
            parts.setdefault(name, []).append(np.asarray(value))
    return {name: np.concatenate(parts[name]) for name in OUTPUTS if name in parts}


def _open(path: Path, inputs: Shapes, outputs: Shapes) -> Callable[[np.ndarray], Outputs]:
    opened = _open_saved_model if path.is_dir() else _open_onnx
    try:
        run, found_inputs, found_outputs = opened(path)
    except Exception as error:  # each runtime has its own exceptions, and all of them mean the same here
        raise ExportError(f"{path.name} is not a valid file: {' '.join(str(error).split())}") from error
    for kind, found, wanted in (("inputs", found_inputs, inputs), ("outputs", found_outputs, outputs)):
        if found != wanted:
            raise ExportError(f"{path.name} has the {kind} {found}, and the encoder {wanted}: export the encoder anew")
    return run


def _open_onnx(path: Path) -> tuple[Callable[[np.ndarray], Outputs], Shapes, Shapes]:
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]

    def run(images: np.ndarray) -> Outputs:
        return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

    inputs, outputs = (
        {value.name: value.shape if value.type == "tensor(float)" else [value.type] for value in values}
        for values in (session.get_inputs(), session.get_outputs())
    )
    return run, inputs, outputs


def _open_saved_model(path: Path) -> tuple[Callable[[np.ndarray], Outputs], Shapes, Shapes]:
    import tensorflow as tf

    with without_patterns(path) as folder:
        model = tf.saved_model.load(str(folder))
    function = model.signatures["serving_default"]

    def run(images: np.ndarray, _keep: Any = model) -> Outputs:  # the signature alone would let the weights go
        return {name: value.numpy() for name, value in function(**{INPUT: tf.constant(images)}).items()}

    inputs, outputs = (
        {name: _shape(spec) for name, spec in specs.items()}
        for specs in (function.structured_input_signature[1], function.structured_outputs)
    )
    return run, inputs, outputs


def _shape(spec: Any) -> list[Any]:
    if spec.dtype.name != "float32":
        return [spec.dtype.name]
    return [BATCH if side is None else side for side in spec.shape]


def _differences(
    path: Path, run: Callable[[np.ndarray], Outputs], images: np.ndarray, expected: Outputs
) -> dict[str, float]:
    largest = dict.fromkeys(expected, 0.0)
    for indices in _batches(len(images)):
        try:
            got = run(images[indices])
        except Exception as error:
            raise ExportError(
                f"{path.name} fails at a batch of {len(indices)}: {' '.join(str(error).split())}"
            ) from error
        for name, value in expected.items():
            difference = np.abs(got[name] - value[indices]).max()
            largest[name] = float(np.maximum(largest[name], difference))  # NaN stays NaN
    return largest


def _check_differences(path: Path, differences: dict[str, float], tolerances: dict[str, float]) -> None:
    for name, difference in differences.items():
        if not difference <= tolerances[name]:  # NaN fails too
            raise ExportError(
                f"{path.name} is not what the encoder computes: {name} differs by {difference:.2g}, "
                f"allowed are {tolerances[name]:.2g}; export the encoder anew"
            )


def _rms(value: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(value, dtype="float64"))))


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    return sum(file.stat().st_size for file in files)
