"""Results of sweeps that never ran, for tests."""

import math

from matplotlib.figure import Figure

from fljax.studies import repeat
from fljax.studies.axis_pictures import scale_of
from fljax.studies.criterion import BY_ACCURACY
from fljax.studies.heat_maps import draw_heat_map
from fljax.studies.results import Results, Status, axes_of, row
from fljax.studies.selection import rank


def results_of(curves, configurations, seeds=(0,), diverged=(), stopped=()):
    """Returns results whose trials were evaluated at rounds 0, 10, 20, ...

    Args:
      curves: {number of the trial: [(validation, test accuracy) of each evaluation]}.
      configurations: See `repeat`.
      seeds: See `repeat`.
      diverged: Numbers of trials that diverged after their last evaluation.
      stopped: Numbers of trials that the search stopped there.
    """
    trials = repeat(configurations, seeds)
    rows, statuses = [], {}
    for trial in trials:
        points = curves.get(trial.number, ())
        for place, (val, test) in enumerate(points):
            record = {"round": 10 * place, "eval/val/accuracy": val, "eval/test/accuracy": test}
            rows.append(row(trial, record))
        last = max(10 * (len(points) - 1), 0)
        state = "diverged" if trial.number in diverged else "finished"
        statuses[trial.number] = Status("stopped" if trial.number in stopped else state, last)
        if trial.number in diverged:
            rows.append(row(trial, {"round": last + 1, "eval/val/accuracy": math.nan}))
    return Results(trials, rows, statuses)


def curves(num, level=lambda number: 0.5 + 0.01 * number):
    """Returns curves of so many trials, each of which rises to a level of its number."""
    return {n: [(0.1, 0.1), (level(n) - 0.1, 0.3), (level(n), 0.5)] for n in range(num)}


def texts(figure):
    """Returns what is written in the plots of a figure."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def heat_map(results):
    """Returns the heat map of the first two axes of results."""
    figure = Figure()
    scales = {name: scale_of(values) for name, values in axes_of(results.trials).items()}
    (x, y) = list(scales.items())[:2]
    draw_heat_map(figure, rank(results), x, y, BY_ACCURACY)
    return figure
