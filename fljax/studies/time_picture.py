"""Draws what variants reach over simulated time: mean and deviation over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.durations import time_unit
from fljax.core.metrics import name_of, unit_of
from fljax.recording.plots import COLOURS
from fljax.recording.summary import SIMULATED
from fljax.studies.axis_pictures import GREY
from fljax.studies.comparison import Compared, Comparison, Outcome

# Moments at which the curves of several seeds, whose clocks differ, are compared.
_MOMENTS = 200


def has_clock(comparison: Comparison) -> bool:
    """Returns whether a trial that is compared has simulated time."""
    return any(
        len(curve(outcome, comparison.headline)[0])
        for entry in comparison.compared
        for outcome in entry.outcomes
    )


def curve(outcome: Outcome, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (seconds, values) of a trial's evaluated rounds; nothing without a clock."""
    found = [
        (0.0 if record["round"] == 0 else record.get(SIMULATED), record.get(key))
        for record in outcome.records
    ]
    known = np.array([pair for pair in found if None not in pair], np.float64).reshape(-1, 2)
    seconds, values = known[np.isfinite(known).all(axis=1)].T
    # a trial without a clock has at most the evaluation of its initial model
    return (seconds, values) if (seconds > 0).any() else (seconds[:0], values[:0])


def draw_time(figure: Any, comparison: Comparison) -> None:
    """Draws the headline over simulated time, a colour a variant, and grey beyond the colours.

    Between two evaluations of a seed lies a straight line. The mean ends where the first seed does.
    """
    axes = figure.add_subplot()
    factor, unit = unit_of(comparison.headline, comparison.metrics)
    curves = {
        entry.label: found
        for entry in comparison.compared
        if (found := _curves(entry, comparison.headline))
    }
    longest = max(seconds[-1] for found in curves.values() for seconds, _ in found)
    scale, time = time_unit(longest)
    for place, (label, found) in enumerate(curves.items()):
        moments, mean, deviation = _over_seeds(found)
        moments, mean, deviation = moments / scale, factor * mean, factor * deviation
        if place >= len(COLOURS):
            first = place == len(COLOURS)
            others = f"the other {len(curves) - len(COLOURS)}" if first else None
            axes.plot(moments, mean, color=GREY, linewidth=1.0, zorder=1, label=others)
            continue
        colour = COLOURS[place]
        axes.plot(moments, mean, color=colour, label=label)
        if len(found) > 1:
            band = {"color": colour, "alpha": 0.2, "linewidth": 0}
            axes.fill_between(moments, mean - deviation, mean + deviation, **band)
    if comparison.target is not None and comparison.headline == comparison.target_key:
        axes.axhline(factor * comparison.target, color="#555555", linestyle=":", linewidth=1.3)
    axes.set(
        xlabel=f"Simulated time ({time})",
        ylabel=f"{name_of(comparison.headline, comparison.metrics)}{unit}",
    )
    if max(map(len, curves.values())) > 1:
        axes.set_title("mean and standard deviation over seeds", fontsize=10)
    figure.set_size_inches(7.2, 4.4 + 0.19 * min(len(curves), len(COLOURS) + 1))
    figure.legend(loc="outside lower center", fontsize=8)


def _curves(entry: Compared, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    found = (curve(outcome, key) for outcome in entry.outcomes)
    return [each for each in found if len(each[0])]


def _over_seeds(
    curves: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns moments, and at each of them mean and standard deviation of the curves."""
    if len(curves) == 1:
        seconds, values = curves[0]
        return seconds, values, np.zeros(len(values))
    first = max(seconds[0] for seconds, _ in curves)
    last = max(first, min(seconds[-1] for seconds, _ in curves))
    moments = np.linspace(first, last, _MOMENTS)
    values = np.stack([np.interp(moments, *each) for each in curves])
    return moments, values.mean(axis=0), values.std(axis=0, ddof=1)
