"""Pictures of a study as PNG files: kinds by name, of which those are drawn that fit."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fljax.core import optional
from fljax.core.digits import apart
from fljax.core.metrics import Metric, name_of, spread_metric, unit_of
from fljax.core.names import unknown
from fljax.recording.plots import COLOURS, STYLE, save_figure
from fljax.studies.axis_pictures import (
    GREY,
    MOST_VALUES,
    Scale,
    draw_parallel_coordinates,
    draw_sensitivity,
    scale_of,
)
from fljax.studies.columns import SUCCESS
from fljax.studies.comparison import Compared, Comparison
from fljax.studies.criterion import score_label
from fljax.studies.heat_maps import cells_of, draw_heat_map, draw_matrix
from fljax.studies.pareto import draw_pareto, points
from fljax.studies.privacy_picture import draw_privacy
from fljax.studies.results import Results, axes_of
from fljax.studies.selection import Configuration, Spread, is_known
from fljax.studies.space import described_apart
from fljax.studies.time_picture import draw_time, has_clock

_MOST_MAPS = 6
_NAMED = 6  # as many as there are colours; black is for one more
_MOST_CURVES = 12
_MOST_BARS = 40

# What draws on an empty figure.
Draw = Callable[[Any], None]


def check_kinds(names: Sequence[str]) -> None:
    """Raises ValueError for a kind of picture that there is not."""
    for name in names:
        if name not in KINDS:
            raise ValueError(unknown("kind of picture", name, KINDS))


def plot_study(comparison: Comparison, directory: str | Path) -> list[Path]:
    """Draws what a study compares, each kind of picture that fits it or that it names.

    Args:
      comparison: What is compared.
      directory: Receives the pictures; created if absent.

    Returns:
      The files written. A picture that the study has no use for is left out.

    Raises:
      ImportError: If matplotlib is not installed.
    """
    with optional.needed("matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure

    if comparison.ranked[0].failed:
        return []
    comparison = _in_units(comparison)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for kind in comparison.study.pictures or KINDS:
            for name, draw in KINDS[kind](comparison).items():
                figure = Figure(layout="constrained")
                draw(figure)
                save_figure(figure, directory / f"{name}.png", dpi=150)
                written.append(directory / f"{name}.png")
    return written


def _in_units(comparison: Comparison) -> Comparison:
    """Returns a comparison whose configurations have scores as pictures show them."""
    factor, _ = unit_of(comparison.criterion.metric, comparison.metrics)

    def scaled(configuration: Configuration) -> Configuration:
        return configuration._replace(
            scores=tuple(factor * score for score in configuration.scores)
        )

    return comparison._replace(
        ranked=[scaled(configuration) for configuration in comparison.ranked],
        compared=[entry._replace(chosen=scaled(entry.chosen)) for entry in comparison.compared],
    )


def _scales(comparison: Comparison) -> dict[str, Scale]:
    """Returns the scales of the axes; variants are one of them where there are others.

    Of a study that faces an axis there are none: its configurations are no choice.
    """
    if comparison.study.faced_axis:
        return {}
    scales = {
        name: scale_of(values)
        for name, values in axes_of(comparison.results.trials).items()
        if all(name in configuration.point for configuration in comparison.ranked)
    }
    return {} if list(scales) == ["variant"] else scales


def _maps(comparison: Comparison) -> dict[str, Draw]:
    """The score over two listed axes: mean over seeds, other axes at their best."""
    scales, ranked = _scales(comparison), comparison.ranked
    listed = [name for name, scale in scales.items() if len(scale.values) <= MOST_VALUES]
    # random draws hardly ever meet
    crossed = [
        (x, y)
        for x, y in itertools.combinations(listed, 2)
        if 2 * len(cells_of(ranked, x, y)) >= len(scales[x].values) * len(scales[y].values)
    ]
    return {
        f"map-{x}-{y}": lambda figure, x=x, y=y: draw_heat_map(
            figure,
            ranked,
            (x, scales[x]),
            (y, scales[y]),
            comparison.criterion,
            comparison.metrics,
        )
        for x, y in crossed[:_MOST_MAPS]
    }


def _lines(comparison: Comparison) -> dict[str, Draw]:
    """Each configuration as a line across all axes to its score."""
    scales, ranked = _scales(comparison), comparison.ranked
    if len(scales) < 2:
        return {}
    return {
        "axes": lambda figure: draw_parallel_coordinates(
            figure, ranked, scales, comparison.criterion, comparison.metrics
        )
    }


def _sensitivity(comparison: Comparison) -> dict[str, Draw]:
    """The scores over each axis by itself."""
    scales, ranked = _scales(comparison), comparison.ranked
    if not scales:
        return {}
    return {
        "sensitivity": lambda figure: draw_sensitivity(
            figure, ranked, scales, comparison.criterion, comparison.metrics
        )
    }


def _matrix(comparison: Comparison) -> dict[str, Draw]:
    """All that is compared over what it faces: the headline, and how often backdoors open."""
    if not comparison.study.faced_axis:
        return {}
    found = {"matrix": (comparison.headline, comparison.sign)}
    if any(SUCCESS in outcome.best for outcome in comparison.outcomes):
        found["matrix-backdoors"] = (SUCCESS, -1.0)
    return {
        name: functools.partial(draw_matrix, comparison=comparison, key=key, better=better)
        for name, (key, better) in found.items()
    }


def _curves(comparison: Comparison) -> dict[str, Draw]:
    """The curves of the best configurations, mean and standard deviation over seeds."""
    if comparison.study.faced_axis:
        return {}
    return {"curves": lambda figure: _draw_curves(figure, comparison)}


def _time(comparison: Comparison) -> dict[str, Draw]:
    """The headline over simulated time, where trials have it."""
    if comparison.study.faced_axis or not has_clock(comparison):
        return {}
    return {"simulated_time": lambda figure: draw_time(figure, comparison)}


def _bars(comparison: Comparison) -> dict[str, Draw]:
    """Draws what each variant reached: mean and standard deviation over seeds, and every seed."""
    if not comparison.study.variants or len(comparison.compared) < 2:
        return {}
    if comparison.study.faced_axis:
        return {}
    return {"bars": lambda figure: _draw_bars(figure, comparison)}


def _pareto(comparison: Comparison) -> dict[str, Draw]:
    """Bytes against the reported metric, where variants send amounts that differ by a twentieth."""
    known = (
        entry.spread(lambda outcome: outcome.client_bytes).mean for entry in comparison.compared
    )
    sizes = [size for size in known if math.isfinite(size) and size > 0]
    if not comparison.study.variants or not sizes or max(sizes) < 1.05 * min(sizes):
        return {}
    if not any(point.bytes.mean > 0 for point in points(comparison)):
        return {}  # those that send something have diverged
    return {"pareto": lambda figure: draw_pareto(figure, comparison)}


def _privacy(comparison: Comparison) -> dict[str, Draw]:
    """Epsilon against the reported metric, where runs spend different amounts."""
    spent = {
        round(outcome.epsilon, 6) for outcome in comparison.outcomes if is_known(outcome.epsilon)
    }
    if len(spent) < 2:
        return {}
    return {"privacy": lambda figure: draw_privacy(figure, comparison)}


def _clients(comparison: Comparison) -> dict[str, Draw]:
    """Draws how the first metric is spread over clients, with their own models if these are judged.

    Of variants without own models, it is the global one that was judged on the same rows.
    """
    for judged in ("personal", "clients"):
        spreads = (
            (entry, _percentile(entry, f"{judged}/p50").mean) for entry in comparison.compared
        )
        if found := [entry for entry, median in spreads if math.isfinite(median)]:
            draw = functools.partial(
                _draw_clients, shown=found, judged=judged, metrics=comparison.metrics
            )
            return {"clients": draw}
    return {}


KINDS: dict[str, Callable[[Comparison], dict[str, Draw]]] = {
    "matrix": _matrix,
    "bars": _bars,
    "pareto": _pareto,
    "privacy": _privacy,
    "curves": _curves,
    "time": _time,
    "clients": _clients,
    "map": _maps,
    "axes": _lines,
    "sensitivity": _sensitivity,
}


def _draw_bars(figure: Any, comparison: Comparison) -> None:
    """Draws a dot with an error bar a variant, its seeds, and the level of the reference.

    The axis need not begin at zero, as that of bars would have to: differences are what matters.
    """
    shown = comparison.compared[:_MOST_BARS]
    factor, unit = unit_of(comparison.headline, comparison.metrics)
    labels = [entry.label for entry in shown]
    figure.set_size_inches(_width(labels, 30), 1.3 + 0.3 * len(shown))
    axes = figure.add_subplot()
    for place, entry in enumerate(shown):
        found = entry.spread(comparison.reported)
        colour = COLOURS[6] if entry.is_reference else COLOURS[0]
        values = [comparison.reported(outcome) for outcome in entry.outcomes]
        values = [factor * value for value in values if value is not None]
        axes.plot(values, [place] * len(values), "o", color=COLOURS[5], markersize=3.5, alpha=0.8)
        if not values:
            where = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(0.01, place, "diverged", fontsize=9, color="#444444", **where)
            continue
        axes.errorbar(
            factor * found.mean, place, xerr=np.nan_to_num(factor * found.sd), color=colour,
            marker="D", markersize=5, capsize=3, linewidth=1.5, zorder=3,
        )  # fmt: skip
        if entry.is_reference:
            axes.axvline(factor * found.mean, color="#555555", linestyle="--", lw=1, zorder=1)
    axes.set_yticks(range(len(shown)), labels, fontsize=9)
    axes.set(
        ylim=(len(shown) - 0.5, -0.5),
        xlabel=f"{name_of(comparison.headline, comparison.metrics)}{unit}",
    )
    axes.set_title(_seeds(shown, "mean ± standard deviation over seeds, each seed"), fontsize=10)
    axes.grid(axis="y", visible=False)


def _width(labels: Sequence[str], most: int) -> float:
    """Returns the inches that labels of so many letters have room in, or longer ones."""
    return 7.2 + 0.07 * max(0, max(map(len, labels)) - most)


def _percentile(entry: Compared, name: str) -> Spread:
    return entry.spread(lambda outcome: outcome.best.get(f"eval/{name}"))


_OWN = {"clients": "", "personal": " with the model it uses"}


def _draw_clients(
    figure: Any, shown: Sequence[Compared], judged: str, metrics: Sequence[Metric]
) -> None:
    """Draws for each variant the middle eight tenths of the clients, median and mean."""
    labels = [entry.label for entry in shown]
    figure.set_size_inches(_width(labels, 30), 1.7 + 0.3 * len(shown))
    axes = figure.add_subplot()
    marks = {
        "p50": ("o", COLOURS[0], "median client"),
        "mean": ("D", COLOURS[1], "mean over clients"),
        "worst": ("v", COLOURS[6], "mean of the worst tenth"),
    }
    factor, unit = unit_of("eval/clients/mean", metrics)
    for place, entry in enumerate(shown):
        low, high = (
            factor * _percentile(entry, f"{judged}/{name}").mean for name in ("p10", "p90")
        )
        label = "8 of 10 clients" if place == 0 else None
        axes.plot([low, high], [place] * 2, color=COLOURS[5], linewidth=5, alpha=0.6, label=label)
        for name, (marker, colour, text) in marks.items():
            x = factor * _percentile(entry, f"{judged}/{name}").mean
            label = text if place == 0 else None
            axes.plot(x, place, marker, color=colour, markersize=5, label=label, linestyle="none")
    axes.set_yticks(range(len(shown)), labels, fontsize=9)
    axes.set(
        ylim=(len(shown) - 0.5, -0.5),
        xlabel=f"{spread_metric(metrics).words} of a client{_OWN[judged]}{unit}",
    )
    axes.set_title(_seeds(shown, "means over seeds"), fontsize=10)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)


def _seeds(shown: Sequence[Compared], text: str) -> str:
    """Returns what marks mean, as far as there are several seeds."""
    return text if max(len(entry.outcomes) for entry in shown) > 1 else ""


def _draw_curves(figure: Any, comparison: Comparison) -> None:
    """Draws the best configurations, named ones in colour over grey ones.

    Of variants, the reference is among the named ones.
    """
    criterion = comparison.criterion
    axes = figure.add_subplot()
    ranked = comparison.ranked
    if comparison.study.variants:
        chosen = {entry.chosen.trials for entry in comparison.compared}
        ranked = [configuration for configuration in ranked if configuration.trials in chosen]
        ranked.sort(key=lambda configuration: configuration.variant != comparison.study.reference)
    finite = [configuration for configuration in ranked if math.isfinite(configuration.score)]
    shown = finite[:_MOST_CURVES]
    # a single one left is named as well: "the next 1" would take as much room
    count = _NAMED + (len(shown) == _NAMED + 1)
    named, rest = shown[:count], shown[count:]
    factor, unit = unit_of(criterion.metric, comparison.metrics)
    words = described_apart(configuration.values for configuration in named)
    number = apart([configuration.score for configuration in named if not configuration.failed])
    for place, configuration in enumerate(named):
        parts = (configuration.variant, words(configuration.values))
        name = ", ".join(filter(None, parts)) or "all trials"
        reached = "diverged" if configuration.failed else number(configuration.score)
        label = f"{name}: {reached}"
        style = {"color": COLOURS[place], "zorder": 3 + len(named) - place}
        curve = _curves_of(comparison.results, configuration, criterion.metric)
        _draw_curve(axes, curve, factor, configuration, label, style)
    for place, configuration in enumerate(rest):
        label = f"the next {len(rest)} of {len(ranked)}" if place == 0 else None
        style = {"color": GREY, "linewidth": 1.0, "zorder": 2}
        curve = _curves_of(comparison.results, configuration, criterion.metric)
        _draw_curve(axes, curve, factor, configuration, label, style)
    entries = axes.get_legend_handles_labels()[1]
    figure.set_size_inches(_width(entries, 100), 4.4 + 0.19 * len(entries))
    title = score_label(criterion, comparison.metrics)
    figure.legend(loc="outside lower center", title=title, fontsize=8, title_fontsize=8)
    axes.set(xlabel="round", ylabel=f"{name_of(criterion.metric, comparison.metrics)}{unit}")
    _leave_out_the_start(axes, criterion.maximize)
    axes.set_title(_curves_title(shown), fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _leave_out_the_start(axes: Any, maximize: bool) -> None:
    """Ends the metric's axis where curves and bands are after a tenth of the rounds."""
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) > 2]
    bands = [path.vertices for band in axes.collections for path in band.get_paths()]
    last = max((line[-1, 0] for line in lines), default=0)
    later = [y for line in [*lines, *bands] for x, y in line if x > last / 10]
    if later and min(later) < max(later):
        low, high = min(later), max(later)
        start, end = 0.05 * (high - low), 0.15 * (high - low)
        axes.set_ylim(*((low - start, high + end) if maximize else (low - end, high + start)))


def _curves_title(shown: Sequence[Configuration]) -> str:
    """Returns what lines and marks mean, as far as there are such."""
    states = {status.state for configuration in shown for status in configuration.statuses}
    several = max(len(configuration.trials) for configuration in shown) > 1
    parts = ["mean and standard deviation over seeds"] * several
    parts += ["dotted: of fewer seeds"] * (several and bool(states & {"stopped", "diverged"}))
    parts += ["square: stopped"] * ("stopped" in states)
    parts += ["cross: diverged"] * ("diverged" in states)
    return "; ".join(parts)


def _draw_curve(
    axes: Any,
    curve: tuple[np.ndarray, np.ndarray],
    factor: float,
    configuration: Configuration,
    label: str | None,
    style: Mapping[str, Any],
) -> None:
    """Draws the mean over seeds, and their deviation as a band as long as all have values."""
    rounds, values = curve[0], factor * curve[1]
    known = np.isfinite(values)
    count = known.sum(axis=0)
    middle = np.where(known, values, 0.0).sum(axis=0) / count
    whole = int((np.cumsum(count < count[0]) == 0).sum())
    axes.plot(rounds[:whole], middle[:whole], label=label, **style)
    axes.plot(rounds[whole - 1 :], middle[whole - 1 :], linestyle=":", **style)
    if count[0] > 1 and label and style["color"] != GREY:
        sd = values[:, :whole].std(axis=0, ddof=1)
        low, high = middle[:whole] - sd, middle[:whole] + sd
        axes.fill_between(rounds[:whole], low, high, color=style["color"], alpha=0.2, lw=0)
    for status, seen in zip(configuration.statuses, known, strict=True):
        marker = {"stopped": "s", "diverged": "x"}.get(status.state)
        if marker and seen.any():
            end = np.flatnonzero(seen)[-1:]
            axes.plot(rounds[end], middle[end], marker=marker, markersize=4, **style)


def _curves_of(
    results: Results, configuration: Configuration, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the evaluated rounds, and the metric as an array [trials, rounds], NaN for none."""
    found = {
        (row["trial"], row["round"]): row[metric]
        for row in results.rows
        if row["trial"] in configuration.trials and math.isfinite(row.get(metric, math.nan))
    }
    rounds = sorted({round for _, round in found})
    values = [
        [found.get((trial, round), math.nan) for round in rounds] for trial in configuration.trials
    ]
    return np.array(rounds), np.array(values, np.float64)
