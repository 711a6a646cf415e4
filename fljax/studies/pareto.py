"""The Pareto plot of a ladder: bytes to the target against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.recording.plots import STYLE, save_figure
from fljax.studies.label_places import along, pixels, place_labels
from fljax.studies.ladder import UNCOMPRESSED, Rung
from fljax.studies.outcomes import Row, Spread, spread

# By memory: colour and marker. Okabe and Ito's palette, as in the plots of runs.
_LOOKS = {
    "none": ("#0072B2", "o", "no memory"),
    "error_feedback": ("#D55E00", "D", "error feedback (EF)"),
}
_OTHER = ("#009E73", "s", "another memory")
_SHORT = {"error_feedback": "EF"}
# Differences in points at which the axes have ticks.
_GAPS = (-80, -40, -20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10)


class Point(NamedTuple):
    """A rung in the picture.

    Attributes:
      rung: Its compressor.
      bytes: Uplink to the target, or of the whole run where a seed never reached it.
      accuracy: On the test set.
      reaches: Whether all seeds reached the target, or there is none.
    """

    rung: Rung
    bytes: Spread
    accuracy: Spread
    reaches: bool


def points(rows: Sequence[Row], target: float | None) -> list[Point]:
    """Returns where the rungs stand; those that diverged with every seed stand nowhere."""
    return [
        Point(
            row.rung,
            spread(one.uplink_bytes for one in (row.reached if row.reaches else row.outcomes)),
            row.accuracy,
            row.reaches or target is None,
        )
        for row in rows
        if len(row.diverged) < len(row.outcomes)
    ]


def front(candidates: Sequence[Point]) -> list[Point]:
    """Returns the points that reach the target and that no other beats, by ascending bytes.

    A point beats another if it needs no more bytes, is no less accurate, and differs in one.
    """
    best: list[Point] = []
    reaching = (point for point in candidates if point.reaches)
    for point in sorted(reaching, key=lambda p: (p.bytes.mean, -p.accuracy.mean)):
        if not best or point.accuracy.mean > best[-1].accuracy.mean:
            best.append(point)
    return best


def draw(rows: Sequence[Row], path: Path, *, title: str, target: float | None) -> None:
    """Draws the picture as a PNG file.

    Accuracies near that of the uncompressed rung, where differences of tenths matter, are drawn
    apart; those far from it together. Error bars are standard deviations over seeds. A hollow point
    never reached the target with some seed; it stands at the bytes of its whole runs.

    Args:
      rows: Of the ladder.
      path: Of the file.
      title: Says what the task is.
      target: The target accuracy; None without one, then all points stand at their whole runs.

    Raises:
      ImportError: If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error

    placed = points(rows, target)
    level = 100 * next(row.accuracy.mean for row in rows if row.rung == Rung(UNCOMPRESSED))
    levels = [(level, "--", "uncompressed")]
    if target is not None:
        levels.append((100 * target, ":", f"target {100 * target:g} %"))
    with matplotlib.rc_context(STYLE | {"font.size": 9.5}):
        figure = Figure(figsize=(9.2, 6.2), dpi=105, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(
            xlabel=f"Uplink of all clients {'in all rounds' if target is None else 'to the target'}"
            " (MB)",
            ylabel="Test accuracy (%)",
            title=title,
        )
        for height, style, text in levels:
            axes.axhline(height, color="#555555", linestyle=style, linewidth=1.1, label=text)
        _draw_front(axes, front(placed))
        bars = [_draw_point(axes, point) for point in placed]
        _draw_legend(axes, placed)
        _scale(axes, placed, level)
        figure.draw_without_rendering()
        lines = [((axes.get_xlim()), (height, height)) for height, _, _ in levels]
        lines += [line for bar in bars for line in bar]
        place_labels(
            axes,
            [_place(point) for point in placed],
            [_label(point.rung) for point in placed],
            [pixels(axes, *line) for line in lines]
            + along(axes, [_place(point) for point in front(placed)]),
        )
        save_figure(figure, path)


def _scale(axes: Any, placed: Sequence[Point], level: float) -> None:
    """Stretches the axis of accuracies near a level, and adds one of differences to it."""

    def stretched(accuracy):
        return np.arcsinh(2 * (np.asarray(accuracy) - level))

    def back(height):
        return level + np.sinh(height) / 2

    axes.set_yscale("function", functions=(stretched, back))
    heights = stretched([100 * point.accuracy.mean for point in placed] + [level])
    low, high = heights.min(), heights.max()
    axes.set_ylim(back(low - 0.12 * (high - low) - 0.3), back(high + 0.12 * (high - low) + 0.3))
    bottom, top = axes.get_ylim()
    gaps = [gap for gap in _GAPS if bottom <= level + gap <= top]
    axes.set_yticks([level + gap for gap in gaps], [f"{level + gap:.1f}" for gap in gaps])
    axes.minorticks_off()
    right = axes.twinx()
    right.set_yscale("function", functions=(stretched, back))
    right.set_ylim(bottom, top)
    right.grid(False)
    right.set_yticks([level + gap for gap in gaps], [f"{gap:+g}" if gap else "0" for gap in gaps])
    right.minorticks_off()
    right.set_ylabel("Difference to uncompressed (points)")
    axes.margins(x=0.1)


def _place(point: Point) -> tuple[float, float]:
    return 1e-6 * point.bytes.mean, 100 * point.accuracy.mean


def _draw_point(axes: Any, point: Point) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Draws a point and returns its error bars: ((left, right), (bottom, top)) of each."""
    (x, y), colour_of = _place(point), _LOOKS.get(point.rung.memory, _OTHER)
    dx, dy = (np.nan_to_num([1e-6 * point.bytes.sd, 100 * point.accuracy.sd])).tolist()
    dx = min(dx, 0.9 * x)  # a logarithmic axis has no place for what is below zero
    axes.errorbar(
        x,
        y,
        xerr=dx,
        yerr=dy,
        color=colour_of[0],
        marker=colour_of[1],
        markersize=6,
        markerfacecolor=colour_of[0] if point.reaches else "white",
        linewidth=0,
        elinewidth=0.8,
        zorder=3,
    )
    return [((x - dx, x + dx), (y, y)), ((x, x), (y - dy, y + dy))]


def _draw_front(axes: Any, best: Sequence[Point]) -> None:
    if len(best) > 1:
        axes.plot(
            [1e-6 * point.bytes.mean for point in best],
            [100 * point.accuracy.mean for point in best],
            color="#999999",
            linewidth=1.4,
            zorder=1.5,
            label="Pareto front",
        )


def _draw_legend(axes: Any, placed: Sequence[Point]) -> None:
    """Adds a key to colours and markers, without points of its own."""
    looks = dict.fromkeys(_LOOKS.get(point.rung.memory, _OTHER) for point in placed)
    for colour, marker, text in looks:
        axes.plot([], [], color=colour, marker=marker, linewidth=0, markersize=6, label=text)
    if not all(point.reaches for point in placed):
        hollow = {"markerfacecolor": "white", "markeredgecolor": "#555555"}
        text = "target not reached: whole run"
        axes.plot([], [], marker="o", linewidth=0, markersize=6, label=text, **hollow)
    axes.legend(loc="lower right", fontsize=8.5)


def _label(rung: Rung) -> str:
    if rung.memory == "none":
        return rung.code
    return f"{rung.code} {_SHORT.get(rung.memory, rung.memory)}"
