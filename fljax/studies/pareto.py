"""The Pareto picture of a study: what was sent against what was reached, its points labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import figures
from fljax.core.metrics import name_of, unit_of
from fljax.recording.label_places import along, pixels, place_labels
from fljax.studies.comparison import Compared, Comparison
from fljax.studies.selection import Spread, is_known, spread

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
    """Returns where the variants stand.

    Those that diverged with every seed stand nowhere, nor do those without a finite value.
    """
    factor, _ = unit_of(comparison.headline, comparison.metrics)
    found = (
        Point(
            entry.label.replace(" + error_feedback", " EF"),
            _look(comparison, entry),
            spread(_sent(entry)),
            Spread(*(factor * figure for figure in entry.spread(comparison.reported))),
            entry.reaches or comparison.target is None,
        )
        for entry in comparison.compared
        if len(entry.diverged) < len(entry.outcomes)
    )
    return [point for point in found if _is_somewhere(point)]


def _is_somewhere(point: Point) -> bool:
    return is_known(point.bytes.mean) and is_known(point.value.mean)


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
    reaching = (point for point in candidates if point.reaches and _is_somewhere(point))
    for point in sorted(reaching, key=lambda p: (p.bytes.mean, -sign * p.value.mean)):
        if not best or sign * point.value.mean > sign * best[-1].value.mean:
            best.append(point)
    return best


def draw_pareto(figure: Any, comparison: Comparison) -> None:
    """Draws the picture.

    Error bars are standard deviations over seeds. A hollow point never reached the target with some
    seed; it stands at the bytes of its whole runs. Both axes say what they show: bytes by powers,
    the metric evenly. Points far from all others are drawn at the edge, with their value; variants
    that send nothing are lines.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      comparison: What is compared.
    """
    from matplotlib.ticker import LogLocator

    every, (factor, unit) = points(comparison), unit_of(comparison.headline, comparison.metrics)
    # an axis of powers has no place for those that send nothing: they are lines
    placed = [point for point in every if point.bytes.mean != 0]
    silent = [point for point in every if point.bytes.mean == 0]
    target = comparison.target
    reference = next((entry for entry in comparison.compared if entry.is_reference), None)
    levels = []
    if reference is not None and len(reference.diverged) < len(reference.outcomes):
        level = factor * reference.spread(comparison.reported).mean
        levels.append((level, "--", f"reference: {comparison.study.reference}"))
    if target is not None and comparison.headline == comparison.target_key:
        levels.append((factor * target, ":", f"target {factor * target:g}{' %' * (factor != 1)}"))
    levels += [(point.value.mean, "-.", f"{point.label}: sends nothing") for point in silent]
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
    known = [size for size in sizes if size > 0] or [1.0]
    middle = math.sqrt(min(known) * max(known))
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

    looks = dict.fromkeys(point.look for point in placed)
    if list(looks) == [_LOOKS["none"]]:
        looks = {}  # nobody has a memory
    for colour, marker, text in looks:
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
