"""Pictures of a sweep as PNG files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fljax.recording.plots import COLOURS, STYLE, save_figure
from fljax.studies.heat_map import cells_of, draw_heat_map
from fljax.studies.labels import metric_label, number, score_label
from fljax.studies.parallel import draw_parallel_coordinates
from fljax.studies.results import Results, axes_of
from fljax.studies.scales import Scale, scale_of
from fljax.studies.selection import BY_ACCURACY, Configuration, Criterion, mean, rank, resolve
from fljax.studies.trials import describe

_MOST_MAPS = 6
_MOST_CELLS = 12
_NAMED = 6  # as many as there are colours, but black
_MOST_CURVES = 12
_PANELS = 3
_GREY = "#B8B8B8"


def plot_sweep(
    results: Results,
    directory: str | Path,
    criterion: Criterion = BY_ACCURACY,
) -> list[Path]:
    """Draws what a sweep found.

    `map-A-B.png` shows the score over two listed axes: mean over seeds, other axes at their best.
    `axes.png` draws each configuration as a line across all axes to its score (parallel
    coordinates). `sensitivity.png` shows the scores over each axis by itself, `curves.png` the
    curves of the best configurations, mean and standard deviation over seeds.

    Args:
      results: Of the sweep, finished or not.
      directory: Receives the pictures; created if absent.
      criterion: What configurations are compared by.

    Returns:
      The files written. A picture that the sweep has no use for is left out.

    Raises:
      ImportError: If matplotlib is not installed.
      ValueError: From `fljax.studies.selection.rank`.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error

    criterion = resolve(results, criterion)
    ranked = rank(results, criterion)
    if ranked[0].failed:
        return []
    scales = {
        name: scale_of(values)
        for name, values in axes_of(results.trials).items()
        if all(name in one.values for one in ranked)
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in _pictures(results, ranked, scales, criterion).items():
            figure = Figure(layout="constrained")
            draw(figure)
            save_figure(figure, directory / f"{name}.png", dpi=150)
            written.append(directory / f"{name}.png")
    return written


def _pictures(
    results: Results,
    ranked: Sequence[Configuration],
    scales: Mapping[str, Scale],
    criterion: Criterion,
) -> dict[str, Callable[[Any], None]]:
    """Returns {name of a picture: what draws it on a figure}."""
    pictures: dict[str, Callable[[Any], None]] = {}
    for x, y in _crossed(ranked, scales)[:_MOST_MAPS]:
        pictures[f"map-{x}-{y}"] = lambda figure, x=x, y=y: draw_heat_map(
            figure, ranked, (x, scales[x]), (y, scales[y]), criterion
        )
    if len(scales) > 1:
        pictures["axes"] = lambda figure: draw_parallel_coordinates(
            figure, ranked, scales, criterion
        )
    if scales:
        pictures["sensitivity"] = lambda figure: _draw_sensitivity(
            figure, ranked, scales, criterion
        )
    pictures["curves"] = lambda figure: _draw_curves(figure, results, ranked, criterion)
    return pictures


def _crossed(ranked: Sequence[Configuration], scales: Mapping[str, Scale]) -> list[tuple[str, str]]:
    """Returns the pairs of axes whose values were tried together; random draws hardly ever meet."""
    listed = [name for name, scale in scales.items() if len(scale.values) <= _MOST_CELLS]
    return [
        (x, y)
        for x, y in itertools.combinations(listed, 2)
        if 2 * len(cells_of(ranked, x, y)) >= len(scales[x].values) * len(scales[y].values)
    ]


def _draw_sensitivity(
    figure: Any,
    ranked: Sequence[Configuration],
    scales: Mapping[str, Scale],
    criterion: Criterion,
) -> None:
    """Draws one panel an axis: every configuration, and the best and the mean of each value."""
    columns = min(len(scales), _PANELS)
    lines = -(-len(scales) // _PANELS)
    figure.set_size_inches(max(5.4, 3.6 * columns), 0.4 + 3.4 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, scale) in zip(panels, scales.items(), strict=False):
        _draw_axis(axes, ranked, name, scale, criterion)
    for axes in panels[len(scales) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(score_label(criterion))
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=max(2, 2 * columns - 1)
    )


def _draw_axis(
    axes: Any, ranked: Sequence[Configuration], name: str, scale: Scale, criterion: Criterion
) -> None:
    known = [one for one in ranked if not one.failed]
    lost = [scale.position(one.values[name]) for one in ranked if one.failed]
    x = [scale.position(one.values[name]) for one in known]
    y = [one.score for one in known]
    axes.scatter(x, y, s=22, color=COLOURS[5], alpha=0.7, lw=0, label="configuration")
    axes.scatter(x[:1], y[:1], s=60, fc="none", ec=COLOURS[1], lw=2, zorder=4, label="best of all")
    if lost:
        edge = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 4}
        worst = [0 if criterion.maximize else 1] * len(lost)
        axes.scatter(lost, worst, marker="x", color=COLOURS[6], label="diverged", **edge)
    if len(scale.values) <= _MOST_CELLS:
        groups = [[one.score for one in known if one.values[name] == v] for v in scale.values]
        pairs = [(scale.position(v), g) for v, g in zip(scale.values, groups, strict=True) if g]
        places = [place for place, _ in pairs]
        best = max if criterion.maximize else min
        line = {"marker": "o", "markersize": 4}
        bests, means = [best(g) for _, g in pairs], [mean(g) for _, g in pairs]
        axes.plot(places, bests, **line, color=COLOURS[0], label="best of each value")
        if means != bests:
            style = {"color": COLOURS[0], "linestyle": "--", "alpha": 0.6}
            axes.plot(places, means, **line, **style, label="mean of each value")
    ticks = scale.ticks()
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set(xlabel=f"{name} (log)" if scale.kind == "log" else name, xlim=(-0.07, 1.07))


def _draw_curves(
    figure: Any, results: Results, ranked: Sequence[Configuration], criterion: Criterion
) -> None:
    """Draws the best configurations, named ones in colour over grey ones."""
    axes = figure.add_subplot()
    shown = [one for one in ranked if math.isfinite(one.score)][:_MOST_CURVES]
    named, rest = shown[:_NAMED], shown[_NAMED:]
    for place, one in enumerate(named):
        label = f"{describe(one.values) or 'all trials'}: {number(one.score)}"
        style = {"color": COLOURS[place], "zorder": 3 + len(named) - place}
        _draw_curve(axes, results, one, criterion.metric, label, style)
    for place, one in enumerate(rest):
        label = f"the next {len(rest)} of {len(ranked)}" if place == 0 else None
        style = {"color": _GREY, "linewidth": 1.0, "zorder": 2}
        _draw_curve(axes, results, one, criterion.metric, label, style)
    entries = len(axes.get_legend_handles_labels()[0])
    figure.set_size_inches(7.2, 4.4 + 0.19 * entries)
    figure.legend(
        loc="outside lower center", title=score_label(criterion), fontsize=8, title_fontsize=8
    )
    axes.set(xlabel="Round", ylabel=metric_label(criterion))
    axes.set_title(_curves_title(shown), fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _curves_title(shown: Sequence[Configuration]) -> str:
    """Returns what lines and marks mean, as far as there are such."""
    states = {status.state for one in shown for status in one.statuses}
    several = max(len(one.trials) for one in shown) > 1
    parts = ["mean and standard deviation over seeds"] * several
    parts += ["dotted: of fewer seeds"] * (several and bool(states & {"stopped", "diverged"}))
    parts += ["square: stopped"] * ("stopped" in states)
    parts += ["cross: diverged"] * ("diverged" in states)
    return "; ".join(parts)


def _draw_curve(
    axes: Any,
    results: Results,
    one: Configuration,
    metric: str,
    label: str | None,
    style: Mapping[str, Any],
) -> None:
    """Draws the mean over seeds, and their deviation as a band as long as all have values."""
    rounds, values = _curves_of(results, one, metric)
    known = np.isfinite(values)
    count = known.sum(axis=0)
    middle = np.where(known, values, 0.0).sum(axis=0) / count
    whole = int((np.cumsum(count < count[0]) == 0).sum())
    axes.plot(rounds[:whole], middle[:whole], label=label, **style)
    axes.plot(rounds[whole - 1 :], middle[whole - 1 :], linestyle=":", **style)
    if count[0] > 1 and label and style["color"] != _GREY:
        sd = values[:, :whole].std(axis=0, ddof=1)
        low, high = middle[:whole] - sd, middle[:whole] + sd
        axes.fill_between(rounds[:whole], low, high, color=style["color"], alpha=0.2, lw=0)
    for status, seen in zip(one.statuses, known, strict=True):
        marker = {"stopped": "s", "diverged": "x"}.get(status.state)
        if marker and seen.any():
            end = np.flatnonzero(seen)[-1:]
            axes.plot(rounds[end], middle[end], marker=marker, markersize=4, **style)


def _curves_of(results: Results, one: Configuration, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the evaluated rounds, and the metric as an array [trials, rounds], NaN for none."""
    found = {
        (row["trial"], row["round"]): row[metric]
        for row in results.rows
        if row["trial"] in one.trials and math.isfinite(row.get(metric, math.nan))
    }
    rounds = sorted({round for _, round in found})
    values = [[found.get((trial, round), math.nan) for round in rounds] for trial in one.trials]
    return np.array(rounds), np.array(values, np.float64)
