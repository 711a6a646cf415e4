"""Draws charts as SVG that is readable as it is, with the numbers that `charts.js` reads beside it.

The script draws the same again when a line is hidden, an axis changes or a part is looked at more
closely, so sizes, marks and classes are those of both files.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from fljax.reports.charts import Chart, Line, Range, ranges, thin
from fljax.reports.ticks import linear_ticks, written

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 76, 14, 10, 46
_INNER = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
# A line of so few points has its points marked.
_FEW_POINTS = 40

STYLE = (Path(__file__).parent / "charts.css").read_text(encoding="utf-8")
SCRIPT = (Path(__file__).parent / "charts.js").read_text(encoding="utf-8")


def drawn(chart: Chart, most_points: int = 400) -> str:
    """Returns a chart as a figure of HTML: SVG, a legend, and its numbers.

    Args:
      chart: The chart.
      most_points: Of each line.

    Example:
      >>> from fljax.reports.charts import line_of
      >>> line = line_of("a < b", np.arange(3), np.array([3.0, 2.0, 1.0]))
      >>> "a &lt; b" in drawn(Chart("Loss", "Round", "Loss", [line]))
      True
    """
    x_range, y_range = ranges(chart)
    lines = [thin(line, most_points) for line in chart.lines]
    across = _scale(x_range, _INNER[0])
    up = _scale(y_range, _INNER[1])
    marks = [_grid(x_range, y_range, across, up), _labels(chart)]
    inner = "".join(_line(line, across, lambda y: _INNER[1] - up(y), y_range) for line in lines)
    if chart.target is not None:
        at = f"{_INNER[1] - up(chart.target):.1f}"
        inner += f'<path class="target" d="M0 {at}H{_INNER[0]}"/>'
    said = html.escape(f"{chart.title}: {chart.y_label} over {chart.x_label}", quote=True)
    return (
        f'<figure class="chart"><figcaption>{html.escape(chart.title)}</figcaption>'
        f'<svg class="whole" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">'
        f'<g class="axes">{marks[0]}</g>{marks[1]}'
        f'<svg class="plot" x="{LEFT}" y="{TOP}" width="{_INNER[0]}" height="{_INNER[1]}">{inner}'
        f"</svg></svg>{_legend(lines, chart.target)}"
        f'<script type="application/json">{_numbers(chart, lines, x_range, y_range)}</script>'
        "</figure>"
    )


def _scale(ends: Range, pixels: int) -> Callable[[float], float]:
    return lambda value: (value - ends.low) / (ends.high - ends.low) * pixels


def _grid(x_range: Range, y_range: Range, across, up) -> str:
    """Returns the lines of the grid and the marks of both axes."""
    found = []
    for axis, ends in (("x", x_range), ("y", y_range)):
        marks = linear_ticks(*ends)
        step = marks[1] - marks[0] if len(marks) > 1 else ends.high - ends.low
        for mark in marks:
            text = html.escape(written(mark, step))
            if axis == "x":
                x = LEFT + across(mark)
                found.append(f'<path d="M{x:.1f} {TOP}v{_INNER[1]}"/>')
                found.append(
                    f'<text class="x" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}">{text}</text>'
                )
            else:
                y = TOP + _INNER[1] - up(mark)
                found.append(f'<path d="M{LEFT} {y:.1f}h{_INNER[0]}"/>')
                found.append(f'<text class="y" x="{LEFT - 6}" y="{y + 4.5:.1f}">{text}</text>')
    return "".join(found)


def _labels(chart: Chart) -> str:
    x, y = LEFT + _INNER[0] / 2, TOP + _INNER[1] / 2
    return (
        f'<text class="name" x="{x:g}" y="{HEIGHT - 6}">{html.escape(chart.x_label)}</text>'
        f'<text class="name" x="14" y="{y:g}" transform="rotate(-90 14 {y:g})">'
        f"{html.escape(chart.y_label)}</text>"
    )


def _line(line: Line, across, down, y_range: Range) -> str:
    """Returns a line, with its band, its area or its points."""
    x = [f"{across(value):.1f}" for value in line.x]
    parts = []
    if line.low is not None and line.high is not None:
        there = [f"{a} {down(b):.1f}" for a, b in zip(x, line.high, strict=True)]
        back = [f"{a} {down(b):.1f}" for a, b in zip(reversed(x), line.low[::-1], strict=True)]
        parts.append(f'<path class="band" d="M{"L".join(there + back)}Z"/>')
    points = [f"{a} {down(b):.1f}" for a, b in zip(x, line.y, strict=True)]
    if line.is_filled:
        floor = f"{down(y_range.low):.1f}"
        parts.append(f'<path class="area" d="M{x[0]} {floor}L{"L".join(points)}V{floor}Z"/>')
    parts.append(f'<path class="line" d="M{"L".join(points)}"/>')
    if len(points) <= _FEW_POINTS and not line.is_filled:
        parts.append(f'<path class="dots" d="{"".join(f"M{point}h0" for point in points)}"/>')
    return f'<g class="c{line.colour} d{line.dash}">{"".join(parts)}</g>'


def _legend(lines: Sequence[Line], target: float | None) -> str:
    entries = [(f"c{line.colour} d{line.dash}", "line", line.label) for line in lines]
    written_lines = "".join(
        f'<li class="{style}"><svg viewBox="0 0 24 8" aria-hidden="true">'
        f'<path class="{kind}" d="M0 4H24"/></svg>{html.escape(label)}</li>'
        for style, kind, label in entries
    )
    if target is not None:
        written_lines += (
            '<li class="fixed"><svg viewBox="0 0 24 8" aria-hidden="true">'
            f'<path class="target" d="M0 4H24"/></svg>target {target:g}</li>'
        )
    return f'<ul class="legend">{written_lines}</ul>'


def _numbers(chart: Chart, lines: Sequence[Line], x_range: Range, y_range: Range) -> str:
    """Returns what the script needs to know, as JSON that cannot end the element it stands in."""
    found = {
        "x": [_short(value, 9) for value in x_range],
        "y": [_short(value, 9) for value in y_range],
        "xName": chart.x_label,
        "target": chart.target,
        "fromZero": chart.from_zero,
        "lines": [
            {"label": line.label, "style": f"c{line.colour} d{line.dash}", "area": line.is_filled}
            | {
                name: [_short(value, digits) for value in values]
                for name, values, digits in (
                    ("x", line.x, 7), ("y", line.y, 5), ("low", line.low, 5), ("high", line.high, 5)
                )
                if values is not None
            }
            for line in lines
        ],
    }  # fmt: skip
    return json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _short(value: float, digits: int) -> float | int:
    """Returns a number with so many significant digits; a whole one as JSON writes it shortest."""
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
