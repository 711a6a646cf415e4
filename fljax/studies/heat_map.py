"""A heat map of two axes of a sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fljax.recording.plots import COLOURS
from fljax.studies.labels import note, number, score_label
from fljax.studies.scales import Scale
from fljax.studies.selection import Configuration, Criterion
from fljax.studies.trials import identity, short

_GREY = "#B8B8B8"
_DARK = "#444444"


def cells_of(ranked: Sequence[Configuration], x: str, y: str) -> dict[str, Configuration]:
    """Returns {cell of a value of x and one of y: the best configuration there}."""
    cells: dict[str, Configuration] = {}
    for one in ranked:
        cells.setdefault(_cell(one.values[x], one.values[y]), one)
    return cells


def draw_heat_map(
    figure: Any,
    ranked: Sequence[Configuration],
    x: tuple[str, Scale],
    y: tuple[str, Scale],
    criterion: Criterion,
) -> None:
    """Draws the score over two axes: mean over seeds, other axes at their best.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      ranked: Configurations, best first.
      x: (name, scale) of the horizontal axis, with one column for each value.
      y: The same for the vertical one.
      criterion: What the configurations were ranked by.
    """
    (x_name, x_scale), (y_name, y_scale) = x, y
    columns, lines = len(x_scale.values), len(y_scale.values)
    figure.set_size_inches(max(4.8, 2.4 + 1.1 * columns), max(3.4, 1.6 + 0.75 * lines))
    axes = figure.add_subplot()
    cells = cells_of(ranked, x_name, y_name)
    grid = np.full((lines, columns), np.nan)
    for (i, b), (j, a) in itertools.product(enumerate(y_scale.values), enumerate(x_scale.values)):
        one = cells.get(_cell(a, b))
        if one is None or one.failed:
            _draw_empty(axes, i, j, "not run" if one is None else _reason(one))
        else:
            grid[i, j] = one.score
    colours = "viridis" if criterion.maximize else "viridis_r"
    image = axes.imshow(
        np.ma.masked_invalid(grid), cmap=colours, origin="lower", aspect="auto", zorder=1
    )
    for (i, j), score in np.ndenumerate(grid):
        if math.isfinite(score):
            more = note(cells[_cell(x_scale.values[j], y_scale.values[i])])
            _draw_score(axes, i, j, number(score), more, image.cmap(image.norm(score)))
    best = x_scale.values.index(ranked[0].values[x_name])
    _frame(axes, y_scale.values.index(ranked[0].values[y_name]), best)
    axes.set_xticks(range(columns), [short(value) for value in x_scale.values])
    axes.set_yticks(range(lines), [short(value) for value in y_scale.values])
    several = max(len(one.trials) for one in ranked) > 1
    meaning = ["mean over seeds"] * several + ["best of the other axes"] * (
        len(ranked) > len(cells)
    )
    axes.set(xlabel=x_name, ylabel=y_name)
    axes.set_title(", ".join(meaning), fontsize=10)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label=score_label(criterion))
    bar.outline.set_visible(False)


def _cell(x: Any, y: Any) -> str:
    # values need not be hashable
    return identity({"x": x, "y": y})


def _reason(one: Configuration) -> str:
    return "diverged" if one.diverged else "no value"


def _draw_empty(axes: Any, i: int, j: int, text: str) -> None:
    from matplotlib.patches import Rectangle

    if text != "not run":
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, fc="#F4F4F4", ec="#DADADA", hatch="///", lw=0)
        )
    colour = _GREY if text == "not run" else _DARK
    axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9, zorder=3)


def _draw_score(axes: Any, i: int, j: int, text: str, more: str, background: Any) -> None:
    """Writes a cell in black or white, whichever can be read on it."""
    luminance = float(np.dot(background[:3], (0.299, 0.587, 0.114)))
    style = {"ha": "center", "color": "black" if luminance > 0.55 else "white", "zorder": 3}
    axes.text(j, i, text, va="bottom" if more else "center", fontsize=10, **style)
    axes.text(j, i - 0.06, more, va="top", fontsize=7, **style)


def _frame(axes: Any, i: int, j: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, ec=COLOURS[1], lw=2.5, zorder=4)
    )
