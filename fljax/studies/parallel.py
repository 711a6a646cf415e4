"""Parallel coordinates: each configuration as a line across all axes of a sweep to its score.

Inselberg, 1985, https://doi.org/10.1007/BF01898350.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.recording.plots import COLOURS
from fljax.studies.labels import score_label
from fljax.studies.scales import Scale
from fljax.studies.selection import Configuration, Criterion
from fljax.studies.trials import describe

_GREY = "#B8B8B8"
_DARK = "#444444"
# Where lines of diverged configurations end, below the axis of the score.
_BELOW = -0.13


def draw_parallel_coordinates(
    figure: Any,
    ranked: Sequence[Configuration],
    scales: Mapping[str, Scale],
    criterion: Criterion,
) -> None:
    """Draws the lines, the best one over all others.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      ranked: Configurations, best first.
      scales: {hyperparameter: scale}, from left to right.
      criterion: What the configurations were ranked by.
    """
    figure.set_size_inches(3.0 + 1.9 * len(scales), 5.0)
    axes = figure.add_subplot()
    scores = [one.score for one in ranked if not one.failed]
    score_scale = Scale("linear", (min(scores), max(scores)))
    # the best is on top, losses included
    upwards = (lambda at: at) if criterion.maximize else (lambda at: 1 - at)
    colour_of, colour_bar = _colouring(scores, criterion)
    for place, one in reversed(list(enumerate(ranked))):
        heights = [scale.position(one.values[name]) for name, scale in scales.items()]
        if one.failed:
            style = {"color": _GREY, "linestyle": ":", "linewidth": 1.2, "zorder": 1}
            heights.append(_BELOW)
        else:
            style = {"color": colour_of(one.score), "linewidth": 1.4, "alpha": 0.85, "zorder": 2}
            heights.append(upwards(score_scale.position(one.score)))
        if place == 0:
            style |= {"color": COLOURS[1], "linewidth": 3.0, "alpha": 1.0, "zorder": 3}
        axes.plot(*_smooth(heights), **style)
    for place, scale in enumerate(scales.values()):
        _draw_scale(axes, place, scale.ticks())
    diverged = [(_BELOW, "diverged")] if any(one.failed for one in ranked) else []
    bottom = _BELOW - 0.04 if diverged else -0.04
    ticks = [(upwards(at), label) for at, label in score_scale.round_ticks()]
    _draw_scale(axes, len(scales), diverged + ticks)
    axes.set_xticks(range(len(scales) + 1), [*scales, "score"])
    axes.set(xlim=(-0.2, len(scales) + 0.4), ylim=(bottom, 1.06), yticks=[])
    axes.set_title(f"best: {describe(ranked[0].values)}", color=COLOURS[1], fontsize=10)
    axes.grid(False)
    axes.tick_params(length=0, pad=8)
    axes.spines[["left", "bottom"]].set_visible(False)
    end = "min" if criterion.maximize else "max"
    bar = figure.colorbar(colour_bar, ax=axes, label=score_label(criterion), extend=end, pad=0.01)
    bar.outline.set_visible(False)


def _colouring(scores: Sequence[float], criterion: Criterion) -> tuple[Any, Any]:
    """Returns score -> colour, and what a colour bar shows.

    The worse half shares one end of the map: a few poor trials would take all its colours.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    middle = float(np.median(scores))
    bounds = (middle, max(scores)) if criterion.maximize else (min(scores), middle)
    colours = colormaps["viridis" if criterion.maximize else "viridis_r"]
    norm = Normalize(*bounds, clip=True)
    return lambda score: colours(norm(score)), ScalarMappable(norm, colours)


def _smooth(heights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y of a line that crosses every axis horizontally, easy to follow."""
    step = np.linspace(0, 1, 30)
    ease = step * step * (3 - 2 * step)
    pairs = zip(heights[:-1], heights[1:], strict=True)
    y = [start + (end - start) * ease for start, end in pairs]
    return np.concatenate([place + step for place in range(len(y))]), np.concatenate(y)


def _draw_scale(axes: Any, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.vlines(place, 0, 1, color=_DARK, linewidth=1.0, zorder=4)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    for height, label in ticks:
        axes.plot([place, place + 0.02], [height] * 2, color=_DARK, linewidth=1.0, zorder=4)
        axes.text(place + 0.04, height, label, va="center", fontsize=9, bbox=box, zorder=5)
