"""What is measured of a frozen encoder, as trees of frozen dataclasses: one for each protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lut_tf.config.data import DataConfig
from lut_tf.config.tree import joined
from lut_tf.config.types import Count, Positive, Range, Seed, show

Draws = Annotated[int, Range(5)]


@dataclass(frozen=True)
class FrozenConfig:
    """The images and the features that a protocol measures an encoder by.

    Args:
        data: where the labelled images come from: those to learn from, and those that the figures are about
            (`data.evaluation_path`, `data.evaluation_split`, or `data.holdout` of the training images).
        image_size: side of the square input in pixels, or [height, width]; null takes the encoder's own. Where it is
            another, the positions are resized.
        pooling: what an image's features are: the `mean` of the encoder's patch tokens, or the class token, `cls`.
    """

    data: DataConfig = field(default_factory=DataConfig)
    image_size: Count | tuple[Count, Count] | None = None
    pooling: Literal["mean", "cls"] = "mean"


@dataclass(frozen=True)
class KnnConfig(FrozenConfig):
    """k-nearest-neighbour classification: nothing is trained.

    Args:
        neighbours: the numbers k of training images that vote, by cosine similarity; a figure for each.
        temperature: a vote counts exp(similarity / temperature).
    """

    neighbours: tuple[Count, ...] = (10, 20)
    temperature: Positive = 0.07

    def check(self, name: str) -> None:
        """Refuse an empty list; see `validate`."""
        check_some(self.neighbours, "neighbours", name)

    def check_bank(self, images: int) -> None:
        """Refuse more neighbours than there are labelled training images.

        Raises:
            ValueError: there are too many.
        """
        if max(self.neighbours) > images:
            raise ValueError(
                f"neighbours={show(self.neighbours)} is more than the {images} labelled training images that may vote: "
                f"give --neighbours {images} or less"
            )


@dataclass(frozen=True)
class FewShotConfig(FrozenConfig):
    """Classification from a few labelled images a class, by least squares in closed form.

    Args:
        shots: the numbers of labelled images a class; a figure for each.
        draws: how many times they are drawn; the figure is the mean, its interval that of the draws.
        seed: decides the draws: the same images for every encoder.
    """

    shots: tuple[Count, ...] = (1, 5, 10)
    draws: Draws = 10
    seed: Seed = 0

    def check(self, name: str) -> None:
        """Refuse an empty list; see `validate`."""
        check_some(self.shots, "shots", name)

    def check_bank(self, smallest: int, images: int, classes: int) -> None:
        """Refuse more shots than a class has images, or so many that none is left to choose the regularisation by.

        Args:
            smallest: labelled training images of the class that has the fewest.
            images: labelled training images of all classes.
            classes: how many classes there are.

        Raises:
            ValueError: there are too many.
        """
        most = max(self.shots)
        if most > smallest:
            raise ValueError(
                f"shots={show(self.shots)} is more than the {smallest} labelled training images of the smallest class: "
                f"give --shots {smallest} or less"
            )
        if most * classes >= images:
            remedy = f"give --shots {most - 1} or less" if most > 1 else "give more training images"
            raise ValueError(
                f"shots={show(self.shots)} takes all {images} labelled training images, and none is left to choose the "
                f"regularisation by: {remedy}"
            )


def check_some(values: tuple[object, ...], setting: str, name: str) -> None:
    """Refuse an empty list.

    Raises:
        ValueError: it is.
    """
    if not values:
        raise ValueError(f"{joined(name, setting)}=[] is empty: give --{joined(name, setting)} N")
