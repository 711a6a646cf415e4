"""Draws who worked when: jobs as bars over simulated time, and how stale or long rounds were."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core import optional
from fljax.core.durations import time_unit
from fljax.core.schedule import FATES
from fljax.core.values import checked_path
from fljax.recording.plots import COLOURS, STYLE, save_figure
from fljax.recording.summary import SIMULATED

# fate -> its colour; idle time is white.
FATE_COLOURS = dict(zip(FATES, (COLOURS[5], COLOURS[4], COLOURS[1], "#555555"), strict=True))
# Rows that are drawn, jobs that a row has room for, steps of the server that are lines, and letters
_MOST_ROWS, _JOBS_A_ROW, _MOST_STEPS, _MOST_LETTERS = 40, 10, 40, 18
# Jobs among which the window is chosen; rounds that are drawn one by one.
_MOST_JOBS, _MOST_ROUNDS, _BINS = 20_000, 200, 100
_STALENESS, _ROUND_SECONDS = "systems/staleness_mean", "systems/round_seconds"


class Window(NamedTuple):
    """The part of a run that a picture of its jobs shows.

    Attributes:
      row: int64[n] row of each job.
      begin, end: float64[n] seconds.
      fate: int8[n] place in `FATES`.
      labels: Of the rows that are clients; None where rows are places of work, as many as jobs run
        at a time, and a job takes the first one that is free.
      num_rows: Rows that there are; of many, some are drawn.
      start, stop: Seconds.
    """

    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    fate: np.ndarray
    labels: list[str] | None
    num_rows: int
    start: float
    stop: float


def plot_timeline(
    timeline: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray], directory: str | Path
) -> list[Path]:
    """Draws the first jobs of a run as bars, and below them staleness or the length of rounds.

    Args:
      timeline: As `load_run(...).timeline`.
      curves: As `load_run(...).curves`.
      directory: Receives timeline.png; created if absent.

    Returns:
      The files written: none without any job.

    Example:
      >>> jobs = {"client": np.array([3, 5]), "begin": np.zeros(2), "end": np.array([4.0, 9.0])}
      >>> jobs |= {"round": np.ones(2, int), "fate": np.array([0, 2]), "kept": np.array([1])}
      >>> curves = {"round": np.ones(1), "time/simulated_seconds": np.array([9.0])}
      >>> from fljax.recording.timeline_plots import plot_timeline
      >>> [path.name for path in plot_timeline(jobs, curves, "plots")]
      ['timeline.png']
    """
    with optional.needed("matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure

    if not len(timeline["client"]):
        return []
    directory = checked_path("directory", directory)
    directory.mkdir(parents=True, exist_ok=True)
    window = window_of(timeline)
    is_timed = np.isfinite(curves.get(SIMULATED, np.zeros(0))).any()
    heights = [1.7 + 0.13 * max(min(window.num_rows, _MOST_ROWS), 10), *[2.2] * bool(is_timed)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, sum(heights)), layout="constrained")
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_jobs(figure, panels[0], window, curves)
        if is_timed:
            _draw_rounds(panels[1], curves)
        path = directory / "timeline.png"
        save_figure(figure, path, dpi=150)
    return [path]


def window_of(timeline: Mapping[str, np.ndarray]) -> Window:
    """Returns the first jobs of a run, some ten in a row.

    Rows are clients where there are few of them. Otherwise they are places: of jobs that begin
    together, that which ends first has the first place.

    Example:
      >>> jobs = {"client": np.arange(3), "begin": np.zeros(3), "end": np.array([2.0, 1.0, 3.0])}
      >>> jobs |= {"round": np.ones(3, int), "fate": np.zeros(3, int), "kept": np.array([1])}
      >>> from fljax.recording.timeline_plots import window_of
      >>> window_of(jobs).row.tolist(), window_of(jobs).labels
      ([1, 0, 2], ['0', '1', '2'])
    """
    rounds = timeline["kept"]
    # rounds that follow on each other; where the file leaves some out, jobs are missing
    gaps = np.flatnonzero(np.diff(rounds) > 1)
    together = timeline["round"] <= (rounds[gaps[0]] if len(gaps) else rounds[-1])
    columns = [timeline[name][together] for name in ("client", "begin", "end", "fate")]
    order = np.lexsort((columns[0], columns[2], columns[1]))[:_MOST_JOBS]
    client, begin, end, fate = (column[order] for column in columns)
    place = places(begin, end)
    num_places = int(place.max()) + 1
    # all jobs that began before the one for which there is no room any more
    shown = len(begin) if len(begin) <= _JOBS_A_ROW * num_places else _JOBS_A_ROW * num_places
    stop = float(end.max() if shown == len(begin) else begin[shown])
    shown = max(int(np.searchsorted(begin, stop)), 1)
    client, begin, end, fate, place = (
        column[:shown] for column in (client, begin, end, fate, place)
    )
    who, row = np.unique(client, return_inverse=True)
    if len(who) <= _MOST_ROWS:
        return Window(
            row, begin, end, fate, _labels(timeline, who), len(who), float(begin[0]), stop
        )
    return Window(place, begin, end, fate, None, int(place.max()) + 1, float(begin[0]), stop)


def places(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns int64[n], for jobs by their beginning the first place of work that is free then.

    Example:
      >>> from fljax.recording.timeline_plots import places
      >>> places(np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])).tolist()
      [0, 1, 0, 2]
    """
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    found = np.zeros(len(begin), np.int64)
    count = 0
    for job, (start, stop) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            heapq.heappush(free, count)
            count += 1
        found[job] = heapq.heappop(free)
        heapq.heappush(busy, (stop, int(found[job])))
    return found


def _labels(timeline: Mapping[str, np.ndarray], clients: np.ndarray) -> list[str]:
    """Returns the ids of clients, or their numbers."""
    if "clients/id" not in timeline:
        return [str(client) for client in clients]
    ids = timeline["clients/id"][np.searchsorted(timeline["clients/client"], clients)]
    texts = map(str, ids.tolist())
    # ids often differ at their ends
    half = _MOST_LETTERS // 2
    return [
        text if len(text) <= _MOST_LETTERS else f"{text[:half]}…{text[-half + 1 :]}"
        for text in texts
    ]


def _clock(curves: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rounds that have a time, and the simulated seconds at their ends."""
    if SIMULATED not in curves:
        return np.zeros(0, np.int64), np.zeros(0)
    known = np.isfinite(curves[SIMULATED])
    return curves["round"][known].astype(np.int64), curves[SIMULATED][known]


def _draw_jobs(figure: Any, axes: Any, window: Window, curves: Mapping[str, np.ndarray]) -> None:
    """Draws bars of jobs, and lines where the server steps."""
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    scale, unit = time_unit(window.stop)
    drawn = np.unique(np.linspace(0, window.num_rows - 1, _MOST_ROWS).round().astype(np.int64))
    if window.num_rows <= _MOST_ROWS:
        drawn = np.arange(window.num_rows)
    row = np.asarray(np.searchsorted(drawn, window.row))
    is_drawn = drawn[np.minimum(row, len(drawn) - 1)] == window.row
    marks = []
    for number, fate in enumerate(FATES):
        own = is_drawn & (window.fate == number)
        if not own.any():
            continue
        left, right = (column[own] / scale for column in (window.begin, window.end))
        low, high = row[own] - 0.4, row[own] + 0.4
        corners = np.stack([left, low, left, high, right, high, right, low], axis=1)
        axes.add_collection(
            PolyCollection(
                corners.reshape(-1, 4, 2), facecolors=FATE_COLOURS[fate], edgecolors="white",
                linewidths=0.6,
            )
        )  # fmt: skip
        marks.append(Patch(color=FATE_COLOURS[fate], label=fate))
    rounds, seconds = _clock(curves)
    ends = seconds[(seconds >= window.start) & (seconds <= window.stop)] / scale
    every = _every(len(ends))
    for moment in ends[every - 1 :: every]:
        axes.axvline(moment, color="#000000", linewidth=0.7, alpha=0.7)
    if len(ends):
        text = "step of the server" if every == 1 else f"every {every}th step of the server"
        marks.append(Line2D([], [], color="#000000", linewidth=0.8, label=text))
    axes.set(
        # jobs may take no time at all
        xlim=(window.start / scale, max(window.stop, window.start + 1e-3) / scale),
        ylim=(len(drawn) - 0.4, -0.6),
        xlabel=f"Simulated time ({unit})",
        ylabel="Client" if window.labels else "Clients at work",
    )
    if window.labels:
        axes.set_yticks(range(len(drawn)), window.labels, fontsize=8)
    else:
        shown = np.arange(0, len(drawn), max(1, -(-len(drawn) // 10)))
        axes.set_yticks(shown, [f"{drawn[place] + 1:,}" for place in shown], fontsize=8)
    axes.grid(False)
    axes.set_title(_title(window, len(drawn), rounds, seconds, _STALENESS in curves), fontsize=10)
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), fontsize=9)


def _title(
    window: Window, num_drawn: int, rounds: np.ndarray, seconds: np.ndarray, is_open: bool
) -> str:
    """Says which rounds are shown, which rows, and, where jobs outlast rounds, what is not."""
    done = rounds[(seconds >= window.start) & (seconds <= window.stop)]
    parts = ["the first jobs"]
    if len(done):
        of_all = f" of {rounds[-1]:,}" if done[-1] < rounds[-1] else ""
        parts = [f"rounds {done[0]:,} to {done[-1]:,}{of_all}"]
    if num_drawn < window.num_rows:
        parts.append(f"{num_drawn} of {window.num_rows:,} places")
    longest = float((window.end - window.begin).max())
    if is_open and len(seconds) and window.stop > seconds[-1] - longest:
        parts.append("without jobs that were under way at the end")
    return f"Who worked when: {'; '.join(parts)}"


def _every(count: int) -> int:
    """Returns of how many steps each one is drawn: 1, 2, 5, 10, 20, ..."""
    steps = (unit * 10**power for power in range(16) for unit in (1, 2, 5))
    return next(step for step in steps if count <= step * _MOST_STEPS)


def _draw_rounds(axes: Any, curves: Mapping[str, np.ndarray]) -> None:
    """Draws over the whole run how stale updates were, or how long rounds took."""
    _, seconds = _clock(curves)
    known = np.isfinite(curves[SIMULATED])
    scale, unit = time_unit(float(seconds[-1]))
    if _STALENESS in curves:
        values, label = curves[_STALENESS][known], "Mean staleness"
    else:
        values = curves.get(_ROUND_SECONDS, np.full(len(known), np.nan))[known]
        round_scale, round_unit = time_unit(float(np.nanmax(values, initial=0.0)))
        values, label = values / round_scale, f"Round ({round_unit})"
    seconds = seconds / scale
    text = ""
    if len(values) > _MOST_ROUNDS:
        parts = np.array_split(np.arange(len(values)), _BINS)
        low, high = (
            np.array([np.nanpercentile(values[part], share) for part in parts])
            for share in (10, 90)
        )
        seconds = np.array([seconds[part].mean() for part in parts])
        values = np.array([values[part].mean() for part in parts])
        axes.fill_between(seconds, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
        text = f": mean of {len(parts[0]):,} rounds, and the middle eight tenths"
    marker = {"marker": "o", "markersize": 3} if len(values) <= 60 else {}
    axes.plot(seconds, values, color=COLOURS[0], linewidth=1.2, **marker)
    axes.set(xlabel=f"Simulated time ({unit}), whole run{text}", ylabel=label)
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
