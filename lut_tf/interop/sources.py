"""An encoder, wherever it lies: in a run directory, in a file of ours, or in one of other people's."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut_tf.config import Config, DataConfig
from lut_tf.config.networks import check_encoder, sides
from lut_tf.config.presets import EncoderSize
from lut_tf.paths import check_path, is_saved_folder, spelled_out
from lut_tf.startup import import_tensorflow
from lut_tf.training.run_directory import RunFiles, Saved, find_saved, is_through, read_saved, verb_of_run

if TYPE_CHECKING:
    from lut_tf.models.encoder import ViTEncoder

ENCODER, CLASSIFIER = "lut_tf>ViTEncoder", "lut_tf>ViTClassifier"
WHOLE = ("lut_tf>LUT", "lut_tf>MAE")
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
KINDS = "a pre-training run's directory, an encoder's .keras file, or weights that lut-tf convert reads"


@dataclass(frozen=True, eq=False)
class OpenedEncoder:
    """An encoder, and where it is from.

    Attributes:
        encoder: in inference mode, of the input size that was asked for.
        source: the path that was given, in full.
        origin: where it is from, in words: the path, the checkpoint, and whether positions were resized.
        checksum: SHA-256, in 64 letters, over what makes it this encoder: its settings (input size and preprocessing
            among them) and its weights in order, with names and shapes.
        run: the files of the pre-training run that it is from, or None.
        data: the data settings of that run, or None.
    """

    encoder: ViTEncoder
    source: str
    origin: str
    checksum: str
    run: RunFiles | None
    data: DataConfig | None

    @property
    def facts(self) -> dict[str, Any]:
        """What a result tells of the encoder (`lut_tf.evaluate.results.Result.model`)."""
        return {
            "source": self.source,
            "origin": self.origin,
            "kind": "encoder",
            "checksum": self.checksum,
            "parameters": int(self.encoder.count_params()),
            "image_size": list(self.encoder.image_size),
        }


def find_encoder(source: str | os.PathLike[str], step: int | None = None, setting: str = "source") -> Path | Saved:
    """Return where the encoder at `source` is, having looked at names alone, without TensorFlow.

    Args:
        source: a pre-training run's directory, finished or not, an encoder's (or a whole `LUT`'s or `MAE`'s) `.keras`
            file, or a file or folder that `load_encoder` reads.
        step: of a run's checkpoint; None takes the encoder that the finished run left, else the newest checkpoint.
        setting: what errors call `source`.

    Returns:
        the path of a file or of a folder of `save_pretrained`, or what a run directory has saved.

    Raises:
        FileNotFoundError: nothing is there, the directory holds no run that has saved something, or no such step.
        ValueError: it is a classifier or another model, or no file of weights; or a step of a file.
    """
    path, named = Path(spelled_out(source)), f"{setting}={os.fspath(source)!r}"
    check_path(setting, path)
    is_run = path.is_dir() and not is_saved_folder(path)
    if step is not None and not is_run:
        raise ValueError(f"step={step} is for a run directory, and {named} is none: leave it out")
    if is_run:
        return _find_in_run(path, step, setting, named)
    if not path.exists():
        raise FileNotFoundError(f"{named} does not exist: give {KINDS}")
    if path.suffix == ".keras":
        _check_kind(path, named)
    elif path.is_file() and path.suffix not in SUFFIXES:
        raise ValueError(f"{named} is no file of weights (.keras, {', '.join(SUFFIXES)}): give {KINDS}")
    return path


def open_encoder(
    source: str | os.PathLike[str],
    step: int | None = None,
    image_size: int | Sequence[int] | None = None,
    setting: str = "source",
) -> OpenedEncoder:
    """Open an encoder wherever it lies.

    Args:
        source: see `find_encoder`.
        step: see `find_encoder`.
        image_size: side or (height, width) in pixels of the input wanted; positions are resized, and `origin` says so.
            None: the encoder's own.
        setting: what errors call `source`.

    Raises:
        FileNotFoundError: as `find_encoder`.
        MissingExtraError: the file needs PyTorch, which is not installed.
        lut_tf.training.checkpoint.DamagedCheckpoint: the checkpoint that was asked for, or every one, is damaged.
        ValueError: as `find_encoder`, it cannot be read, or the input size is no multiple of its patches.
    """
    found = find_encoder(source, step, setting)
    import_tensorflow()
    named = f"{setting}={os.fspath(source)!r}"
    encoder, words = _load(found, named)
    run = _run_of(found)
    if image_size is not None and sides(image_size) != encoder.image_size:
        check_encoder(EncoderSize(encoder.patch_size, encoder.width, encoder.depth, encoder.heads), image_size)
        own, encoder = encoder.image_size, encoder.resized(image_size)
        words.append("positions resized from {}×{} to {}×{} pixels".format(*own, *encoder.image_size))
    path = spelled_out(source)
    origin = f"{path} ({', '.join(words)})" if words else path
    data = None if run is None else run_data(run)
    return OpenedEncoder(encoder, os.path.abspath(path), origin, checksum(encoder), run, data)


def data_of(source: str | os.PathLike[str], step: int | None = None, setting: str = "source") -> DataConfig:
    """Return the data settings of the run that the encoder at `source` is from, or the defaults; without TensorFlow.

    Raises:
        FileNotFoundError, ValueError: as `find_encoder`, or the run's configuration cannot be read.
    """
    run = _run_of(find_encoder(source, step, setting))
    return (None if run is None else run_data(run)) or DataConfig()


def run_data(run: RunFiles) -> DataConfig | None:
    """Return the data settings of a pre-training run; None where only its encoder is left.

    Raises:
        ValueError: its configuration cannot be read.
    """
    if not run.config.is_file():
        return None
    return read_saved(run, Config, f"run_dir={str(run.root)!r}", "give the directory of another run").data


def checksum(network: Any) -> str:
    """Return the SHA-256, in 64 letters, of a network's settings and of its weights in order, with names and shapes.

    Its own name and precision do not count, nor those of its parts, nor what chance has drawn so far: the same weights
    are the same network.

    Args:
        network: a built Keras model of ours.
    """
    found = hashlib.sha256(json.dumps(_lasting(network.get_config()), sort_keys=True, default=str).encode())
    for variable in network.weights:  # without the seeds of drop path, which are others in every process
        found.update(json.dumps([variable.name, list(variable.shape)]).encode())
        found.update(variable.numpy().tobytes())
    return found.hexdigest()


def _lasting(settings: Any) -> Any:
    """Return a network's settings without names and precision, its own and its parts'."""
    if isinstance(settings, Mapping):
        return {name: _lasting(value) for name, value in settings.items() if name not in ("name", "dtype")}
    return settings


def _find_in_run(path: Path, step: int | None, setting: str, named: str) -> Path | Saved:
    """Return what a directory has saved: the finished run's encoder, or whatever `find_saved` finds."""
    files = RunFiles(path)
    verb = verb_of_run(files)
    if verb == "probe":
        raise ValueError(f"{named} is the run of a linear probe, which keeps no encoder: give {KINDS}")
    if verb not in ("train", None):
        raise ValueError(
            f"{named} is a run that trained a classifier, and an encoder is wanted: give {KINDS}; "
            "lut-tf evaluate measures classifiers"
        )
    if step is None and files.encoder.is_file() and is_through(files):
        _check_kind(files.encoder, named)
        return files.encoder
    if not files.config.is_file():
        raise FileNotFoundError(f"{named} is no run directory, it holds no {files.config.name}: give {KINDS}")
    return find_saved(path, step, setting)


def registered_name(path: Path, named: str, kinds: str) -> str | None:
    """Return the registered name of the model that a `.keras` file holds, of its configuration alone.

    Args:
        path: of the file.
        named: it, in the message.
        kinds: what may be given instead.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json")).get("registered_name")
    except (KeyError, AttributeError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise ValueError(
            f"{named} is damaged or no .keras file ({' '.join(str(error).split())}): give {kinds}"
        ) from error


def _check_kind(path: Path, named: str) -> None:
    """Refuse a `.keras` file that holds no encoder.

    Raises:
        ValueError: it is damaged, or of another model.
    """
    held = registered_name(path, named, KINDS)
    if held == CLASSIFIER:
        raise ValueError(
            f"{named} holds a ViTClassifier, and an encoder is wanted: give {KINDS}; "
            "lut-tf evaluate measures classifiers"
        )
    if held not in (ENCODER, *WHOLE):
        raise ValueError(f"{named} holds a {held}, not a ViTEncoder: give {KINDS}")


def _run_of(found: Path | Saved) -> RunFiles | None:
    if isinstance(found, Saved):
        return found.files
    files = RunFiles(found.parent)
    return files if found == files.encoder and files.config.is_file() else None


def _load(found: Path | Saved, named: str) -> tuple[ViTEncoder, list[str]]:
    """Return the encoder, and words on which of a run's it is or how it is read."""
    if isinstance(found, Saved):
        from lut_tf.interop.runs import load_run, other_step

        run = load_run(found, other_step(found))
        return run.model.encoder, [run.origin]
    try:
        if found.suffix == ".keras":
            from lut_tf.interop.keras_files import load_keras

            network = load_keras(found)
            return getattr(network, "encoder", network), []
        from lut_tf.interop.encoders import read_encoder

        encoder, taken = read_encoder(found)
        return encoder, [taken]
    except ValueError as error:
        raise ValueError(
            f"{named} cannot be read ({error}): give another, or convert it with lut-tf convert"
        ) from error
