"""`init_from`: the weights that a new run starts from, and what of them fits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut_tf.config import Config, EncoderConfig, show
from lut_tf.config.presets import EncoderSize
from lut_tf.paths import is_saved_folder
from lut_tf.training.run_directory import RunFiles, Saved, find_saved, steps_in

if TYPE_CHECKING:
    from lut_tf.interop.files import Weights
    from lut_tf.methods.base import MaskedImageModel
    from lut_tf.models.encoder import ViTEncoder

HEADS = ("projector", "predictor")
OWN = ("encoder", "decoder", "masked_map", *HEADS)  # what the student is made of


@dataclass(frozen=True)
class Initial:
    """Weights to start from.

    Attributes:
        origin: where they are from, in words.
        parts: networks by their names in a method: `encoder`, and what there is of `decoder`, `masked_map`,
            `projector`, `predictor`, `teacher_encoder` and `teacher_projector`.
    """

    origin: str
    parts: dict[str, Any] = field(default_factory=dict)

    def give(self, model: MaskedImageModel) -> str:
        """Give a model what fits it, once; return what was taken and what is fresh, as a line for people.

        What was loaded is let go then: it would take as much memory as the model, for as long as the run.
        """
        wanted = [name for name in OWN if hasattr(model, name)]
        taken = [name for name in wanted if name in self.parts and _fits(getattr(model, name), self.parts[name])]
        for name in taken:
            _copy(getattr(model, name), self.parts[name])
        words = [", ".join(taken)]
        if model.has_teacher:
            model.reset_teacher()
            words.append(self._give_teacher(model, "projector" in taken))
        fresh = [name for name in wanted if name not in taken]
        words += _otherwise(model.encoder, self.parts["encoder"])
        self.parts.clear()
        return f"starts from {self.origin}: {'; '.join(words)}; fresh: {', '.join([*fresh, 'optimizer'])}"

    def _give_teacher(self, model: Any, projector: bool) -> str:
        if "teacher_encoder" not in self.parts:
            return "teacher: a copy of the student"
        _copy(model.teacher_encoder, self.parts["teacher_encoder"])
        if not projector:
            return "teacher, its projector a copy of the student's"
        _copy(model.teacher_projector, self.parts["teacher_projector"])
        return "teacher"


def _otherwise(own: ViTEncoder, other: ViTEncoder) -> list[str]:
    """Return what an encoder does in another way than the one that its weights are from, in words."""
    words = []
    if other.grid != own.grid:
        words.append("positions resized from {}×{} to {}×{} patches".format(*other.grid, *own.grid))
    if other.position_kind != own.position_kind:
        ways = {"sincos": "stay fixed, there they were learned", "learned": "are learned on, there they were fixed"}
        words.append(f"positions {ways[own.position_kind]}")
    theirs = other.preprocessing
    if (theirs.mean, theirs.std) != (own.preprocessing.mean, own.preprocessing.std):
        words.append(f"images normalised by ImageNet's mean and std, there by {show(theirs.mean)}, {show(theirs.std)}")
    if other.layer_norm_eps != own.layer_norm_eps:
        words.append(f"norms add {own.layer_norm_eps:g} to the variance, there {other.layer_norm_eps:g}")
    return words


def find_initial(config: Config) -> Path | Saved | None:
    """Return where the run's first weights are, looked at without TensorFlow; None: from chance, or the run goes on.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is the run itself, no file of weights, or a run with another encoder.
    """
    if config.init_from is None or steps_in(RunFiles(Path(config.run_dir)).checkpoints):
        return None
    named, path = f"init_from={config.init_from!r}", Path(config.init_from)
    if path.is_dir():
        if is_saved_folder(path):
            return path
        if path.resolve() == Path(config.run_dir).resolve():
            raise ValueError(f"{named} is the run directory itself: leave it out, or give another --run_dir")
        saved: Saved[Config] = find_saved(path, setting="init_from")
        _check_size(config.encoder, saved.config.encoder.size(), named)
        return saved
    if not path.is_file():
        remedy = "give a run directory, an encoder's .keras file, a file of weights or a folder of save_pretrained"
        raise FileNotFoundError(f"{named} does not exist: {remedy}")
    return path


def load_initial(config: Config, found: Path | Saved) -> Initial:
    """Return the weights that `find_initial` has found, in the host's memory.

    Raises:
        lut_tf.training.checkpoint.DamagedCheckpoint: no checkpoint of the run is whole.
        ValueError: they cannot be read, or the encoder does not fit.
    """
    import tensorflow as tf

    named = f"init_from={config.init_from!r}"
    with tf.device("CPU:0"):  # the devices are the run's own
        initial = _load(config, found, named)
    encoder = initial.parts["encoder"]
    _check_size(config.encoder, EncoderSize(encoder.patch_size, encoder.width, encoder.depth, encoder.heads), named)
    if not encoder.has_class_token:
        raise ValueError(f"{named} holds an encoder without class token, and a run's has one: give another")
    if encoder.registers or encoder.layer_scale:
        raise ValueError(
            f"{named} holds an encoder with register tokens or LayerScale, and a run's has none: give another"
        )
    return initial


def _load(config: Config, found: Path | Saved, named: str) -> Initial:
    if isinstance(found, Saved):
        from lut_tf.interop.runs import load_run

        run = load_run(found, "bring back a copy, or give another --init_from")
        return Initial(f"{config.init_from} ({run.origin})", _parts(run.model))
    from lut_tf.interop.files import read_weights

    with _reading(named):
        if found.suffix == ".keras":
            return Initial(str(config.init_from), _keras_parts(found))
        weights = _with_heads(read_weights(found), config)
        size = _shown_size(weights)
    _check_size(config.encoder, size, named)  # before heads that are no divisor of another width
    with _reading(named):
        return Initial(str(config.init_from), _weight_parts(weights, config))


@contextmanager
def _reading(named: str) -> Iterator[None]:
    """Add the setting and the remedy to what is wrong with a file."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{named} cannot be read ({error}): give another file, or a run directory") from error


def _check_size(wanted: EncoderConfig, found: EncoderSize, named: str) -> None:
    """Refuse an encoder of another size; the image's may differ.

    Raises:
        ValueError: naming the setting.
    """
    for part, value in wanted.size()._asdict().items():
        if getattr(found, part) != value:
            raise ValueError(
                f"encoder.{part}={value} does not fit {named}, whose encoder has {getattr(found, part)}: "
                f"give --encoder.{part} {getattr(found, part)}, or other weights"
            )


def _parts(network: MaskedImageModel | ViTEncoder) -> dict[str, Any]:
    names = (*OWN, "teacher_encoder", "teacher_projector")
    found = {name: getattr(network, name) for name in names if hasattr(network, name)}
    return found or {"encoder": network}


def _keras_parts(path: Path) -> dict[str, Any]:
    from lut_tf.interop.keras_files import load_keras
    from lut_tf.methods.base import MaskedImageModel
    from lut_tf.models.encoder import ViTEncoder

    network = load_keras(path)
    if not isinstance(network, ViTEncoder | MaskedImageModel):
        raise ValueError(f"it holds a {type(network).__name__}")
    return _parts(network)


def _with_heads(weights: Weights, config: Config) -> Weights:
    """Take heads of attention, which shapes do not tell and nothing beside them does, to be the run's."""
    told = weights.told
    heads = told.num_heads or config.encoder.size().heads
    decoder_heads = told.decoder_num_heads or config.decoder.heads
    return weights._replace(told=told._replace(num_heads=heads, decoder_num_heads=decoder_heads))


def _shown_size(weights: Weights) -> EncoderSize:
    from lut_tf.interop.shapes import detect_layout, infer_size

    layout = detect_layout(weights.student, weights.what)
    return infer_size(weights.student, layout, weights.told.num_heads or 0, weights.what)


def _weight_parts(weights: Weights, config: Config) -> dict[str, Any]:
    """Make networks of other people's weights; a decoder of another width than the run's is left out."""
    from lut_tf.interop import load_encoder, load_reference
    from lut_tf.interop.reference import decoder_width, holds_heads, without_decoder
    from lut_tf.interop.shapes import detect_layout

    width = decoder_width(weights.student, detect_layout(weights.student, weights.what))
    decoder, heads = width == config.decoder.width, holds_heads(weights.student)
    if not decoder:
        weights = weights._replace(student=without_decoder(weights.student))
    if not (decoder or heads):
        return {"encoder": load_encoder(weights)}
    with warnings.catch_warnings():  # what stays fresh is said when the run starts
        warnings.filterwarnings("ignore", "(?s).* they stay freshly initialised$")
        model = load_reference(weights, head_activation=config.method.head.activation)
    absent = [] if decoder else ["decoder"]
    absent += [] if heads else [*HEADS]
    absent += [] if weights.teacher else ["teacher_encoder", "teacher_projector"]
    return {name: part for name, part in _parts(model).items() if name not in absent}


def _fits(target: Any, source: Any) -> bool:
    """Tell whether a part has the same layers and shapes as another, positions aside."""
    names = ("patch_size", "encoder_width", "width", "depth", "heads", "norm", "activation")
    kinds = [{name: getattr(part, name) for name in names if _is_plain(part, name)} for part in (target, source)]
    shapes = [[tuple(v.shape) for v in part.variables if v.name != "positions"] for part in (target, source)]
    return kinds[0] == kinds[1] and shapes[0] == shapes[1]


def _is_plain(part: Any, name: str) -> bool:
    """Tell whether a part's attribute is a setting; an encoder's `norm` is a layer."""
    return isinstance(getattr(part, name, None), int | str)


def _copy(target: Any, source: Any) -> None:
    """Assign the weights of a part that fits; positions are resized where the grids differ."""
    from lut_tf.models.positions import resize_positions

    for own, other in zip(target.variables, source.variables, strict=True):
        value = other.numpy()
        if own.name == "positions":
            value = resize_positions(value, source.grid, target.grid)
        own.assign(value)
