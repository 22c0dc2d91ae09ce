"""What a source says of too many damaged images, where TensorFlow wraps it in an error of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def raise_damage(sources: Iterable[Any]) -> None:
    """Raise what ended the reading of one of the sources, if that is what ended.

    Args:
        sources: some may have no log of damage, such as arrays.

    Raises:
        lut_tf.errors.Stopped: too many of one's images are damaged; the message lists them.
    """
    for source in sources:
        damage = getattr(source, "damage", None)
        if damage is not None and damage.end is not None:
            raise damage.end from None
