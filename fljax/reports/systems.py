"""Shows simulated time: the metric over it, who worked when, and how evenly clients were asked."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.durations import duration, time_unit
from fljax.core.schedule import FATES
from fljax.core.spread import lorenz, spread
from fljax.recording.page import Block, Heading, Table, Text
from fljax.recording.runs import Run
from fljax.recording.summary import SIMULATED
from fljax.recording.timeline_plots import Window, window_of
from fljax.reports.charts import Chart, Line
from fljax.reports.curves import lines_of, spent_charts
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject
from fljax.reports.ticks import linear_ticks, written

_MOST_ROWS, _ROW = 40, 11
_WIDTH, _LEFT, _TOP, _BOTTOM = 1120, 96, 6, 42
# Colours of `charts.css` for what became of a job.
_STYLES = dict(zip(FATES, (5, 4, 1, 6), strict=True))
_KEYS = {
    "systems/round_seconds": "Seconds of a round",
    "systems/staleness_mean": "Mean staleness of updates",
    "systems/clients_late": "Clients that were late",
    "systems/clients_lost": "Clients that were lost",
}


def system_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page about simulated time; nothing without a clock."""
    timed = [subject for subject in subjects if subject.values(SIMULATED)]
    if not timed:
        return []
    rows = [[s.label, duration(s.spread(SIMULATED).mean), *_participation(s.run)] for s in timed]
    head = ["", "simulated time", "ever asked", "ever arrived", "Gini of jobs", "Jain of jobs"]
    charts = spent_charts(timed, SIMULATED)
    for key, title in _KEYS.items():
        lines = lines_of(timed, key)
        if any(line.y.any() for line in lines):
            charts.append(Chart(title, "Round", title, lines, from_zero=True))
    charts += _evenness(timed)
    said = "Seconds that devices and networks would have taken, as their profiles say."
    if any(len(subject.runs) > 1 for subject in timed):
        said += " Of several seeds, the time is their mean; who was asked is of the first one."
    blocks: list[Block | Charts] = [
        Heading("Simulated time"),
        Text(said),
        Table([head, *rows]),
        Charts(charts),
    ]
    of_one = [s for s in timed if s.run.timeline is not None and len(s.run.timeline["client"])]
    if len(subjects) == 1 and of_one:
        blocks.append(Charts([], [timeline_figure(of_one[0].run.timeline)]))
    return blocks


def _participation(run: Run) -> list[str]:
    """Returns the cells that say how evenly jobs were spread."""
    selection = (run.summary or {}).get("selection")
    if not selection:
        return ["–"] * 4
    asked, arrived = (selection[kind]["all"]["all"] for kind in ("asked", "arrived"))
    shown = [f"{found['coverage']:.1%}" for found in (asked, arrived)]
    return shown + [f"{asked[name]:.3f}" for name in ("gini", "jain")]


def _evenness(subjects: Sequence[Subject]) -> list[Chart]:
    """Returns the Lorenz curves of the jobs that clients were asked for."""
    lines = []
    for subject in subjects:
        asked = (subject.run.timeline or {}).get("clients/asked", np.zeros(0))
        everybody = (subject.run.summary or subject.run.config).get("num_clients") or len(asked)
        counts = np.concatenate([asked, np.zeros(max(everybody - len(asked), 0))])
        if counts.sum() > 0:
            gini = spread(counts)["gini"]
            label = f"{subject.label}, Gini {gini:.3f}"
            lines.append(Line(label, *lorenz(counts), style=subject.style))
    if not lines:
        return []
    ends = np.array([0.0, 1.0])
    lines.append(Line("equal", ends, ends, style=2 * 7 + 6))
    return [Chart("How evenly clients were asked", "Share of clients, least first",
                  "Share of all jobs", lines, from_zero=True)]  # fmt: skip


def timeline_figure(timeline: Mapping[str, np.ndarray]) -> str:
    """Returns the first jobs of a run as bars over simulated time, as a figure of HTML.

    Args:
      timeline: As `load_run(...).timeline`; at least one job.

    Example:
      >>> jobs = {"client": np.array([3, 5]), "begin": np.zeros(2), "end": np.array([4.0, 9.0])}
      >>> jobs |= {"round": np.ones(2, int), "fate": np.array([0, 2]), "kept": np.array([1])}
      >>> timeline_figure(jobs).count("<rect")
      2
    """
    window = window_of(timeline)
    rows = np.unique(
        np.linspace(0, window.num_rows - 1, min(window.num_rows, _MOST_ROWS)).astype(int)
    )
    height = _TOP + _ROW * len(rows) + _BOTTOM
    scale, unit = time_unit(window.stop)
    span = max(window.stop - window.start, 1e-9)
    across = _WIDTH - _LEFT - 10

    def x(seconds: float) -> float:
        return _LEFT + (min(max(seconds, window.start), window.stop) - window.start) / span * across

    parts = [*_axis(window, scale, x, height), *_names(window, rows)]
    for place, row in enumerate(rows):
        for job in np.flatnonzero(window.row == row):
            left, right = x(window.begin[job]), x(window.end[job])
            fate = FATES[window.fate[job]]
            parts.append(
                f'<rect class="c{_STYLES[fate]}" x="{left:.1f}" y="{_TOP + place * _ROW + 1}" '
                f'width="{max(right - left, 0.6):.1f}" height="{_ROW - 2}"/>'
            )
    seen = [FATES[number] for number in np.unique(window.fate)]
    legend = "".join(f'<li class="c{_STYLES[fate]}"><i></i>{fate}</li>' for fate in seen)
    some = f", {len(rows)} of {window.num_rows:,} rows" if len(rows) < window.num_rows else ""
    what = "one row a client" if window.labels else "rows are places of work"
    title = f"Who worked when: the first jobs of the run, {what}{some}"
    return (
        f'<figure class="wide jobs"><figcaption>{title}</figcaption><div class="scroll">'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">'
        f'{"".join(parts)}<text class="name" x="{_WIDTH / 2:g}" y="{height - 6}">'
        f'Simulated time ({unit})</text></svg></div><ul class="legend">{legend}</ul></figure>'
    )


def _axis(window: Window, scale: float, x: Any, height: int) -> list[str]:
    marks = linear_ticks(
        window.start / scale, max(window.stop / scale, window.start / scale + 1e-9), 10
    )
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    found = []
    for mark in marks:
        at, bottom = x(mark * scale), height - _BOTTOM
        found.append(f'<path class="rule" d="M{at:.1f} {_TOP}V{bottom}"/>')
        found.append(f'<text class="x" x="{at:.1f}" y="{bottom + 17}">{written(mark, step)}</text>')
    return found


def _names(window: Window, rows: np.ndarray) -> list[str]:
    texts = window.labels or [str(number + 1) for number in range(window.num_rows)]
    every = 1 if window.labels else max(1, len(rows) // 10)
    return [
        f'<text class="y small" x="{_LEFT - 6}" y="{_TOP + place * _ROW + 9}">'
        f"{html.escape(texts[row])}</text>"
        for place, row in enumerate(rows)
        if place % every == 0
    ]
