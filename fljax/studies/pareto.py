"""The Pareto plot of a ladder: bytes to the target against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.recording.plots import STYLE
from fljax.studies.labels import place_labels
from fljax.studies.ladder import UNCOMPRESSED, Rung
from fljax.studies.outcomes import Row, Spread, spread

# By memory: colour and marker. Okabe and Ito's palette, as in the plots of runs.
_LOOKS = {
    "none": ("#0072B2", "o", "no memory"),
    "error_feedback": ("#D55E00", "D", "error feedback (EF)"),
}
_OTHER = ("#009E73", "s", "another memory")
_SHORT = {"error_feedback": "EF"}


class Point(NamedTuple):
    """A rung in the picture.

    Attributes:
      rung: Its compressor.
      bytes: Uplink to the target, or of the whole run where a seed never reached it.
      accuracy: On the test set.
      reaches: Whether all seeds reached the target.
    """

    rung: Rung
    bytes: Spread
    accuracy: Spread
    reaches: bool


def points(rows: Sequence[Row]) -> list[Point]:
    """Returns where the rungs stand."""
    return [
        Point(
            row.rung,
            spread(one.uplink_bytes for one in (row.reached if row.reaches else row.outcomes)),
            row.accuracy,
            row.reaches,
        )
        for row in rows
    ]


def front(candidates: Sequence[Point]) -> list[Point]:
    """Returns the points that reached the target and that no other beats, by ascending bytes.

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

    Error bars are standard deviations over seeds. A hollow point never reached the target with
    some seed; it stands at the bytes of its whole runs.

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
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error

    placed = points(rows)
    with matplotlib.rc_context(STYLE | {"font.size": 9.5}):
        figure = Figure(figsize=(8.4, 5.4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set(
            xlabel="Uplink of all clients to the target (MB)"
            if target is not None
            else "Uplink of all clients (MB)",
            ylabel="Test accuracy (%), round chosen on validation data",
            title=title,
        )
        _draw_baseline(axes, rows, target)
        _draw_front(axes, front(placed))
        for point in placed:
            _draw_point(axes, point)
        _draw_legend(axes, placed)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.12, y=0.1)
        figure.draw_without_rendering()
        place_labels(
            axes,
            [(1e-6 * point.bytes.mean, 100 * point.accuracy.mean) for point in placed],
            [_label(point.rung) for point in placed],
        )
        figure.savefig(path, dpi=110)


def _draw_point(axes: Any, point: Point) -> None:
    colour, marker, _ = _LOOKS.get(point.rung.memory, _OTHER)
    axes.errorbar(
        1e-6 * point.bytes.mean,
        100 * point.accuracy.mean,
        xerr=1e-6 * point.bytes.sd,
        yerr=100 * point.accuracy.sd,
        color=colour,
        marker=marker,
        markersize=6,
        markerfacecolor=colour if point.reaches else "white",
        linewidth=0,
        elinewidth=0.8,
        zorder=3,
    )


def _draw_baseline(axes: Any, rows: Sequence[Row], target: float | None) -> None:
    level = next(row.accuracy.mean for row in rows if row.rung == Rung(UNCOMPRESSED))
    axes.axhline(100 * level, color="#555555", linestyle="--", linewidth=1, label="uncompressed")
    if target is not None:
        label = f"target {100 * target:g} %"
        axes.axhline(100 * target, color="#555555", linestyle=":", linewidth=1.3, label=label)


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
