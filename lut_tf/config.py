"""A pre-training run as one tree of frozen dataclasses (no TensorFlow, no Keras).

YAML files and the command line are read into `Config` by jsonargparse (see `lut_tf.cli`); `lut_tf.checks` refuses what
cannot work before anything slow starts. The docstrings below are the texts of `--help`.
"""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from lut_tf.settings import check_layout, settings_of


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Args:
        source: `digits` (scikit-learn's 1,797 handwritten digits, embedded), `image_folder` (a folder of image files,
            one sub-folder a class, or flat without labels), `tfrecord` (files of tf.train.Example) or `tfds` (a public
            data set that `lut-tf prepare` has made ready).
        path: the folder of training images of `image_folder`; a pattern of files of `tfrecord`, such as
            `folder/train-*.tfrecord`; the folder that `lut-tf prepare --output` wrote a data set of `tfds` to, or null
            for tensorflow-datasets' own. Any of them may lie on TensorFlow's file systems (`gs://…`).
        evaluation_path: labelled images of the same classes, given as `path` is, on which the probes are scored;
            without them none are.
        name: the data set of `tfds` (`cifar10`, `imagenet2012`).
        split: the part of it to train on, slices such as `train[:90%]` too.
        evaluation_split: the part of it on which the probes are scored; without it none are.
        image_feature: the feature of `tfrecord` that holds an image's bytes; null: `image/encoded` or `image`.
        label_feature: the feature of `tfrecord` that holds its class number; null: without labels.
        damaged_share: the run stops, with the list, when more than this share of the files cannot be read; up to then
            each is replaced by the next readable file of its class.
        parallel_calls: images read and cropped at the same time; null lets tf.data choose.
    """

    source: Literal["digits", "image_folder", "tfrecord", "tfds"] = "digits"
    path: str | None = None
    evaluation_path: str | None = None
    name: str | None = None
    split: str = "train"
    evaluation_split: str | None = None
    image_feature: str | None = None
    label_feature: str | None = None
    damaged_share: float = 0.05
    parallel_calls: int | None = None


@dataclass(frozen=True)
class ViewsConfig:
    """The two views of an image (paper: "simple resized crop" and one strongly coloured view).

    Args:
        crop: `simple` resizes the short side to the input size, pads by reflection and crops at random (best for LUT);
            `random_resized` is MAE's crop of a random area and shape.
        padding: pixels of reflection around the image before the simple crop.
        scale: smallest and largest area of the random resized crop, as fractions of the image (SimMIM: 0.67 and 1).
        flip: flip each view horizontally with probability 0.5.
        jitter_probability: how often view 2 gets colour jitter.
        brightness: strength of the brightness jitter: the factor is uniform in 1 ± strength.
        contrast: strength of the contrast jitter.
        saturation: strength of the saturation jitter.
        hue: strength of the hue jitter, as a fraction of the colour circle, at most 0.5.
        one_of_three: apply exactly one of grayscale, solarize and Gaussian blur to view 2.
        solarize_threshold: bytes from this value up are inverted by solarize.
        blur_radius: smallest and largest standard deviation of the Gaussian blur, in pixels, at most 4.
    """

    crop: Literal["simple", "random_resized"] = "simple"
    padding: int = 4
    scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    one_of_three: bool = True
    solarize_threshold: int = 128
    blur_radius: tuple[float, float] = (0.1, 2.0)


@dataclass(frozen=True)
class EncoderConfig:
    """The Vision Transformer that is trained and kept.

    Args:
        preset: a published size (`vit_tiny_patch16`, `vit_small_patch16`, `vit_medium_patch16`, `vit_base_patch16`,
            `vit_large_patch16`, `vit_huge_patch14`), or null when the four numbers below are given.
        image_size: side of the square input in pixels, a multiple of the patch size.
        patch_size: side of a patch in pixels; null takes the preset's.
        width: channels of a token, a multiple of 4 and of the heads; null takes the preset's.
        depth: number of transformer blocks; null takes the preset's.
        heads: attention heads; null takes the preset's.
    """

    preset: str | None = "vit_base_patch16"
    image_size: int = 224
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None


@dataclass(frozen=True)
class DecoderConfig:
    """The small transformer that paints the masked patches; it exists in pre-training only.

    Args:
        width: channels of a token, a multiple of 4 and of the heads.
        depth: number of transformer blocks.
        heads: attention heads.
    """

    width: int = 512
    depth: int = 8
    heads: int = 16


@dataclass(frozen=True)
class HeadConfig:
    """LUT's projector and predictor (multi-layer perceptrons; they exist in pre-training only).

    Args:
        hidden: width of the hidden layers.
        projector_depth: linear layers of the projector; 0 is the identity.
        predictor_depth: linear layers of the predictor; 0 is the identity.
        norm: normalisation after each hidden layer: `batch`, `layer`, or null for none.
        activation: `relu` or `gelu`.
    """

    hidden: int = 4096
    projector_depth: int = 2
    predictor_depth: int = 2
    norm: Literal["batch", "layer"] | None = "batch"
    activation: Literal["relu", "gelu"] = "relu"


@dataclass(frozen=True)
class MethodConfig:
    """What is learned.

    Args:
        name: `lut` (reconstruction and context) or `mae` (reconstruction only).
        mask_ratio: share of the patches that the student does not see; LUT needs at least 0.5 for two disjoint views.
        norm_pix_loss: normalise each target patch by its own mean and variance.
        reconstruction_weight: weight of the reconstruction loss (LUT).
        context_weight: weight of the context loss (LUT; 0.25 for ViT-B, 1.0 for ViT-S).
        context_distance: `l2` (squared, on unit vectors), `infonce` or `smooth_l1`.
        temperature: temperature of `infonce`.
        symmetric: both directions of the context loss as in the reference; false keeps view 1 against the teacher's
            view 2 only, as in the paper's figure (about 40 % cheaper).
        momentum: momentum of the teacher at the first step; it rises to 1 along a half cosine.
        head: projector and predictor (LUT).
    """

    name: Literal["lut", "mae"] = "lut"
    mask_ratio: float = 0.75
    norm_pix_loss: bool = True
    reconstruction_weight: float = 1.0
    context_weight: float = 0.25
    context_distance: Literal["l2", "infonce", "smooth_l1"] = "l2"
    temperature: float = 0.2
    symmetric: bool = True
    momentum: float = 0.996
    head: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and a half cosine to zero, both by optimizer step.

    Args:
        batch_size: images of one optimizer step, over all devices and accumulated parts.
        accumulate: parts that a step's batch is computed in, one after the other, to save memory.
        base_learning_rate: the rate that the rule scales.
        rate_rule: `sqrt` (LUT: base · sqrt(batch)/4), `linear` (MAE: base · batch/256) or `none` (base itself).
        warmup_epochs: epochs of linear warm-up from 0.
        clip_norm: largest global norm of the gradient; 0: no limit.
        max_bad_steps: steps with an infinite or undefined loss or gradient that the run skips, changing nothing, before
            it stops; 0 stops at the first.
        weight_decay: decoupled decay of everything that is neither a bias nor one-dimensional.
        betas: decay rates of AdamW's moments.
    """

    batch_size: int = 4096
    accumulate: int = 1
    base_learning_rate: float = 1.5e-4
    rate_rule: Literal["sqrt", "linear", "none"] = "sqrt"
    warmup_epochs: float = 40.0
    clip_norm: float = 0.0
    max_bad_steps: int = 0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True)
class ProbeConfig:
    """k-NN and a logistic-regression probe on frozen features of images that training never saw.

    Args:
        every: epochs between probes on the validation part; 0 probes before and after training only.
        neighbours: neighbours that vote in k-NN.
        images: at most this many training images make the bank of features.
    """

    every: int = 0
    neighbours: int = 20
    images: int = 10000


@dataclass(frozen=True)
class LoggingConfig:
    """What is written while training.

    Args:
        pictures_every: epochs between reconstruction pictures; 0 draws the last one only.
        pictures: images in a picture.
        tensorboard: write scalars and pictures for TensorBoard.
    """

    pictures_every: int = 10
    pictures: int = 8
    tensorboard: bool = True


@dataclass(frozen=True)
class ComputeConfig:
    """How the numbers are computed.

    Args:
        precision: `float32`, `mixed_bfloat16` (recent GPUs), or `mixed_float16` (with loss scaling). Weights, softmax,
            LayerNorm, losses and the teacher's average are float32 in all three.
        teacher_precision: what the teacher computes in, for instance mixed_bfloat16 beside a float32 student; null: as
            the student.
        jit_compile: let XLA compile encoder, decoder and teacher.
        all_reduce: what sums gradients over devices: `auto` (NCCL between GPUs), `nccl`, `hierarchical` or `one_device`
            on one host, `nccl` or `ring` between hosts.
        deterministic: the same numbers, bit for bit, in every run on the same machine; slower on GPUs.
    """

    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    teacher_precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] | None = None
    jit_compile: bool = False
    all_reduce: Literal["auto", "nccl", "hierarchical", "one_device", "ring"] = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run saves itself; its end and a stop by SIGINT or SIGTERM are always saved.

    Args:
        every_epochs: epochs between two checkpoints; 0: none by epochs.
        every_steps: optimizer steps between two checkpoints; 0: none by steps.
        every_minutes: minutes between two checkpoints; 0: none by the clock.
        keep: how many of the newest stay.
        keep_every: epochs whose multiples' checkpoints stay for ever; 0: none.
        on_failure: when the disk is full or fails, `stop` with the last good checkpoint, or `continue` and try again
            when the next one is due.
    """

    every_epochs: int = 1
    every_steps: int = 0
    every_minutes: float = 0.0
    keep: int = 2
    keep_every: int = 0
    on_failure: Literal["stop", "continue"] = "stop"


@dataclass(frozen=True)
class Config:
    """One pre-training run.

    Args:
        run_dir: folder of everything the run writes; started again on it, the run goes on from its last checkpoint.
        epochs: passes over the training images.
        seed: decides the initial weights, the order of the images, crops, colours and masks.
        strategy: `single` device, `mirrored` over several, `multi_worker` over several hosts, or `auto` (mirrored where
            more than one device is used, else single).
        devices: GPUs to use, or the number of logical CPU devices where there is no GPU; null takes every GPU, or one
            CPU device.
        workers: the hosts of `multi_worker`, as host:port,host:port, the same in each process; null reads TF_CONFIG.
        worker_index: this process' place among the workers, from 0.
        data: where the images come from.
        views: crops and colours.
        encoder: the Vision Transformer.
        decoder: the reconstruction decoder.
        method: losses, masking and teacher.
        optimizer: batch, rate and decay.
        probe: measuring the encoder.
        logging: pictures and TensorBoard.
        checkpoint: saving and going on.
        compute: precision, XLA, determinism.
    """

    run_dir: str = "runs/lut"
    epochs: int = 400
    seed: int = 0
    strategy: Literal["auto", "single", "mirrored", "multi_worker"] = "auto"
    devices: int | None = None
    workers: str | None = None
    worker_index: int | None = None
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)


def settings() -> dict[str, Any]:
    """Return every setting's dotted name and type, in the order of the tree (`{"method.mask_ratio": float, …}`)."""
    return dict(settings_of(Config))


class ConfigFile(ActionConfigFile):
    """The option `--config FILE`; what jsonargparse would pass over in silence is refused first."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file into the parser's namespace.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not YAML, holds no settings, or misplaces one.
        """
        named = f"config={values!r}"
        if not Path(values).is_file():
            raise FileNotFoundError(f"{named} does not exist as a file: give --config the path of a YAML file")
        _check_text(Path(values).read_bytes(), named)
        super().__call__(parser, cfg, values, option_string)


def add_config_arguments(parser: ArgumentParser) -> None:
    """Give `parser` an option for every setting of `Config`, with its meaning as help."""
    parser.add_class_arguments(Config, None, fail_untyped=True)


def config_from(parser: ArgumentParser, arguments: Namespace) -> Config:
    """Build the `Config` out of what a parser with `add_config_arguments` has parsed."""
    built = parser.instantiate(arguments)
    return Config(**{part.name: built[part.name] for part in fields(Config)})


def to_yaml(config: Config) -> str:
    """Return the whole tree, defaults included, as YAML that `from_yaml` reads back into an equal `Config`."""
    return yaml.safe_dump(_without_tuples(asdict(config)), sort_keys=False, allow_unicode=True)


def from_yaml(text: str) -> Config:
    """Return the `Config` that `text` describes; settings it leaves out keep their defaults.

    Raises:
        ValueError: the text is no YAML, has an unknown key, or a value of the wrong type.
    """
    _check_text(text, "the configuration")
    parser = ArgumentParser(exit_on_error=False)
    add_config_arguments(parser)
    try:
        return config_from(parser, parser.parse_string(text))
    except ArgumentError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_text(text: str | bytes, named: str) -> None:
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{named} is not YAML ({problem}): mend it, as the recipes in configs/ show") from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{named} holds no settings: write them as `name: value`, as the recipes in configs/ show")
    check_layout(loaded, Config)


def _without_tuples(value: Any) -> Any:
    """Turn tuples into lists: YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _without_tuples(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
