"""Axes: which axes of a model's arrays are one and the same, as computations tie them together.

An axis is a list of parts, since a flattened one is a product of several: that of an image's places
and channels is [places, channels]. Parts that an equation ties together become one. A part that
cannot be divided (of the inputs, or where an equation reads it in a way that a narrower model would
not) is whole, with the reason, and so is all that is ever tied to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Axis = list["Cell"]


class Part:
    """One factor of an axis, known by identity; what is learned of it is noted in place.

    Attributes:
      size: How many places it has.
      reason: Why it is whole; "" where nothing says more than that; None where it is not.
      made: Whether it is what a product with parameters makes: units, such as neurons or filters.
      read: Whether a product with parameters sums over it.
      grouped: Whether it is one of several that an axis comes apart into.
      lost: Whether units may have become it where nobody can follow.
    """

    def __init__(self, size: int, reason: str | None = None, lost: bool = False):
        self.size, self.reason, self.lost = size, reason, lost
        self.made = self.read = self.grouped = False
        self._same: Part | None = None
        self._parts: list[Part] | None = None

    def found(self) -> Part:
        """Returns the part that stands for all those tied to this one."""
        return self if self._same is None else self._same.found()

    def pieces(self) -> list[Part]:
        """Returns the parts that it has turned out to be made of, or itself."""
        one = self.found()
        if one._parts is None:
            return [one]
        return [piece for part in one._parts for piece in part.pieces()]

    def keep_whole(self, reason: str = "") -> None:
        """Notes that it cannot be divided."""
        for piece in self.pieces():
            piece.reason = piece.reason or reason

    def tie(self, other: Part) -> None:
        """Makes one of two parts of one size."""
        one, two = self.found(), other.found()
        if one is two:
            return
        reasons = [part.reason for part in (one, two) if part.reason is not None]
        two.reason = max(reasons, key=len, default=None)
        _share(one, two)
        one._same = two

    def refine(self, parts: Sequence[Part]) -> None:
        """Notes that it is made of parts, whose sizes multiply to its own."""
        one = self.found()
        for part in parts:
            if one.reason is not None:
                part.keep_whole(one.reason)
            for piece in part.pieces():
                _share(one, piece)
        one._parts = list(parts)


def _share(one: Part, two: Part) -> None:
    """Notes of the second part what is known of the first."""
    for name in ("made", "read", "grouped", "lost"):
        setattr(two, name, getattr(one, name) or getattr(two, name))


class Cell(NamedTuple):
    """A part as one array has it.

    Attributes:
      part: The part.
      dead: Whether the array is zero in the places of units that a narrower model does not have.
    """

    part: Part
    dead: bool


def axis_of(size: int, dead: bool = False, reason: str | None = None, lost: bool = False) -> Axis:
    """Returns a new axis; one of a single place has no parts."""
    return [] if size == 1 else [Cell(Part(size, reason, lost), dead)]


def remains_of(axis: Axis, size: int, reason: str) -> Axis:
    """Returns what an axis becomes that cannot be followed, and keeps it whole."""
    lost = any(part.made or part.lost for part in parts_of(axis))
    keep_whole([axis], reason)
    return axis_of(size, reason=reason if lost else "", lost=lost)


def pieces_of(axis: Axis) -> Axis:
    """Returns an axis with its parts as far apart as they are known."""
    return [Cell(piece, cell.dead) for cell in axis for piece in cell.part.pieces()]


def parts_of(*axes: Axis) -> Iterator[Part]:
    """Yields the parts of some axes."""
    for axis in axes:
        yield from (cell.part for cell in pieces_of(axis))


def keep_whole(axes: Sequence[Axis], reason: str = "") -> None:
    """Notes that axes cannot be divided."""
    for part in parts_of(*axes):
        part.keep_whole(reason)


def is_dead(axis: Axis) -> bool:
    """Returns whether an array is zero wherever a part of an axis that may be divided is cut."""
    return all(cell.dead or cell.part.reason is not None for cell in pieces_of(axis))


def tie(one: Axis, two: Axis) -> None:
    """Notes that two axes of one length are the same.

    Example:
      >>> units, flat = axis_of(4), axis_of(12)
      >>> tie(flat, [*axis_of(3), *units])
      >>> [cell.part.size for cell in pieces_of(flat)], pieces_of(flat)[1].part is units[0].part
      ([3, 4], True)
    """
    one, two = pieces_of(one), pieces_of(two)
    first, second = ([cell.part for cell in axis] for axis in (one, two))
    if [part.size for part in first] == [part.size for part in second]:
        for mine, other in zip(first, second, strict=True):
            mine.tie(other)
    elif len(first) == 1:
        first[0].refine(second)
    elif len(second) == 1:
        second[0].refine(first)
    else:
        keep_whole((one, two), "arranged in two ways")


def reshaped(axes: Sequence[Axis], shape: Sequence[int]) -> list[Axis]:
    """Returns the axes of an array in another shape.

    Axes that are put together become one of several parts, and such a one comes apart into these.

    Example:
      >>> batch, place, channel = axis_of(5), axis_of(9), axis_of(8)
      >>> [len(axis) for axis in reshaped([batch, place, channel], (5, 72, 1))]
      [1, 2, 0]
    """
    left = [cell for axis in axes for cell in pieces_of(axis)]
    sizes, new = list(shape), []
    while sizes:
        taken, into = [], [sizes.pop(0)]
        while (held := math.prod(cell.part.size for cell in taken)) != math.prod(into):
            if held < math.prod(into):
                taken.append(left.pop(0))
            else:
                into.append(sizes.pop(0))
        new += [taken] if len(into) == 1 else _apart(taken, into)
    return new


def _apart(taken: Axis, into: Sequence[int]) -> list[Axis]:
    """Returns the axes that parts come apart into, each a group of its own."""
    if len(taken) > 1:
        return [remains_of(taken, size, "arranged in two ways") for size in into]
    axes = [axis_of(size, dead=is_dead(taken)) for size in into]
    for part in parts_of(*axes):
        part.grouped = True
    taken[0].part.refine(list(parts_of(*axes)))
    return axes
