"""Results of sweeps that never ran, for tests."""

import math

from fljax.studies import repeat
from fljax.studies.results import Results, Status, row


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
