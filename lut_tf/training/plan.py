"""How far a run goes, in optimizer steps, and in which stretches `fit` takes it there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lut_tf.data.batches.order import steps_per_epoch


class Stretch(NamedTuple):
    """What one call of `fit` trains.

    Attributes:
        start_step: optimizer steps that the run has behind it.
        first_epoch: the epoch that it begins in, from 0.
        last_epoch: the epoch before which it ends.
        steps: optimizer steps of each of its epochs; fewer than the plan's where it ends a begun epoch.
    """

    start_step: int
    first_epoch: int
    last_epoch: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """`epochs` passes over `images` training images, `batch_size` of them a step; see `data.batches.order`."""

    epochs: int
    images: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return steps_per_epoch(self.images, self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def stretches(self, step: int, stops: Iterable[int] = ()) -> list[Stretch]:
        """Return what is left after `step`: the rest of a begun epoch, then whole epochs up to each stop and the end.

        Args:
            step: optimizer steps that the run has behind it.
            stops: epochs before which `fit` is to end and begin anew.
        """
        epoch, inside = divmod(step, self.steps_per_epoch)
        begun = [Stretch(step, epoch, epoch + 1, self.steps_per_epoch - inside)] if inside else []
        first = epoch + bool(inside)
        ends = sorted({stop for stop in stops if first < stop < self.epochs} | {self.epochs})
        starts = [first, *ends[:-1]]
        whole = [
            Stretch(start * self.steps_per_epoch, start, end, self.steps_per_epoch)
            for start, end in zip(starts, ends, strict=True)
            if start < end
        ]
        return begun + whole
