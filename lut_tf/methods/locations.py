"""Where a patch of one view lies in another view of the same image, and the other view's tokens at such places."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from lut_tf.models.layers import gather_tokens

BORDER = 1e-4
"""How far beyond a view's border, in views, a place still counts as inside: farther than rounding, nearer than a pixel.
Crops begin at whole pixels, so that patches' centres come to lie on the border itself."""


class Locations(NamedTuple):
    """Places in a view's grid of patches, whose first patch has its centre at 0.

    Attributes:
        rows: (B, T) float32, from the top.
        columns: (B, T) float32, from the left.
        inside: (B, T) bool, whether the view shows the place.
    """

    rows: Any
    columns: Any
    inside: Any


def locations_of(ids: Any, geometry: Any, other: Any, grid: tuple[int, int]) -> Locations:
    """Find the centres of a view's patches in another view of the same image.

    Each side of a view is one unit long here, whatever its size: rectangles and crops of another shape need no more.

    Args:
        ids: (B, T) integer ids of patches, row by row from 0.
        geometry: (B, 5) of the view, as the batch has it: top, left, height and width as fractions of the image,
            flipped.
        other: (B, 5) of the other view.
        grid: (rows, columns) of patches, of either view.
    """
    rows, columns = grid
    ids = ops.cast(ids, "int32")
    row, column = (ops.cast(x, "float32") + 0.5 for x in (ids // columns, ids % columns))
    top, left, height, width, flipped = _columns(geometry)
    down, across = top + row / rows * height, left + _mirrored(column / columns, flipped) * width  # in the image
    top, left, height, width, flipped = _columns(other)
    down, across = (down - top) / height, _mirrored((across - left) / width, flipped)
    inside = ops.logical_and(_within(down), _within(across))
    return Locations(down * rows - 0.5, across * columns - 0.5, inside)


def tokens_at(tokens: Any, locations: Locations, grid: tuple[int, int]) -> Any:
    """Return a view's tokens at places between its patches' centres, bilinearly, as (B, T, D) float32.

    Beyond the outermost centres it is the outermost tokens; so is what lies outside, which nobody should ask for.

    Args:
        tokens: (B, L, D) of all patches, row by row.
        locations: T places an image.
        grid: (rows, columns) of patches.
    """
    upper, lower, down = _neighbours(locations.rows, grid[0])
    left, right, across = _neighbours(locations.columns, grid[1])

    def in_row(row: Any) -> Any:
        one, other = (ops.cast(gather_tokens(tokens, row * grid[1] + column), "float32") for column in (left, right))
        return one + (other - one) * across[..., None]

    above, below = in_row(upper), in_row(lower)
    return above + (below - above) * down[..., None]


def _columns(geometry: Any) -> list[Any]:
    """Return the five parts of a geometry (B, 5), each (B, 1) float32."""
    geometry = ops.cast(geometry, "float32")
    return [geometry[:, i : i + 1] for i in range(5)]


def _mirrored(across: Any, flipped: Any) -> Any:
    return ops.where(flipped > 0.5, 1.0 - across, across)


def _within(place: Any) -> Any:
    return ops.logical_and(place >= -BORDER, place <= 1.0 + BORDER)


def _neighbours(place: Any, count: int) -> tuple[Any, Any, Any]:
    """Return the patches on either side of a place along an axis of `count`, and how far it lies from the first."""
    place = ops.clip(place, 0.0, count - 1.0)
    first = ops.floor(place)
    before = ops.cast(first, "int32")
    return before, ops.minimum(before + 1, count - 1), place - first
