"""Which configuration of a study is best: chosen on validation data, reported on test data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core.metrics import rows_of
from fljax.recording import jsonio
from fljax.studies.criterion import BY_ACCURACY, ON_TEST, Criterion, resolve
from fljax.studies.results import STATES, Results, Row, Status, is_number
from fljax.studies.space import identity
from fljax.training.privacy_records import EPSILON, OF_CHOICES

BEST = "best.json"
NONE_SURVIVED = "no configuration survived"


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1) over seeds; NaN where there is nothing to say."""

    mean: float
    sd: float


def spread(values: Iterable[float | None]) -> Spread:
    """Returns mean and standard deviation (n - 1) of the values that are known and finite."""
    known = np.array([value for value in values if is_known(value)], np.float64)
    return Spread(
        float(known.mean()) if known.size else math.nan,
        float(known.std(ddof=1)) if known.size > 1 else math.nan,
    )


def is_known(value: float | None) -> bool:
    """Returns whether a value is there, and finite."""
    return value is not None and math.isfinite(value)


class Configuration(NamedTuple):
    """A configuration and what its trials reached, one entry for each seed.

    Attributes:
      variant: Name of its variant; "" without variants.
      values: {hyperparameter: value} of the axes.
      trials: Numbers of its trials.
      seeds: Their seeds.
      statuses: Where they stand.
      rounds: The rounds that were chosen; None for a trial without a finite value.
      scores: `Criterion.metric` at those rounds; NaN for a trial without a finite value.
      reported: `Criterion.report` at those rounds; NaN where there is none.
    """

    variant: str
    values: Mapping[str, Any]
    trials: tuple[int, ...]
    seeds: tuple[int, ...]
    statuses: tuple[Status, ...]
    rounds: tuple[int | None, ...]
    scores: tuple[float, ...]
    reported: tuple[float, ...]

    @property
    def point(self) -> dict[str, Any]:
        """The place among the axes, of which the variants are one."""
        return {**({"variant": self.variant} if self.variant else {}), **self.values}

    @property
    def score(self) -> float:
        """Mean of the scores over the seeds that have one; NaN if none has."""
        return spread(self.scores).mean

    @property
    def diverged(self) -> int:
        """The number of trials that diverged."""
        return sum(status.state == "diverged" for status in self.statuses)

    @property
    def failed(self) -> bool:
        """Says whether no trial came to anything: all diverged, or there is no finite score."""
        return self.diverged == len(self.trials) or not math.isfinite(self.score)

    @property
    def note(self) -> str:
        """The trials that did not come to their end, which a mean does not tell."""
        if self.diverged:
            return f"{self.diverged} of {len(self.trials)} diverged"
        stopped = [status.round for status in self.statuses if status.state == "stopped"]
        return f"stopped at {max(stopped)}" if len(stopped) == len(self.trials) else ""


def rank(results: Results, criterion: Criterion = BY_ACCURACY) -> list[Configuration]:
    """Returns the configurations, best first.

    The mean over seeds of each trial's best (or last) value decides. A configuration of which a
    trial diverged comes after all those of which fewer did, since the mean over the others would
    flatter it. A trial that the search stopped counts with what it had reached. Among equals the
    one that was listed first comes first. Configurations that did not survive come last: all their
    trials diverged, or none has a finite value.

    Args:
      results: Of the study, finished or not.
      criterion: What the choice falls on, as `fljax.studies.criterion.filled` returns it.

    Raises:
      ValueError: If the choice would fall on test data and that was not allowed, or if no trial
        has the metric.
    """
    criterion = resolve(results, criterion)
    rows: dict[int, list[Row]] = {}
    for row in results.rows:
        rows.setdefault(row["trial"], []).append(row)
    groups: dict[str, list] = {}
    for trial in results.trials:
        groups.setdefault(identity(trial.point), []).append(trial)
    configurations = []
    for trials in groups.values():
        chosen = [chosen_row(rows.get(trial.number, ()), criterion) for trial in trials]
        configurations.append(
            Configuration(
                variant=trials[0].variant,
                values=trials[0].values,
                trials=tuple(trial.number for trial in trials),
                seeds=tuple(trial.seed for trial in trials),
                statuses=tuple(results.status(trial) for trial in trials),
                rounds=tuple(row.get("round") for row in chosen),
                scores=tuple(row.get(criterion.metric, math.nan) for row in chosen),
                reported=tuple(row.get(criterion.report, math.nan) for row in chosen),
            )
        )
    sign = -1.0 if criterion.maximize else 1.0

    def order(configuration: Configuration):
        known = math.isfinite(configuration.score)
        return (
            configuration.failed,
            not known,
            configuration.diverged,
            sign * configuration.score if known else 0.0,
        )

    return sorted(configurations, key=order)


def score(rows: Sequence[Row], criterion: Criterion) -> tuple[int, float]:
    """Returns what a trial counts with, as (round, value); the value is NaN if none is finite."""
    metrics = (criterion.metric, criterion.report)[: 1 + criterion.allow_test]
    for metric in metrics:
        if row := chosen_row(rows, criterion._replace(metric=metric)):
            return row["round"], row[metric]
    return max((row["round"] for row in rows), default=0), math.nan


class Edge(NamedTuple):
    """An end of an axis on which a configuration lies: values beyond it were not tried.

    Attributes:
      axis: Name of the axis.
      value: The configuration's.
      end: "lowest" or "highest".
    """

    axis: str
    value: float
    end: str

    def __str__(self) -> str:
        beyond = "smaller" if self.end == "lowest" else "larger"
        return (
            f"{self.axis} = {self.value:.4g} is the {self.end} value tried; {beyond} ones may be "
            "better"
        )


def edges(values: Mapping[str, Any], axes: Mapping[str, Any]) -> list[Edge]:
    """Returns the ends of axes on which a configuration lies.

    Args:
      values: {hyperparameter: value} of the configuration.
      axes: {hyperparameter: its values}; those that are drawn from, have no order or a single value
        have no ends.
    """
    found = []
    for name, axis in axes.items():
        ordered = isinstance(axis, Sequence | np.ndarray) and all(map(is_number, axis))
        if not ordered or len(axis) < 2 or name not in values:
            continue
        ends = {"lowest": min(axis), "highest": max(axis)}
        found += [Edge(name, end, which) for which, end in ends.items() if end == values[name]]
    return found


def best(
    results: Results,
    criterion: Criterion = BY_ACCURACY,
    axes: Mapping[str, Any] | None = None,
    faced: str | None = None,
) -> dict[str, Any]:
    """Returns the best configuration, as `best.json` says it.

    Args:
      results: Of the study.
      criterion: What the choice falls on.
      axes: What was tried, for `edges`.
      faced: The axis that is no choice.

    Returns:
      {"variant" where there are such, "values", "edges" of axes on which they lie, "trials",
      "seeds", "rounds" that were chosen, "selected_by": "val" or another,
      "metric", "at", "maximize", "diverged" and "stopped" trials of the configuration, "sweep":
      how many trials of the study are in which state, and for the metric and the reported one
      {"mean", "sd", "values"} over the seeds; `sd` has n - 1 in its denominator and is None for a
      single seed}. "note" says what flatters: a choice on test data, or seeds that diverged. Where
      no configuration survived, it says so, "values" is None, and there are "metric" and "sweep".

    Raises:
      ValueError: See `rank`.
    """
    criterion = resolve(results, criterion)
    chosen = rank(results, criterion)[0]
    states = Counter(results.status(trial).state for trial in results.trials)
    counts = {"trials": len(results.trials)} | {state: states[state] for state in STATES}
    if chosen.failed:
        note = f"{NONE_SURVIVED}: {states['diverged']} of {len(results.trials)} trials diverged"
        return {"values": None, "metric": criterion.metric, "note": note, "sweep": counts}
    found = {
        **({"variant": chosen.variant} if chosen.variant else {}),
        "values": chosen.values,
        "edges": [edge._asdict() for edge in edges(chosen.values, axes or {})],
        "trials": chosen.trials,
        "seeds": chosen.seeds,
        "rounds": chosen.rounds,
        "selected_by": rows_of(criterion.metric),
        "metric": criterion.metric,
        "at": criterion.at,
        "maximize": criterion.maximize,
        "diverged": chosen.diverged,
        "stopped": sum(status.state == "stopped" for status in chosen.statuses),
        "sweep": counts,
        criterion.metric: _over_seeds(chosen.scores),
    }
    notes = []
    if faced is not None:
        notes.append(f"best of all values of {faced}, which nobody chooses: see the report")
    if rows_of(criterion.metric) in ON_TEST:
        notes.append("best over test data: chosen on rows that are reported on, which flatters")
    if chosen.diverged:
        notes.append(
            f"{chosen.diverged} of {len(chosen.trials)} trials of this configuration diverged, as "
            "many or more of every other; the mean is over what they had reached before"
        )
    private = len({row["trial"] for row in results.rows if EPSILON in row})
    if private:
        notes.append(f"the epsilon of a trial does not cover {OF_CHOICES} ({private})")
    if notes:
        found["note"] = "; ".join(notes)
    if np.isfinite(chosen.reported).any():
        found[criterion.report] = _over_seeds(chosen.reported)
    return found


def write_best(
    directory: str | Path,
    results: Results,
    criterion: Criterion = BY_ACCURACY,
    axes: Mapping[str, Any] | None = None,
    faced: str | None = None,
) -> dict[str, Any]:
    """Writes `best.json` atomically and returns what it says.

    Raises:
      ValueError: See `best`.
    """
    found = best(results, criterion, axes, faced)
    jsonio.write_json(Path(directory) / BEST, found)
    return found


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    mean, sd = spread(values)
    return {"mean": mean, "sd": None if math.isnan(sd) else sd, "values": list(values)}


def chosen_row(rows: Sequence[Row], criterion: Criterion) -> Row:
    """Returns the row that a trial counts with; an empty one if it has no finite value."""
    known = [row for row in rows if math.isfinite(row.get(criterion.metric, math.nan))]
    known.sort(key=lambda row: row["round"])
    if criterion.at == "last" or not known:
        return known[-1] if known else {}
    sign = 1.0 if criterion.maximize else -1.0
    return max(known, key=lambda row: sign * row[criterion.metric])
