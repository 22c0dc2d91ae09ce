"""Refuse a run that cannot work, before TensorFlow is imported: one sentence with the setting, its value, the remedy.

`check` is arithmetic on the configuration alone; `check_files` looks at the disk; `check_batch` is for the moment when
the number of replicas is known.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from lut_tf.config import Config, DataConfig, EncoderConfig, from_yaml, settings
from lut_tf.models.presets import ENCODER_SIZES, EncoderSize, encoder_size, unknown_preset
from lut_tf.settings import describe_type, get_setting, has_type, show

# What may change when a run is started again on its directory: nothing here alters what is learned.
MAY_DIFFER = (
    "run_dir",
    "strategy",
    "devices",
    "workers",
    "worker_index",
    "logging",
    "checkpoint",
    "compute.jit_compile",
    "compute.all_reduce",
    "optimizer.max_bad_steps",
    "data.parallel_calls",
    "data.damaged_share",
)


class Range(NamedTuple):
    """Numbers from `low` to `high`; `open_low` and `open_high` leave the end itself out."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether `value` lies inside; NaN and infinity never do."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        """Say the range as a remedy: `a number from 0 to 1`."""
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        if math.isinf(self.high):
            return f"{low} up" if not self.open_low else low
        return f"{low} to {'just under ' if self.open_high else ''}{self.high:.15g}"


COUNT, NOT_NEGATIVE, POSITIVE = Range(1), Range(0), Range(0, open_low=True)
FRACTION, DECAY = Range(0, 1), Range(0, 1, open_high=True)

RANGES = {
    "epochs": COUNT,
    "seed": Range(0, 2**32 - 1),  # what NumPy's generators take
    "devices": COUNT,
    "worker_index": NOT_NEGATIVE,
    "data.damaged_share": FRACTION,
    "data.parallel_calls": COUNT,
    "views.padding": NOT_NEGATIVE,
    "views.scale": Range(0, 1, open_low=True),
    "views.jitter_probability": FRACTION,
    "views.brightness": FRACTION,
    "views.contrast": FRACTION,
    "views.saturation": FRACTION,
    "views.hue": Range(0, 0.5),
    "views.solarize_threshold": Range(0, 256),
    "views.blur_radius": Range(0, 4, open_low=True),  # preprocess.MAX_BLUR
    "encoder.image_size": COUNT,
    "encoder.patch_size": COUNT,
    "encoder.width": COUNT,
    "encoder.depth": COUNT,
    "encoder.heads": COUNT,
    "decoder.width": COUNT,
    "decoder.depth": COUNT,
    "decoder.heads": COUNT,
    "method.mask_ratio": FRACTION,
    "method.reconstruction_weight": NOT_NEGATIVE,
    "method.context_weight": NOT_NEGATIVE,
    "method.temperature": POSITIVE,
    "method.momentum": FRACTION,
    "method.head.hidden": COUNT,
    "method.head.projector_depth": NOT_NEGATIVE,
    "method.head.predictor_depth": NOT_NEGATIVE,
    "optimizer.batch_size": COUNT,
    "optimizer.accumulate": COUNT,
    "optimizer.base_learning_rate": POSITIVE,
    "optimizer.warmup_epochs": NOT_NEGATIVE,
    "optimizer.clip_norm": NOT_NEGATIVE,
    "optimizer.max_bad_steps": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.betas": DECAY,
    "probe.every": NOT_NEGATIVE,
    "probe.neighbours": COUNT,
    "probe.images": COUNT,
    "logging.pictures_every": NOT_NEGATIVE,
    "logging.pictures": COUNT,
    "checkpoint.every_epochs": NOT_NEGATIVE,
    "checkpoint.every_steps": NOT_NEGATIVE,
    "checkpoint.every_minutes": NOT_NEGATIVE,
    "checkpoint.keep": COUNT,
    "checkpoint.keep_every": NOT_NEGATIVE,
}


def check(config: Config) -> None:
    """Refuse settings that contradict themselves or each other; looks at nothing outside `config`.

    Raises:
        ValueError: the first mistake found, in one line.
    """
    _check_types(config)
    _check_ranges(config)
    _check_encoder(config)
    _check_tokens("decoder", config.decoder.width, config.decoder.heads)
    _check_masking(config)
    _check_views(config)
    _check_sources(config)
    _check_schedule(config)
    _check_devices(config)
    _check_hosts(config)


def check_files(config: Config) -> None:
    """Refuse a run whose images or run directory cannot serve it; reads the disk and writes nothing.

    Raises:
        FileNotFoundError: a folder of images does not exist.
        PermissionError: the run directory cannot be written.
        ValueError: the batch or the neighbours outnumber the images, or the run directory holds another configuration.
    """
    _check_run_dir(config)
    images = check_images(config)
    bank = min(images, config.probe.images)
    if config.probe.neighbours > bank:
        raise ValueError(
            f"probe.neighbours={config.probe.neighbours} is more than the {bank} images that k-NN may ask: "
            f"give --probe.neighbours {bank} or less"
        )


def check_images(config: Config) -> int:
    """Return the number of training images; refuse images that are not there, or too few for a batch.

    Raises:
        FileNotFoundError, ValueError: as `check_files`.
    """
    from lut_tf.data.reading.listing import list_data  # here, because `check` alone must not need the data package

    images = list_data(config.data).images
    if config.optimizer.batch_size > images:
        raise ValueError(
            f"optimizer.batch_size={config.optimizer.batch_size} is larger than the data set of {images} training "
            f"images: give --optimizer.batch_size {images} or less"
        )
    return images


def check_batch(config: Config, replicas: int) -> None:
    """Refuse a batch that cannot be shared out evenly over `replicas` devices and the accumulated parts.

    Raises:
        ValueError: the batch is not a multiple of replicas × accumulate.
    """
    batch, accumulate = config.optimizer.batch_size, config.optimizer.accumulate
    parts = replicas * accumulate
    if batch % parts:
        nearest = max(parts, round(batch / parts) * parts)
        raise ValueError(
            f"optimizer.batch_size={batch} cannot be shared evenly by {replicas} device(s) × optimizer.accumulate="
            f"{accumulate}: give a multiple of {parts}, for instance --optimizer.batch_size {nearest}"
        )


def resolve_size(encoder: EncoderConfig) -> EncoderSize:
    """Return patch, width, depth and heads: those given, and the preset's for those that are null.

    Raises:
        ValueError: no such preset, or neither a preset nor all four numbers.
    """
    given = {name: getattr(encoder, name) for name in EncoderSize._fields}
    missing = [name for name, value in given.items() if value is None]
    if encoder.preset is not None:
        if encoder.preset not in ENCODER_SIZES:
            raise ValueError(f"encoder.{unknown_preset(encoder.preset)}")
        return encoder_size(encoder.preset)._replace(**{k: v for k, v in given.items() if v is not None})
    if missing:
        raise ValueError(
            f"encoder.{missing[0]}=null, and encoder.preset=null gives no size: give --encoder.preset, "
            f"or all of {', '.join('--encoder.' + name for name in missing)}"
        )
    return EncoderSize(**given)


def _check_types(config: Config) -> None:
    """Jsonargparse has done this for YAML and the command line; a `Config` made in Python has no other guard."""
    for name, hint in settings().items():
        value = get_setting(config, name)
        if not has_type(value, hint):
            raise ValueError(f"{name}={show(value)} is of the wrong type: give {describe_type(hint)}")


def _check_ranges(config: Config) -> None:
    for name, allowed in RANGES.items():
        value = get_setting(config, name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(map(allowed.holds, values)):
            kind = "numbers" if isinstance(value, tuple) else "a number"
            raise ValueError(f"{name}={show(value)} is out of range: give {kind} {allowed}")


def _check_encoder(config: Config) -> None:
    size = resolve_size(config.encoder)
    _check_tokens("encoder", size.width, size.heads)
    side = config.encoder.image_size
    if side % size.patch_size:
        nearest = max(1, round(side / size.patch_size)) * size.patch_size
        raise ValueError(
            f"encoder.image_size={side} is not a multiple of the patch size {size.patch_size}: "
            f"give --encoder.image_size {nearest}, or another --encoder.patch_size"
        )


def _check_tokens(room: str, width: int, heads: int) -> None:
    unit = math.lcm(4, heads)
    nearest = max(unit, round(width / unit) * unit)
    if width % heads:
        raise ValueError(
            f"{room}.width={width} is not a multiple of {room}.heads={heads}: give --{room}.width {nearest}"
        )
    if width % 4:
        raise ValueError(
            f"{room}.width={width} is not a multiple of 4, which the sine and cosine positions of rows and columns "
            f"need: give --{room}.width {nearest}"
        )


def _check_masking(config: Config) -> None:
    ratio = config.method.mask_ratio
    patches = (config.encoder.image_size // resolve_size(config.encoder).patch_size) ** 2
    visible = int(patches * (1 - ratio))
    named = f"method.mask_ratio={show(ratio)}"
    if visible == 0:
        raise ValueError(f"{named} leaves none of {patches} patches visible: give a smaller --method.mask_ratio")
    if visible == patches:
        raise ValueError(f"{named} masks none of {patches} patches: give a larger --method.mask_ratio")
    if config.method.name == "lut" and ratio < 0.5:
        raise ValueError(
            f"{named} leaves no two disjoint views for method.name=lut: "
            "give --method.mask_ratio 0.5 or more, or --method.name mae"
        )


def _check_views(config: Config) -> None:
    for name in ("views.scale", "views.blur_radius"):
        low, high = get_setting(config, name)
        if low > high:
            raise ValueError(f"{name}={show((low, high))} starts above its end: give {show((high, low))}")
    most = (config.encoder.image_size - 1) // 2
    if config.views.crop == "simple" and config.views.padding > most:
        raise ValueError(
            f"views.padding={config.views.padding} cannot be reflected in an image of encoder.image_size="
            f"{config.encoder.image_size}: give --views.padding {most} or less"
        )


# Which settings of `data` each source reads; the others would be given in vain.
SOURCE_SETTINGS = {
    "digits": (),
    "image_folder": ("path", "evaluation_path"),
    "tfrecord": ("path", "evaluation_path", "image_feature", "label_feature"),
    "tfds": ("path", "name", "split", "evaluation_split"),
}
SOURCE_NEEDS = {"image_folder": ("path", "FOLDER"), "tfrecord": ("path", "PATTERN"), "tfds": ("name", "NAME")}


def _check_sources(config: Config) -> None:
    data = config.data
    need, kind = SOURCE_NEEDS.get(data.source, (None, ""))
    if need and getattr(data, need) is None:
        raise ValueError(f"data.{need}=null, but data.source={data.source} reads it: give --data.{need} {kind}")
    for name in sorted({name for names in SOURCE_SETTINGS.values() for name in names}):
        value = getattr(data, name)
        if name not in SOURCE_SETTINGS[data.source] and value != getattr(DataConfig, name):
            fitting = [source for source, names in SOURCE_SETTINGS.items() if name in names]
            raise ValueError(
                f"data.{name}={value!r} is not read by data.source={data.source}: "
                f"give --data.source {' or '.join(fitting)}, or leave data.{name} out"
            )


def _check_schedule(config: Config) -> None:
    optimizer = config.optimizer
    if optimizer.warmup_epochs > config.epochs:
        raise ValueError(
            f"optimizer.warmup_epochs={show(optimizer.warmup_epochs)} is longer than the run of "
            f"epochs={config.epochs}: give --optimizer.warmup_epochs {config.epochs} or less, or more --epochs"
        )


def _check_devices(config: Config) -> None:
    devices, strategy = config.devices, config.strategy
    if strategy == "single" and devices is not None and devices > 1:
        raise ValueError(
            f"devices={devices} contradicts strategy=single: give --strategy mirrored, or leave devices out"
        )
    # Where `devices` is null the number is known once TensorFlow has started: the strategy room calls again then.
    check_batch(config, devices if devices is not None and strategy != "single" else 1)
    micro, method = config.optimizer.batch_size // config.optimizer.accumulate, config.method
    if method.name != "lut" or micro > 1:
        return
    remedy = "give two images or more to each accumulated part"
    if method.context_distance == "infonce":
        raise ValueError(
            f"optimizer.batch_size={config.optimizer.batch_size} leaves method.context_distance=infonce no other image "
            f"to tell apart: {remedy}"
        )
    if method.head.norm == "batch" and max(method.head.projector_depth, method.head.predictor_depth) > 1:
        raise ValueError(
            f"optimizer.batch_size={config.optimizer.batch_size} gives BatchNorm in the heads one image at a time, and "
            f"it makes zeros of one: {remedy}, or --method.head.norm layer"
        )


def _check_hosts(config: Config) -> None:
    several, reduction = config.strategy == "multi_worker", config.compute.all_reduce
    if not several and (config.workers is not None or config.worker_index is not None):
        raise ValueError(f"workers={config.workers!r} is for several hosts: give --strategy multi_worker too")
    if several and config.devices is not None:
        raise ValueError(
            f"devices={config.devices} is for one host: leave it out, strategy=multi_worker uses every GPU of each host"
        )
    if several and config.workers is not None:
        count = len(config.workers.split(","))
        if config.worker_index is None or config.worker_index >= count:
            raise ValueError(
                f"worker_index={config.worker_index} is none of the {count} workers: "
                f"give --worker_index 0 to {count - 1}, another to each"
            )
    if reduction not in (("auto", "nccl", "ring") if several else ("auto", "nccl", "hierarchical", "one_device")):
        raise ValueError(
            f"compute.all_reduce={reduction} does not go with strategy={config.strategy}: "
            f"give --compute.all_reduce auto"
        )


def _check_run_dir(config: Config) -> None:
    if not config.run_dir.strip():
        raise ValueError("run_dir='' is empty: give --run_dir FOLDER")
    folder = Path(config.run_dir)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ValueError(f"run_dir={config.run_dir!r} cannot be made, {existing} is a file: give another --run_dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"run_dir={config.run_dir!r} cannot be written, there is no write permission in {existing}: "
            "give another --run_dir"
        )
    saved = folder / "config.yaml"
    if saved.is_file():
        _check_same_run(config, _read_saved(config.run_dir, saved))


def _read_saved(run_dir: str, path: Path) -> Config:
    try:
        return from_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"run_dir={run_dir!r} holds a config.yaml that this version cannot read ({error}): give another --run_dir"
        ) from error


def _check_same_run(config: Config, saved: Config) -> None:
    changed = [name for name in differences(saved, config) if not _may_differ(name)]
    if changed:
        listed = "; ".join(
            f"{name} was {show(get_setting(saved, name))}, now {show(get_setting(config, name))}" for name in changed
        )
        raise ValueError(
            f"run_dir={config.run_dir!r} holds a run of another configuration ({listed}): "
            f"give another --run_dir, or the old value{'s' if len(changed) > 1 else ''}"
        )


def _may_differ(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_DIFFER)


def identity(config: Config) -> str:
    """Return as text all the settings that must be the same wherever, and whenever, a run goes on."""
    return "\n".join(f"{name}={get_setting(config, name)!r}" for name in settings() if not _may_differ(name))


def differences(old: Config, new: Config) -> list[str]:
    """Return the dotted names of the settings in which two configurations differ, in the order of the tree."""
    return [name for name in settings() if get_setting(old, name) != get_setting(new, name)]
