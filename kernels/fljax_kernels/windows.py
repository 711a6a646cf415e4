"""The matrix of a convolution's windows, gathered tile by tile inside of a Pallas kernel.

It has a row for each position of the convolution's output and a column for each number of a window
of the image. A tile of it is loaded from the image where it is needed, and never written.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import triton as plgpu


class Walk(NamedTuple):
    """A matrix of windows: a row for each position, a column for each tap and channel.

    Attributes:
      count: Number of positions, those of all images.
      size: Rows and columns of positions in one image.
      by_windows: Whether positions come in the order of 2x2 windows, four by four.
      source: (H, W, C) of the image that windows are taken from.
      taps: Height and width of a window.
      strides, offsets, steps, divisors: Tap t of position p is source row
        (p * stride + offset + t * step) / divisor, where that is a whole number.
      ending: What was behind the convolution whose gradient the source is.
    """

    count: int
    size: tuple[int, int]
    by_windows: bool
    source: tuple[int, int, int]
    taps: tuple[int, int]
    strides: tuple[int, int]
    offsets: tuple[int, int]
    steps: tuple[int, int]
    divisors: tuple[int, int] = (1, 1)
    ending: str = ""

    @property
    def columns(self) -> int:
        return prod(self.taps) * self.source[2]


def windows_of(source, walk: Walk, position, taps) -> jax.Array:
    """Gathers a tile [positions, columns] of the matrix of windows."""
    (image, *at, real), (*tap, channel, inside) = position, taps
    conditions = [real] if inside is None else [real, inside]
    place = 0
    for axis in range(2):
        steps, divisor = walk.steps[axis], walk.divisors[axis]
        where = at[axis] * walk.strides[axis] + walk.offsets[axis] + tap[axis] * steps
        if divisor > 1:
            conditions.append(rem(where, divisor) == 0)
            where = div(where, divisor)
        if not _stays_inside(walk, axis):
            conditions += [where >= 0, where < walk.source[axis]]
        size = walk.source[axis]
        if walk.ending == "pool":
            place = place * 2 + rem(where, 2)
            where, size = div(where, 2), size // 2
        image = image * size + where
    index = image * walk.source[2] + channel
    return slopes_of(source, index, conditions, walk.ending, place)


def slopes_of(refs, index, conditions, ending: str, place) -> jax.Array:
    """Loads a tile of an image or, where something follows, of the gradient before that."""
    values = load(refs[0], index, *conditions)
    if not ending:
        return values
    saved = load(refs[1], index, *conditions)
    passes = saved > 0 if ending == "relu" else saved.astype(jnp.int32) == place
    return jnp.where(passes, values, 0)


def position_of(walk: Walk, number):
    """Returns (image, row, column, whether it exists) of positions."""
    height, width = walk.size
    if not walk.by_windows:
        line = div(number, width)
        return div(line, height), rem(line, height), rem(number, width), number < walk.count
    window, entry = div(number, 4), rem(number, 4)
    line = div(window, width // 2)
    row = 2 * rem(line, height // 2) + div(entry, 2)
    column = 2 * rem(window, width // 2) + rem(entry, 2)
    return div(line, height // 2), row, column, number < walk.count


def taps_of(walk: Walk, tile, width: int, beyond: bool = False):
    """Returns (row and column of the tap, channel, whether they exist) of the columns of a tile.

    Where a tile has channels of one tap, that is a single number, and so is all that follows.
    """
    channels, column = walk.source[2], tile * width + iota(width, 1)
    if channels % width == 0:
        # written so that the compiler sees that channels lie side by side, and loads them at once
        tiles = channels // width
        tap, channel = div(tile, tiles), rem(tile, tiles) * width + iota(width, 1)
    else:
        tap, channel = div(column, channels), rem(column, channels)
    exists = column < walk.columns if beyond or walk.columns % width else None
    return div(tap, walk.taps[1]), rem(tap, walk.taps[1]), channel, exists


def _stays_inside(walk: Walk, axis: int) -> bool:
    """Returns whether no tap of any position lies beyond the image."""
    reach = (walk.taps[axis] - 1) * walk.steps[axis]
    first = walk.offsets[axis] + min(0, reach)
    last = (walk.size[axis] - 1) * walk.strides[axis] + walk.offsets[axis] + max(0, reach)
    return first >= 0 and last < walk.source[axis] * walk.divisors[axis]


def load(ref, index, *conditions) -> jax.Array:
    """Loads entries, zero where not all conditions hold."""
    return plgpu.load(ref.at[index], mask=all_of(conditions, index.shape), other=0)


def all_of(conditions, shape) -> Any:
    held = conditions[0]
    for condition in conditions[1:]:
        held = held & condition
    return jnp.broadcast_to(held, shape)


def iota(size: int, axis: int) -> jax.Array:
    """Returns 0, 1, ... as a column (axis 0) or a row (axis 1)."""
    return lax.broadcasted_iota(jnp.int32, (size, 1) if axis == 0 else (1, size), axis)


def div(x, by: int):
    # rounds towards zero, in one operation; negative numbers are masked
    return x // by if isinstance(x, int) else lax.div(x, lax.full_like(x, by))


def rem(x, by: int):
    return x % by if isinstance(x, int) else lax.rem(x, lax.full_like(x, by))
