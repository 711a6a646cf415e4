"""Heat maps: the score over two axes, and all that is compared over what it faces."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import apart, decimals
from fljax.core.metrics import ACCURACY, LOSS, Metric, name_of, unit_of
from fljax.recording.plots import COLOURS
from fljax.studies.axis_pictures import DARK, GREY, Scale
from fljax.studies.columns import SUCCESS
from fljax.studies.comparison import Compared, Comparison, Outcome
from fljax.studies.criterion import Criterion, score_label
from fljax.studies.selection import Configuration
from fljax.studies.space import identity

# Letters of a line of a label, and lines.
_LINE, _LINES = 28, 2
# Between the cells of a matrix and the costs beside them, in cells.
_GAP = 0.2


class Cell(NamedTuple):
    """A cell: its value, NaN for none, what is written in it, and in small letters below."""

    value: float
    text: str
    note: str = ""


NOT_RUN = Cell(math.nan, "not run")


def cells_of(ranked: Sequence[Configuration], x: str, y: str) -> dict[str, Configuration]:
    """Returns {cell of a value of x and one of y: the best configuration there}."""
    cells: dict[str, Configuration] = {}
    for configuration in ranked:
        cells.setdefault(_place(configuration.point[x], configuration.point[y]), configuration)
    return cells


def _place(x: Any, y: Any) -> str:
    # values need not be hashable
    return identity({"x": x, "y": y})


def draw_heat_map(
    figure: Any,
    ranked: Sequence[Configuration],
    x: tuple[str, Scale],
    y: tuple[str, Scale],
    criterion: Criterion,
    metrics: Sequence[Metric] = (ACCURACY, LOSS),
) -> None:
    """Draws the score over two axes: mean over seeds, other axes at their best.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      ranked: Configurations, best first.
      x: (name, scale) of the horizontal axis, with one column for each value.
      y: The same for the vertical one.
      criterion: What the configurations were ranked by.
      metrics: Of the task, for units.
    """
    (x_name, x_scale), (y_name, y_scale) = x, y
    columns, lines = len(x_scale.values), len(y_scale.values)
    width = 2.4 + columns * max(1.1, x_scale.widest) + max(0.0, y_scale.widest - 0.8)
    figure.set_size_inches(max(4.8, width), max(3.4, 1.6 + 0.75 * lines))
    axes = figure.add_subplot()
    found = cells_of(ranked, x_name, y_name)
    rows = [[found.get(_place(a, b)) for a in x_scale.values] for b in y_scale.values]
    number = apart([one.score for row in rows for one in row if one is not None and not one.failed])
    cells = [[_score_cell(one, number) for one in row] for row in rows]
    colours = "viridis" if criterion.maximize else "viridis_r"
    image = _draw_cells(axes, cells, colours, upwards=True)
    best = ranked[0].point
    _frame(axes, y_scale.values.index(best[y_name]), x_scale.values.index(best[x_name]))
    axes.set_xticks(range(columns), x_scale.labels())
    axes.set_yticks(range(lines), y_scale.labels())
    several = max(len(configuration.trials) for configuration in ranked) > 1
    meaning = ["mean over seeds"] * several
    meaning += ["best of the other axes"] * (len(ranked) > len(found))
    axes.set(xlabel=x_name, ylabel=y_name)
    axes.set_title(", ".join(meaning), fontsize=10)
    bar = figure.colorbar(image, ax=axes, label=score_label(criterion, metrics))
    bar.outline.set_visible(False)


def _score_cell(configuration: Configuration | None, number: Callable[[float], str]) -> Cell:
    if configuration is None:
        return NOT_RUN
    if configuration.failed:
        return Cell(math.nan, "diverged" if configuration.diverged else "no value")
    return Cell(configuration.score, number(configuration.score), configuration.note)


def draw_matrix(figure: Any, comparison: Comparison, key: str, better: float) -> None:
    """Draws all that is compared, a row each, over what it faces, and what each row costs.

    A cell has the mean over seeds and their standard deviation; the best of a column is framed.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      comparison: Of a study that faces an axis.
      key: What is shown: a record key, at the chosen rounds.
      better: 1 where high values are better, -1 where low ones are.
    """
    rows = comparison.compared
    columns = list(dict.fromkeys(cell.label for entry in rows for cell in entry.under))
    shown = [[_compared_cell(entry, label, key, comparison) for label in columns] for entry in rows]
    keep = [any(math.isfinite(row[j].value) for row in shown) for j in range(len(columns))]
    columns = list(itertools.compress(columns, keep))
    shown = [list(itertools.compress(row, keep)) for row in shown]
    costs = [_cost_cell(entry) for entry in rows]
    has_costs = any(math.isfinite(cost.value) for cost in costs)
    labels = _labels([entry.label for entry in rows])
    lines = [label.split("\n") for label in labels]
    margin = 0.075 * max(len(line) for label in lines for line in label)
    width = max(5.4, 2.0 + margin + 0.72 * (len(columns) + has_costs))
    figure.set_size_inches(width, 2.6 + max(0.4, 0.16 * max(map(len, lines))) * len(rows))
    axes = figure.add_subplot()
    image = _draw_cells(axes, shown, "viridis" if better > 0 else "viridis_r", 9, 6.5)
    for j in range(len(columns)):
        best = shown[int(np.nanargmax([better * row[j].value for row in shown]))][j]
        same = [i for i, row in enumerate(shown) if row[j].text == best.text]
        # where most are alike, a frame would say nothing
        for i in same if 2 * len(same) <= len(rows) else ():
            _frame(axes, i, j)
    above: dict[float, str] = dict(enumerate(_labels(columns)))
    if has_costs:
        place = len(columns) + _GAP
        bounds = {"vmin": 1.0, "vmax": 3 * float(np.nanmax(_values([costs])))}
        _draw_cells(axes, [[cost] for cost in costs], "Greys", 9, left=place, **bounds)
        axes.set_xlim(-0.5, place + 0.5)
        above[place] = "cost"
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    slanted = {"rotation": 40, "ha": "left", "rotation_mode": "anchor", "fontsize": 9}
    axes.xaxis.tick_top()
    axes.set_xticks(list(above), above.values(), **slanted)
    axes.tick_params(length=0)
    name, (_, unit) = name_of(key, comparison.metrics), unit_of(key, comparison.metrics)
    name = "success of the backdoor" if key == SUCCESS else name
    bar = figure.colorbar(image, ax=axes, label=f"{name}{unit}", aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    caption = _meaning(rows, comparison, has_costs)
    figure.supxlabel(textwrap.fill(caption, round(15 * width)), fontsize=8, color=DARK)


def _meaning(rows: Sequence[Compared], comparison: Comparison, has_costs: bool) -> str:
    """Returns what the marks of a matrix mean."""
    several = max(len(cell.outcomes) for entry in rows for cell in entry.under) > 1
    text = "Mean over seeds ± standard deviation; framed" if several else "Framed"
    text += f": the best under each {comparison.study.faced}."
    if has_costs:
        reference = next(entry.label for entry in rows if entry.is_reference)
        text += (
            f" Cost: seconds of a round without {comparison.study.faced}, as trials ran, nothing "
            f"compiled or evaluated, against those of {reference}."
        )
    return text


def _cost_cell(entry: Compared) -> Cell:
    known = math.isfinite(entry.slowdown)
    return Cell(entry.slowdown, f"{entry.slowdown:.1f} ×" if known else "–")


def _compared_cell(entry: Compared, label: str, key: str, comparison: Comparison) -> Cell:
    cell = next((cell for cell in entry.under if cell.label == label), None)
    if cell is None:
        return NOT_RUN
    factor, _ = unit_of(key, comparison.metrics)

    def value(outcome: Outcome) -> float | None:
        return outcome.best.get(key)

    mean, sd = cell.spread(value)
    if math.isnan(mean):
        return Cell(math.nan, "diverged" if cell.diverged else "no value")
    places = 1 if factor != 1 else decimals(mean, 3)
    note = "" if math.isnan(sd) else f"± {factor * sd:.{places}f}"
    if cell.diverged:
        note = f"{len(cell.diverged)}/{len(cell.outcomes)} diverged"
    return Cell(factor * mean, f"{factor * mean:.{places}f}", note)


def _labels(texts: Sequence[str]) -> list[str]:
    """Returns texts in lines that pictures have room for, cut where they stay different."""
    cut = [_cut(text) for text in texts]
    return [
        short if cut.count(short) == 1 else textwrap.fill(text, _LINE)
        for short, text in zip(cut, texts, strict=True)
    ]


def _cut(text: str) -> str:
    lines = textwrap.wrap(text, _LINE)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1][: _LINE - 2]} …"]
    return "\n".join(lines)


def _values(cells: Sequence[Sequence[Cell]]) -> np.ndarray:
    return np.array([[cell.value for cell in row] for row in cells], np.float64)


def _draw_cells(
    axes: Any,
    cells: Sequence[Sequence[Cell]],
    colours: str,
    size: float = 10,
    small: float = 7,
    *,
    left: float = 0.0,
    upwards: bool = False,
    **bounds: float,
) -> Any:
    """Draws cells from a place on the x axis, the first row on top or, upwards, at the bottom."""
    values = np.ma.masked_invalid(_values(cells))
    edges = [-0.5, len(cells) - 0.5][:: 1 if upwards else -1]
    style = {"origin": "lower" if upwards else "upper", "aspect": "auto", "zorder": 1}
    extent = (left - 0.5, left + len(cells[0]) - 0.5, *edges)
    image = axes.imshow(values, cmap=colours, extent=extent, **style, **bounds)
    for i, row in enumerate(cells):
        for j, cell in zip(left + np.arange(len(row)), row, strict=True):
            if math.isfinite(cell.value):
                colour = image.cmap(image.norm(cell.value))
                _write(axes, (i, -1 if upwards else 1), j, cell, colour, (size, small))
            else:
                _draw_empty(axes, i, j, cell, size - 1)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return image


def _draw_empty(axes: Any, i: int, j: float, cell: Cell, size: float) -> None:
    """Says why a cell has no value."""
    from matplotlib.patches import Rectangle

    if cell != NOT_RUN:
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 1, 1, fc="#F4F4F4", ec="#DADADA", hatch="///", lw=0)
        )
    style = {"color": GREY if cell == NOT_RUN else DARK, "fontsize": size, "zorder": 3}
    axes.text(j, i, cell.text, ha="center", va="center", **style)


def _write(
    axes: Any, line: tuple[int, int], j: float, cell: Cell, background: Any, sizes: Sequence[float]
) -> None:
    """Writes a cell in black or white, whichever can be read on it."""
    (i, down), (size, small) = line, sizes
    luminance = float(np.dot(background[:3], (0.299, 0.587, 0.114)))
    style = {"ha": "center", "color": "black" if luminance > 0.55 else "white", "zorder": 3}
    va = "bottom" if cell.note else "center"
    axes.text(j, i, cell.text, va=va, fontsize=size, **style)
    axes.text(j, i + 0.06 * down, cell.note, va="top", fontsize=small, **style)


def _frame(axes: Any, i: int, j: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, ec=COLOURS[1], lw=2.5, zorder=4)
    )
