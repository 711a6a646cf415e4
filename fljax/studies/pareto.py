"""The Pareto picture of a study: what was sent against what was reached, its points labelled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import figures
from fljax.core.metrics import name_of, unit_of
from fljax.studies.comparison import Compared, Comparison
from fljax.studies.selection import Spread, spread

# By what clients keep between rounds: colour and marker. Okabe and Ito's palette.
_LOOKS = {
    "none": ("#0072B2", "o", "no memory"),
    "error_feedback": ("#D55E00", "D", "error feedback (EF)"),
}
_OTHER = ("#009E73", "s", "another memory")
_UNITS = (("GB", 1e-3), ("MB", 1.0), ("kB", 1e3), ("bytes", 1e6))
# Points so many times further from the best than a quarter of all are drawn at the edge.
_FAR = 1.6
# One above the other, by this share of the axis.
_STEP = 0.03
# Pixels from a point to its label, and how many directions are tried at each distance.
_DISTANCES = (9, 16, 26, 38, 52, 68)
_DIRECTIONS = 16
# A label this far away gets a line to its point.
_LONG = 20
# Half the width of what is kept free around a point, and pixels around all else.
_POINT = 8
_GAP = 2


class Point(NamedTuple):
    """A variant in the picture.

    Attributes:
      label: Its name.
      look: Colour, marker and meaning.
      bytes: Uplink to the target, or of the whole run where a seed never reached it.
      value: The reported metric, in its unit.
      reaches: Whether all seeds reached the target, or there is none.
      height: Where it is drawn, if not at its value.
    """

    label: str
    look: tuple[str, str, str]
    bytes: Spread
    value: Spread
    reaches: bool
    height: float | None = None

    @property
    def place(self) -> tuple[float, float]:
        """The place where it is drawn, in MB and the metric's unit."""
        return 1e-6 * self.bytes.mean, self.value.mean if self.height is None else self.height


def points(comparison: Comparison) -> list[Point]:
    """Returns where the variants stand; those that diverged with every seed stand nowhere."""
    factor, _ = unit_of(comparison.headline, comparison.metrics)
    return [
        Point(
            entry.label.replace(" + error_feedback", " EF"),
            _look(comparison, entry),
            spread(_sent(entry)),
            Spread(*(factor * figure for figure in entry.spread(comparison.reported))),
            entry.reaches or comparison.target is None,
        )
        for entry in comparison.compared
        if len(entry.diverged) < len(entry.outcomes)
    ]


def _sent(entry: Compared) -> list[float | None]:
    if entry.reaches:
        return [outcome.target["uplink_bytes"] for outcome in entry.outcomes]
    return [outcome.uplink_bytes for outcome in entry.outcomes]


def _look(comparison: Comparison, entry: Compared) -> tuple[str, str, str]:
    overrides = comparison.study.variants.get(entry.chosen.variant, {})
    memory = overrides.get("uplink_memory", comparison.config.get("uplink_memory", "none"))
    return _LOOKS.get(memory, _OTHER)


def front(candidates: Sequence[Point], maximize: bool = True) -> list[Point]:
    """Returns the points that reach the target and that no other beats, by ascending bytes.

    A point beats another if it needs no more bytes, is no worse, and differs in one.
    """
    sign = 1.0 if maximize else -1.0
    best: list[Point] = []
    reaching = (point for point in candidates if point.reaches)
    for point in sorted(reaching, key=lambda p: (p.bytes.mean, -sign * p.value.mean)):
        if not best or sign * point.value.mean > sign * best[-1].value.mean:
            best.append(point)
    return best


def draw_pareto(figure: Any, comparison: Comparison) -> None:
    """Draws the picture.

    Error bars are standard deviations over seeds. A hollow point never reached the target with some
    seed; it stands at the bytes of its whole runs. Both axes say what they show: bytes by powers,
    the metric evenly. Points far from all others are drawn at the edge, with their value.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      comparison: What is compared.
    """
    from matplotlib.ticker import LogLocator

    placed, (factor, unit) = points(comparison), unit_of(comparison.headline, comparison.metrics)
    target = comparison.target
    reference = next((entry for entry in comparison.compared if entry.is_reference), None)
    levels = []
    if reference is not None and len(reference.diverged) < len(reference.outcomes):
        level = factor * reference.spread(comparison.reported).mean
        levels.append((level, "--", f"reference: {comparison.study.reference}"))
    if target is not None and comparison.headline == comparison.target_key:
        levels.append((factor * target, ":", f"target {factor * target:g}{' %' * (factor != 1)}"))
    figure.set_size_inches(9.2, 6.2)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    prefix, in_units = _unit_of_bytes([point.bytes.mean for point in placed])
    axes.xaxis.set_major_formatter(lambda x, _: f"{in_units * x:g}")
    axes.minorticks_off()
    sent = "in all rounds" if target is None else "to the target"
    axes.set(
        xlabel=f"uplink of all clients {sent} ({prefix})",
        ylabel=f"{name_of(comparison.headline, comparison.metrics)}{unit}",
    )
    limits = _limits(placed, levels, comparison.criterion.maximize)
    placed = _at_the_edge(placed, limits)
    levels = [level for level in levels if limits[0] <= level[0] <= limits[1]]
    for height, style, text in levels:
        axes.axhline(height, color="#555555", linestyle=style, linewidth=1.1, label=text)
    best = front(placed, comparison.criterion.maximize)
    if len(best) > 1:
        line = {"color": "#999999", "linewidth": 1.4, "zorder": 1.5, "label": "Pareto front"}
        axes.plot(*zip(*(point.place for point in best), strict=True), **line)
    bars = [bar for point in placed for bar in _draw_point(axes, point)]
    _draw_legend(axes, placed)
    axes.margins(x=0.1)
    axes.set_ylim(limits)
    if levels and levels[0][1] == "--" and factor != 1:
        right = axes.secondary_yaxis(
            "right", functions=(lambda y: y - levels[0][0], lambda y: y + levels[0][0])
        )
        right.set_ylabel(f"difference to {comparison.study.reference} (points)", labelpad=10)
    figure.draw_without_rendering()
    bars += [(axes.get_xlim(), (height, height)) for height, _, _ in levels]
    place_labels(
        axes,
        [point.place for point in placed],
        [_label(point) for point in placed],
        [pixels(axes, *bar) for bar in bars] + along(axes, [point.place for point in best]),
    )


def _unit_of_bytes(sizes: Sequence[float]) -> tuple[str, float]:
    """Returns the unit that numbers of bytes are written in, and how many of it are in a MB."""
    middle = math.sqrt(min(sizes) * max(sizes))
    return next(unit for unit in _UNITS if middle * unit[1] >= 0.5e6 or unit == _UNITS[-1])


def _limits(
    placed: Sequence[Point], levels: Sequence[tuple[float, str, str]], maximize: bool
) -> tuple[float, float]:
    """Returns the ends of the metric's axis, which leave out what lies far from the best."""
    sign = 1.0 if maximize else -1.0
    values = sign * np.array([point.value.mean for point in placed])
    best, quarter = values.max(), np.percentile(values, 25)
    bars = np.nan_to_num([point.value.sd for point in placed])
    far = best - max(_FAR * (best - quarter), 2 * bars.max(), 1e-9)
    shown = values >= far
    heights = [sign * height for height, _, _ in levels if sign * height >= far]
    low = min([*(values - bars)[shown], *heights])
    high = max([*(values + bars)[shown], *heights, low + 1e-6 * max(abs(low), 1.0)])
    # room for those at the edge, below all lines
    low -= (0.08 + _STEP * (~shown).sum()) * (high - low)
    high += 0.08 * (high - low)
    ends = sorted((sign * low, sign * high))
    return ends[0], ends[1]


def _at_the_edge(placed: Sequence[Point], limits: tuple[float, float]) -> list[Point]:
    """Returns the points, those beyond an end of the axis one above the other before that end."""
    low, high = limits
    step = _STEP * (high - low)
    below = sorted(point.value.mean for point in placed if point.value.mean < low)
    above = sorted((point.value.mean for point in placed if point.value.mean > high), reverse=True)
    heights = {value: low + step * (1 + place) for place, value in enumerate(below)}
    heights |= {value: high - step * (1 + place) for place, value in enumerate(above)}
    return [point._replace(height=heights.get(point.value.mean)) for point in placed]


def _draw_point(axes: Any, point: Point) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Draws a point and returns its error bars: ((left, right), (bottom, top)) of each."""
    (x, y), (colour, *_) = point.place, point.look
    dx, dy = np.nan_to_num([1e-6 * point.bytes.sd, point.value.sd]).tolist()
    dx = min(dx, 0.9 * x)  # a logarithmic axis has no place for what is below zero
    marker = _marker(point)
    if point.height is not None:
        dy = 0.0
    axes.errorbar(
        x, y, xerr=dx, yerr=dy, color=colour, marker=marker, markersize=6, linewidth=0,
        markerfacecolor=colour if point.reaches else "white", elinewidth=0.8, zorder=3,
    )  # fmt: skip
    return [((x - dx, x + dx), (y, y)), ((x, x), (y - dy, y + dy))]


def _marker(point: Point) -> str:
    """Returns the marker of a point: of one at the edge a triangle, which shows where it lies."""
    if point.height is None:
        return point.look[1]
    return "v" if point.value.mean < point.height else "^"


def _draw_legend(axes: Any, placed: Sequence[Point]) -> None:
    """Adds a key to colours and markers, without points of its own."""
    from matplotlib.legend_handler import HandlerTuple

    for colour, marker, text in dict.fromkeys(point.look for point in placed):
        axes.plot([], [], color=colour, marker=marker, linewidth=0, markersize=6, label=text)
    handles, labels = axes.get_legend_handles_labels()
    beyond = sorted({_marker(point) for point in placed if point.height is not None})
    hollow = sorted({_marker(point) for point in placed if not point.reaches})
    for markers, inside, text in (
        (hollow, "white", "target not reached: whole run"),
        (beyond, "#555555", "beyond this axis, with its value"),
    ):
        if markers:
            style = {"linewidth": 0, "markersize": 6, "markeredgecolor": "#555555"}
            style |= {"markerfacecolor": inside}
            # every marker that the meaning has in this picture
            handles.append(tuple(axes.plot([], [], marker, **style)[0] for marker in markers))
            labels.append(text)
    # beside the axes, where it covers no error bar
    axes.figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=9,
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )  # fmt: skip


def _label(point: Point) -> str:
    return point.label if point.height is None else f"{point.label}: {figures(point.value.mean, 3)}"


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place_labels(
    axes: Any, points: Sequence[tuple[float, float]], texts: Sequence[str], lines: Sequence[Box]
) -> None:
    """Writes each text near its point; far ones get a thin line to it.

    Args:
      axes: Matplotlib axes whose figure has been laid out, with its limits final.
      points: (x, y) in data coordinates.
      texts: One a point.
      lines: What else labels should keep off, in pixels.
    """
    size = 0.9 * axes.xaxis.label.get_size()
    centres = [tuple(axes.transData.transform(point)) for point in points]
    sizes = []
    for text in texts:
        trial = axes.text(0, 0, text, fontsize=size)
        extent = trial.get_window_extent()
        sizes.append((extent.width, extent.height))
        trial.remove()
    boxes = arrange(centres, sizes, _box(axes), lines)
    to_points = 72 / axes.figure.dpi
    for text, point, (x, y), box in zip(texts, points, centres, boxes, strict=True):
        offset = (box.left + _GAP - x, box.bottom + _GAP - y)
        far = _distance((x, y), box) > _LONG
        axes.annotate(
            text,
            point,
            xytext=tuple(to_points * one for one in offset),
            textcoords="offset points",
            fontsize=size,
            va="bottom",
            color="#222222",
            zorder=4,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 4}
            if far
            else None,
        )


def pixels(axes: Any, x: tuple[float, float], y: tuple[float, float], margin: float = _GAP) -> Box:
    """Returns a rectangle given in data coordinates, widened on all sides."""
    (left, bottom), (right, top) = (
        axes.transData.transform(corner) for corner in ((x[0], y[0]), (x[1], y[1]))
    )
    return Box(left - margin, bottom - margin, right + margin, top + margin)


def along(axes: Any, points: Sequence[tuple[float, float]]) -> list[Box]:
    """Returns small boxes along the line through points in data coordinates."""
    corners = [axes.transData.transform(point) for point in points]
    return [box for ends in itertools.pairwise(corners) for box in _dotted(*ends, _GAP)]


def _dotted(start: tuple[float, float], end: tuple[float, float], half: float) -> list[Box]:
    """Returns boxes of a half width at even distances between two points."""
    (x, y), (right, up) = start, (end[0] - start[0], end[1] - start[1])
    centres = ((x + part / 30 * right, y + part / 30 * up) for part in range(31))
    return [Box(x - half, y - half, x + half, y + half) for x, y in centres]


def arrange(
    centres: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    taken: Sequence[Box] = (),
) -> list[Box]:
    """Finds a place for each label: the nearest free one, those of crowded points first.

    Args:
      centres: Points in pixels.
      sizes: (width, height) of their labels.
      frame: Where labels must lie.
      taken: What else they must not cover.

    Returns:
      The boxes of the labels. Where no candidate is free, the one that covers least.
    """
    markers = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in centres]
    crowd = [
        sum(abs(x - other) < 90 and abs(y - above) < 45 for other, above in centres)
        for x, y in centres
    ]
    placed: dict[int, Box] = {}
    leaders: list[Box] = []
    for index in sorted(range(len(centres)), key=lambda i: -crowd[i]):
        obstacles = [*markers, *taken, *leaders, *placed.values()]
        labels = list(placed.values())

        def covered(box, index=index, obstacles=obstacles, labels=labels):
            by_line = sum(
                part.overlap(label) for part in _leader(centres[index], box) for label in labels
            )
            return sum(map(box.overlap, obstacles)) + by_line + box.area - box.overlap(frame)

        placed[index] = min(_candidates(centres[index], sizes[index]), key=covered)
        leaders += _leader(centres[index], placed[index])
    return [placed[index] for index in range(len(centres))]


def _leader(centre: tuple[float, float], box: Box) -> list[Box]:
    """Returns small boxes along the line from a point to a label that is far from it."""
    if _distance(centre, box) <= _LONG:
        return []
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    return _dotted(centre, middle, 1)


def _candidates(centre: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    """Yields places around a point, the nearest first."""
    (x, y), (width, height) = centre, (size[0] + 2 * _GAP, size[1] + 2 * _GAP)
    for distance in _DISTANCES:
        for direction in range(_DIRECTIONS):
            angle = 2 * math.pi * direction / _DIRECTIONS
            right, up = math.cos(angle), math.sin(angle)
            # the box touches the circle with the side or corner that faces the point
            left = x + distance * right + width * (right - 1) / 2
            bottom = y + distance * up + height * (up - 1) / 2
            yield Box(left, bottom, left + width, bottom + height)


def _distance(point: tuple[float, float], box: Box) -> float:
    x, y = point
    return math.hypot(
        max(box.left - x, 0, x - box.right),
        max(box.bottom - y, 0, y - box.top),
    )


def _box(artist: Any) -> Box:
    extent = artist.get_window_extent()
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)
