"""The picture of a private study: what was spent against what was reached."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.metrics import name_of, unit_of
from fljax.recording.label_places import along, pixels, place_labels
from fljax.recording.plots import COLOURS
from fljax.studies.comparison import Compared, Comparison
from fljax.studies.selection import Spread, is_known

# Of the lines of what has no epsilon.
_DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def draw_privacy(figure: Any, comparison: Comparison) -> None:
    """Draws the reported metric over epsilon, by powers; runs without privacy are lines.

    A point is the mean over seeds, its bars and the bands of lines are standard deviations. Points
    of one mechanism and algorithm, as far as those of variants tell them apart, are joined.

    Args:
      figure: Empty matplotlib figure; is given a fitting size.
      comparison: What is compared.
    """
    from matplotlib.ticker import LogLocator

    factor, unit = unit_of(comparison.headline, comparison.metrics)
    figure.set_size_inches(8.2, 5.4)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.minorticks_off()
    bars, points, labels, lines = [], [], [], []
    for number, (mechanism, entries) in enumerate(_by_mechanism(comparison).items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [_place(comparison, entry, factor) for entry in entries]
        middle = [(x.mean, y.mean) for x, y in places]
        axes.plot(*zip(*middle, strict=True), color=colour, linewidth=1.2, label=mechanism)
        for (x, y), entry in zip(places, entries, strict=True):
            dx, dy = np.nan_to_num([x.sd, y.sd]).tolist()
            dx = min(dx, 0.9 * x.mean)  # a logarithmic axis has no place for what is below zero
            axes.errorbar(
                x.mean, y.mean, xerr=dx, yerr=dy, color=colour, marker="o", markersize=6,
                capsize=3, linewidth=0, elinewidth=1.0, zorder=3,
            )  # fmt: skip
            bars += [((x.mean - dx, x.mean + dx), (y.mean, y.mean))]
            bars += [((x.mean, x.mean), (y.mean - dy, y.mean + dy))]
            labels.append(entry.label)
        points += middle
        lines.append(middle)
    unprotected = [entry for entry in comparison.compared if not _spends(entry)]
    levels = []
    for number, entry in enumerate(unprotected):
        found = entry.spread(comparison.reported)
        level, sd = factor * found.mean, factor * np.nan_to_num(found.sd)
        line = {"color": "#555555", "linestyle": _DASHES[number % len(_DASHES)], "linewidth": 1.1}
        axes.axhline(level, label=f"{entry.label}: no finite epsilon", **line)
        shade = {"color": "#555555", "alpha": 0.12 / len(unprotected), "linewidth": 0}
        axes.axhspan(level - sd, level + sd, **shade)
        levels.append(level)
    axes.set(
        xlabel="epsilon of all rounds (by the best accountant)",
        ylabel=f"{name_of(comparison.headline, comparison.metrics)}{unit}",
    )
    axes.margins(0.08)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    figure.draw_without_rendering()
    across = [(axes.get_xlim(), (level, level)) for level in levels]
    kept_off = [pixels(axes, *bar) for bar in (*bars, *across)]
    kept_off += [box for line in lines for box in along(axes, line)]
    place_labels(axes, points, labels, kept_off)


def _spends(entry: Compared) -> bool:
    """Returns whether its trials have a finite epsilon, and something to show for it."""
    return any(is_known(outcome.epsilon) for outcome in entry.outcomes if outcome.best)


def _place(comparison: Comparison, entry: Compared, factor: float) -> tuple[Spread, Spread]:
    """Returns mean and deviation of epsilon, and of the reported metric in its unit."""
    found = entry.spread(comparison.reported)
    value = Spread(factor * found.mean, factor * found.sd)
    return entry.spread(lambda outcome: outcome.epsilon), value


def _by_mechanism(comparison: Comparison) -> dict[str, list[Compared]]:
    """Returns the private entries by what protects them, each list by ascending epsilon.

    Where algorithms differ as well, by both.
    """
    entries = [entry for entry in comparison.compared if _spends(entry)]
    each = []
    for entry in entries:
        changed = comparison.study.variants.get(entry.chosen.variant, {})
        own = {**comparison.config, **changed, **entry.chosen.values}
        each.append((str(own.get("privacy") or "private"), str(own.get("algorithm"))))
    several = len({algorithm for _, algorithm in each}) > 1
    found: dict[str, list[Compared]] = {}
    for entry, (mechanism, algorithm) in zip(entries, each, strict=True):
        name = f"{algorithm}, {mechanism}" if several else mechanism
        found.setdefault(name, []).append(entry)
    for entries in found.values():
        entries.sort(key=lambda entry: entry.spread(lambda outcome: outcome.epsilon).mean)
    return found
