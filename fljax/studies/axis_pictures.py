"""Pictures of axes: the score over each by itself, and as lines across all.

The lines are parallel coordinates (Inselberg, 1985, https://doi.org/10.1007/BF01898350).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import apart
from fljax.core.metrics import ACCURACY, LOSS, Metric
from fljax.recording.plots import COLOURS
from fljax.studies.criterion import Criterion, score_label
from fljax.studies.results import is_number
from fljax.studies.selection import Configuration, spread
from fljax.studies.space import describe, short

GREY = "#B8B8B8"
DARK = "#444444"
MOST_VALUES = 12
_PANELS = 3
_MOST_TICKS = 8
# Where lines of diverged configurations end, below the axis of the score.
_BELOW = -0.13
# Width of the colours beside that axis, as a share of the way between two axes.
_STRIP = 0.06


class Scale(NamedTuple):
    """The layout of one axis.

    Attributes:
      kind: "linear", "log", or "names" for values that are no numbers.
      values: The different values, numbers ascending, others as they came.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def few(self) -> bool:
        """Says whether every value can have a tick of its own."""
        return self.kind == "names" or len(self.values) <= _MOST_TICKS

    @property
    def widest(self) -> float:
        """The inches that its longest label takes."""
        return 0.09 * max(len(label) for _, label in self.ticks())

    def position(self, value: Any) -> float:
        """Returns where a value lies: from 0, the first one, to 1, the last one."""
        if self.kind == "names":
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high, here = map(self._plain, (self.values[0], self.values[-1], value))
        return (here - low) / (high - low) if high > low else 0.5

    def at(self, position: float) -> float:
        """Returns the number at a position of a linear scale."""
        return self.values[0] + position * (self.values[-1] - self.values[0])

    def label(self, name: str) -> str:
        """Returns what the axis is called, with a hint where steps are factors."""
        return f"{name} (log)" if self.kind == "log" else name

    def ticks(self) -> list[tuple[float, str]]:
        """Returns (position, label): every value where there are few, else round numbers."""
        if self.few:
            return list(zip(map(self.position, self.values), self.labels(), strict=True))
        return self.round_ticks()

    def round_ticks(self) -> list[tuple[float, str]]:
        """Returns (position, label) of round numbers between the first value and the last one."""
        low, high = self.values[0], self.values[-1]
        shown = _powers(low, high) if self.kind == "log" else _round_numbers(low, high)
        return list(zip(map(self.position, shown), self.labels(shown), strict=True))

    def labels(self, shown: Sequence[Any] | None = None) -> list[str]:
        """Returns values as texts, in as many digits as tell them apart; by default all of them."""
        shown = self.values if shown is None else shown
        return list(map(apart(shown, 4, 12, short), shown))

    def _plain(self, value: float) -> float:
        return math.log(value) if self.kind == "log" else value


def scale_of(values: Sequence[Any]) -> Scale:
    """Returns the scale on which values are spread more evenly.

    Args:
      values: Different values of an axis, numbers ascending.
    """
    values = tuple(values)
    if not all(map(is_number, values)):
        return Scale("names", values)
    if values[0] <= 0:
        return Scale("linear", values)
    if len(values) <= 2:
        return Scale("log" if values[-1] >= 5 * values[0] else "linear", values)
    numbers = np.array(values, np.float64)
    uneven = _unevenness(numbers) > _unevenness(np.log(numbers)) + 1e-9
    return Scale("log" if uneven else "linear", values)


def _unevenness(ascending: np.ndarray) -> float:
    """Returns how far values are from even steps between the first and the last, at most."""
    steps = (ascending - ascending[0]) / (ascending[-1] - ascending[0])
    return float(np.abs(steps - np.linspace(0, 1, len(steps))).max())


def _powers(low: float, high: float) -> list[float]:
    """Returns the powers of ten between two numbers; where they are few, 2 and 5 times them too."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        shown = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(shown) >= 3:
            break
    return shown


def _round_numbers(low: float, high: float) -> list[float]:
    """Returns about five round numbers between two numbers."""
    if low == high:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= max((f for f in (1, 2, 5) if f * step <= (high - low) / 4), default=1)
    first = math.ceil(low / step)
    return [step * k for k in range(first, math.floor(high / step) + 1)]


def draw_sensitivity(
    figure: Any,
    ranked: Sequence[Configuration],
    scales: Mapping[str, Scale],
    criterion: Criterion,
    metrics: Sequence[Metric] = (ACCURACY, LOSS),
) -> None:
    """Draws one panel an axis: every configuration, and the best and the mean of each value.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      ranked: Configurations, best first.
      scales: {hyperparameter: scale}.
      criterion: What the configurations were ranked by.
      metrics: Of the task, for units.
    """
    columns = min(len(scales), _PANELS)
    lines = -(-len(scales) // _PANELS)
    slanted = max((scale.widest for scale in scales.values() if _is_crowded(scale)), default=0.0)
    figure.set_size_inches(max(5.4, columns * 3.6), 0.4 + (3.4 + slanted / 2) * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, scale) in zip(panels, scales.items(), strict=False):
        _draw_axis(axes, ranked, name, scale, criterion)
    for axes in panels[len(scales) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(score_label(criterion, metrics))
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=2 * columns, fontsize=9
    )


def _is_crowded(scale: Scale) -> bool:
    """Returns whether labels of an axis have no room side by side below a panel."""
    return scale.widest * len(scale.ticks()) > 2.6


def _draw_axis(
    axes: Any, ranked: Sequence[Configuration], name: str, scale: Scale, criterion: Criterion
) -> None:
    known = [configuration for configuration in ranked if not configuration.failed]
    lost = [
        scale.position(configuration.point[name])
        for configuration in ranked
        if configuration.failed
    ]
    x = [scale.position(configuration.point[name]) for configuration in known]
    y = [configuration.score for configuration in known]
    axes.scatter(x, y, s=22, color=COLOURS[5], alpha=0.7, lw=0, label="configuration")
    axes.scatter(x[:1], y[:1], s=60, fc="none", ec=COLOURS[1], lw=2, zorder=4, label="best of all")
    if lost:
        edge = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 4}
        worst = [0 if criterion.maximize else 1] * len(lost)
        axes.scatter(lost, worst, marker="x", color=COLOURS[6], label="diverged", **edge)
    if len(scale.values) <= MOST_VALUES:
        groups = [
            [configuration.score for configuration in known if configuration.point[name] == v]
            for v in scale.values
        ]
        pairs = [(scale.position(v), g) for v, g in zip(scale.values, groups, strict=True) if g]
        places = [place for place, _ in pairs]
        best = max if criterion.maximize else min
        line = {"marker": "o", "markersize": 4}
        bests, means = [best(g) for _, g in pairs], [spread(g).mean for _, g in pairs]
        axes.plot(places, bests, **line, color=COLOURS[0], label="best of each value")
        if means != bests:
            style = {"color": COLOURS[0], "linestyle": "--", "alpha": 0.6}
            axes.plot(places, means, **line, **style, label="mean of each value")
    ticks = scale.ticks()
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    style = slanted if _is_crowded(scale) else {}
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks], **style)
    axes.set(xlabel=scale.label(name), xlim=(-0.07, 1.07))


def draw_parallel_coordinates(
    figure: Any,
    ranked: Sequence[Configuration],
    scales: Mapping[str, Scale],
    criterion: Criterion,
    metrics: Sequence[Metric] = (ACCURACY, LOSS),
) -> None:
    """Draws each configuration as a line across all axes to its score, the best over all others.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      ranked: Configurations, best first.
      scales: {hyperparameter: scale}, from left to right.
      criterion: What the configurations were ranked by.
      metrics: Of the task, for units.
    """
    step = max(1.9, *(0.4 + scale.widest for scale in scales.values()))
    figure.set_size_inches(3.0 + step * len(scales), 5.0)
    axes = figure.add_subplot()
    scores = [configuration.score for configuration in ranked if not configuration.failed]
    score_scale = Scale("linear", (min(scores), max(scores)))
    # the best is on top, losses included
    upwards = (lambda at: at) if criterion.maximize else (lambda at: 1 - at)
    colour_of = _colouring(scores, criterion)
    for place, configuration in reversed(list(enumerate(ranked))):
        heights = [scale.position(configuration.point[name]) for name, scale in scales.items()]
        if configuration.failed:
            style = {"color": GREY, "linestyle": ":", "linewidth": 1.2, "zorder": 1}
            heights.append(_BELOW)
        else:
            colour = colour_of(configuration.score)
            style = {"color": colour, "linewidth": 1.4, "alpha": 0.85, "zorder": 2}
            heights.append(upwards(score_scale.position(configuration.score)))
        if place == 0:
            style |= {"color": COLOURS[1], "linewidth": 3.0, "alpha": 1.0, "zorder": 3}
        axes.plot(*_smooth(heights), **style)
    for place, scale in enumerate(scales.values()):
        _draw_scale(axes, place, scale.ticks())
    diverged = [(_BELOW, "diverged")] * any(configuration.failed for configuration in ranked)
    bottom = _BELOW - 0.04 if diverged else -0.04
    ticks = [(upwards(at), label) for at, label in score_scale.round_ticks()]
    end = len(scales) + _STRIP
    colours = [[colour_of(score_scale.at(upwards(at)))] for at in np.linspace(0, 1, 256)]
    axes.imshow(colours, extent=(len(scales), end, 0, 1), origin="lower", aspect="auto", zorder=3)
    _draw_scale(axes, end, diverged + ticks, crossed=False)
    labels = [scale.label(name) for name, scale in scales.items()]
    axes.set_xticks([*range(len(scales)), end], [*labels, "score"])
    axes.set(xlim=(-0.2, end + 0.4), ylim=(bottom, 1.06), yticks=[])
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(score_label(criterion, metrics))
    title = textwrap.fill(f"best: {describe(ranked[0].point)}", round(10 * figure.get_figwidth()))
    axes.set_title(title, color=COLOURS[1], fontsize=10)
    axes.grid(False)
    axes.tick_params(length=0, pad=8)
    axes.spines[["left", "bottom"]].set_visible(False)


def _colouring(scores: Sequence[float], criterion: Criterion) -> Callable[[float], Any]:
    """Returns what gives a score its colour: half by its value, half by its rank.

    By values alone, a few poor trials would take all colours, and the others would look alike.
    """
    from matplotlib import colormaps

    known = sorted(set(scores))
    low, high = known[0], known[-1]
    values = [(score - low) / (high - low) if high > low else 1.0 for score in known]
    places = 0.5 * np.array(values) + 0.5 * np.linspace(0, 1, len(known))
    colours = colormaps["viridis" if criterion.maximize else "viridis_r"]
    return lambda score: colours(float(np.interp(score, known, places)))


def _smooth(heights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y of a line that crosses every axis horizontally, easy to follow."""
    step = np.linspace(0, 1, 30)
    ease = step * step * (3 - 2 * step)
    pairs = zip(heights[:-1], heights[1:], strict=True)
    y = [start + (end - start) * ease for start, end in pairs]
    return np.concatenate([place + step for place in range(len(y))]), np.concatenate(y)


def _draw_scale(
    axes: Any, place: float, ticks: Sequence[tuple[float, str]], *, crossed: bool = True
) -> None:
    """Draws an axis with its labels, off the lines that cross it at the ticks."""
    axes.vlines(place, 0, 1, color=DARK, linewidth=1.0, zorder=4)
    box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.6}
    style = {"textcoords": "offset points", "fontsize": 9, "bbox": box, "zorder": 5}
    for height, label in ticks:
        axes.plot([place, place + 0.02], [height] * 2, color=DARK, linewidth=1.0, zorder=4)
        up, va = (3, "bottom") if height > 0 else (-3, "top")
        up, va = (up, va) if crossed else (0, "center")
        axes.annotate(label, (place + 0.02, height), xytext=(2, up), va=va, **style)
