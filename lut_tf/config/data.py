"""Where images come from and what a run sees of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from lut_tf.config.networks import sides
from lut_tf.config.tree import joined, option, spell_paths_out
from lut_tf.config.types import Count, Decay, Fraction, NotNegative, NotNegativeInt, PositiveFraction, Range, show
from lut_tf.errors import told_together
from lut_tf.paths import check_path

HalfCircle = Annotated[float, Range(0.0, 0.5)]
MAX_BLUR = 4.0  # pixels; `lut_tf.models.colour` blurs by products with bands that this decides the width of
BlurRadius = Annotated[float, Range(0.0, MAX_BLUR, open_low=True)]
Threshold = Annotated[int, Range(0, 256)]
Bits = Annotated[int, Range(8, 16)]
Magnitude = Annotated[float, Range(0.0, 10)]

# Which settings of `data` each source reads; the others would be given in vain.
SOURCE_SETTINGS = {
    "digits": (),
    "image_folder": ("path", "evaluation_path", "holdout", "apply_exif", "bits"),
    "tfrecord": ("path", "evaluation_path", "holdout", "image_feature", "label_feature", "apply_exif", "bits"),
    "tfds": ("path", "name", "split", "evaluation_split", "holdout", "apply_exif", "bits"),
}
SOURCE_NEEDS = {"image_folder": ("path", "FOLDER"), "tfrecord": ("path", "PATTERN"), "tfds": ("name", "NAME")}


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
        holdout: share of the training images that is not trained on but measured on, so much of every class and always
            the same ones: instead of evaluation images where there are none, and beside them to choose settings by.
        image_feature: the feature of `tfrecord` that holds an image's bytes; null: `image/encoded` or `image`.
        label_feature: the feature of `tfrecord` that holds its class number; null: without labels.
        apply_exif: turn and mirror images as their EXIF orientation says, as cameras and telephones mean them.
        bits: how many bits the values of 16-bit files really have, 8 to 16, where their format does not say it (a
            camera's 12 lie low in 16, nearly black); larger values are clipped; null: 16.
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
    holdout: Decay = 0.0
    image_feature: str | None = None
    label_feature: str | None = None
    apply_exif: bool = True
    bits: Bits | None = None
    damaged_share: Fraction = 0.05
    parallel_calls: Count | None = None

    def __post_init__(self) -> None:
        spell_paths_out(self, "path", "evaluation_path")

    def check(self, name: str) -> None:
        """Refuse a source without what it reads, settings that it does not read, and no paths; see `validate`."""
        paths = [part for part in ("path", "evaluation_path") if getattr(self, part) is not None]
        told_together(
            lambda: self._check_source(name),
            *(partial(check_path, joined(name, part), getattr(self, part)) for part in paths),
        )

    def _check_source(self, name: str) -> None:
        need, kind = SOURCE_NEEDS.get(self.source, (None, ""))
        source = f"{joined(name, 'source')}={self.source}"
        if need and getattr(self, need) is None:
            raise ValueError(f"{joined(name, need)}=null, but {source} reads it: give {option(name, need)} {kind}")
        for setting in sorted({setting for read in SOURCE_SETTINGS.values() for setting in read}):
            value = getattr(self, setting)
            if setting not in SOURCE_SETTINGS[self.source] and value != getattr(type(self), setting):
                fitting = [other for other, read in SOURCE_SETTINGS.items() if setting in read]
                raise ValueError(
                    f"{joined(name, setting)}={show(value) if isinstance(value, bool) else repr(value)} "
                    f"is not read by {source}: "
                    f"give {option(name, 'source')} {' or '.join(fitting)}, or leave {joined(name, setting)} out"
                )


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
    padding: NotNegativeInt = 4
    scale: tuple[PositiveFraction, PositiveFraction] = (0.2, 1.0)
    flip: bool = True
    jitter_probability: Fraction = 0.8
    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.2
    hue: HalfCircle = 0.1
    one_of_three: bool = True
    solarize_threshold: Threshold = 128
    blur_radius: tuple[BlurRadius, BlurRadius] = (0.1, 2.0)

    def check(self, name: str) -> None:
        """Refuse ranges that start above their end; see `validate`."""
        told_together(
            lambda: check_rising(self.scale, joined(name, "scale")),
            lambda: check_rising(self.blur_radius, joined(name, "blur_radius")),
        )

    def check_size(self, image_size: int | tuple[int, int], name: str = "") -> None:
        """Refuse a padding that an image of this size cannot reflect.

        Raises:
            ValueError: the padding is half the image or more.
        """
        most = (min(sides(image_size)) - 1) // 2
        if self.crop == "simple" and self.padding > most:
            raise ValueError(
                f"{joined(name, 'padding')}={self.padding} cannot be reflected in an image of "
                f"encoder.image_size={show(image_size)}: give {option(name, 'padding')} {most} or less"
            )


@dataclass(frozen=True)
class FinetuneViews:
    """How training images of fine-tuning are changed.

    Args:
        scale: smallest and largest area of the random resized crop.
        flip: flip images horizontally with probability 0.5.
        operations: RandAugment operations drawn for an image; 0: none.
        magnitude: their strength, 0 to 10.
        magnitude_std: standard deviation of the strength.
        mixup: alpha of mixup's beta distribution; 0: no mixup.
        cutmix: alpha of cutmix's beta distribution; 0: no cutmix.
        switch: how often cutmix is taken where both are on.
        smoothing: label smoothing.
        erasing: how often a box is replaced by noise.
    """

    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    flip: bool = True
    operations: NotNegativeInt = 2
    magnitude: Magnitude = 9.0
    magnitude_std: NotNegative = 0.5
    mixup: NotNegative = 0.8
    cutmix: NotNegative = 1.0
    switch: Fraction = 0.5
    smoothing: Decay = 0.1
    erasing: Fraction = 0.25

    def check(self, name: str) -> None:
        """Refuse a range that starts above its end; see `validate`."""
        check_rising(self.scale, joined(name, "scale"))


def check_rising(pair: tuple[float, float], name: str) -> None:
    """Refuse a range that starts above its end.

    Raises:
        ValueError: it does.
    """
    low, high = pair
    if low > high:
        raise ValueError(f"{name}={show(pair)} starts above its end: give {show((high, low))}")
