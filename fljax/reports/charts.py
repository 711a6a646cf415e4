"""Charts of a report before they are drawn: lines in coordinates of data, with what axes say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fljax.recording.plots import COLOURS
from fljax.reports.thinning import thinned

# Kinds of dashes, which tell lines apart once all colours are used.
DASHES = ("", "7 4", "2 3")


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      label: What the legend calls it.
      x, y: float64[n], the points that it joins, all finite.
      low, high: float64[n] ends of a band around it; None without one.
      style: Its colour and its dashes, by number: lines of one style belong together.
      is_filled: Whether the area below it is filled.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    style: int = 0
    is_filled: bool = False

    @property
    def colour(self) -> int:
        """The number of its colour."""
        return self.style % len(COLOURS)

    @property
    def dash(self) -> int:
        """The number of its kind of dashes."""
        return self.style // len(COLOURS) % len(DASHES)


class Chart(NamedTuple):
    """A chart.

    Attributes:
      title: Above it.
      x_label, y_label: Of the axes, with units.
      lines: What it shows; at least one.
      target: A value of y that has a dotted line, or None.
      from_zero: Whether the axis of y begins at zero.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    target: float | None = None
    from_zero: bool = False


class Range(NamedTuple):
    """The ends of an axis."""

    low: float
    high: float


def line_of(label: str, x: np.ndarray, y: np.ndarray | None, style: int = 0) -> Line | None:
    """Returns a line through the finite points; None where there is none.

    Example:
      >>> line_of("loss", np.arange(3), np.array([np.nan, 2.0, 1.0])).x.tolist()
      [1.0, 2.0]
    """
    if y is None:
        return None
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    return Line(label, x[known], y[known], style=style) if known.any() else None


def steps(label: str, edges: np.ndarray, heights: np.ndarray, style: int = 0) -> Line:
    """Returns a histogram as a filled line with a step at each edge.

    Args:
      label: What the legend calls it.
      edges: float64[n + 1] of the bins.
      heights: [n] of the bins.
      style: Its colour and dashes.

    Example:
      >>> steps("rows", np.array([0.0, 1.0, 2.0]), np.array([3, 5])).y.tolist()
      [0.0, 3.0, 3.0, 5.0, 5.0, 0.0]
    """
    y = np.repeat(np.asarray(heights, np.float64), 2)
    y = np.concatenate([[0], y, [0]])
    return Line(label, np.repeat(edges, 2), y, style=style, is_filled=True)


def shares(label: str, values: np.ndarray, style: int = 0) -> Line | None:
    """Returns the share of values up to each value (the ECDF); None where none is finite.

    Example:
      >>> shares("clients", np.array([0.5, 0.1])).y.tolist()
      [0.0, 0.5, 0.5, 1.0]
    """
    ordered = np.sort(values[np.isfinite(values)])
    if not ordered.size:
        return None
    heights = np.arange(ordered.size + 1) / ordered.size
    return Line(label, np.repeat(ordered, 2), np.repeat(heights, 2)[1:-1], style=style)


def thin(line: Line, most: int) -> Line:
    """Returns a line with so many points at most; its band goes with them.

    Example:
      >>> len(thin(line_of("loss", np.arange(1000), np.sin(np.arange(1000))), 50).x)
      50
    """
    kept = thinned(line.y, most)
    low, high = (None if side is None else side[kept] for side in (line.low, line.high))
    return line._replace(x=line.x[kept], y=line.y[kept], low=low, high=high)


def ranges(chart: Chart) -> tuple[Range, Range]:
    """Returns the ends of both axes: what is drawn, and a little more of y.

    Example:
      >>> line = line_of("loss", np.array([1, 5]), np.array([2.0, 4.0]))
      >>> ranges(Chart("loss", "round", "loss", [line], from_zero=True))
      (Range(low=1.0, high=5.0), Range(low=0.0, high=4.2))
    """
    x = np.concatenate([line.x for line in chart.lines])
    sides = [side for line in chart.lines for side in (line.y, line.low, line.high)]
    y = np.concatenate([side for side in sides if side is not None])
    low, high = float(y.min()), float(y.max())
    if chart.target is not None:
        low, high = min(low, chart.target), max(high, chart.target)
    if chart.from_zero:
        low = min(low, 0.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    below = 0.0 if chart.from_zero and low == 0 else margin
    return _apart(float(x.min()), float(x.max())), Range(low - below, high + margin)


def _apart(low: float, high: float) -> Range:
    return Range(low, high) if high > low else Range(low - 0.5, high + 0.5)
