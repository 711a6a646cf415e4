"""The metric on validation data by which trials are compared, and what is reported of the best."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from fljax.core.metrics import ACCURACY, LOSS, Metric, metric_of, name_of, rows_of, unit_of
from fljax.core.names import unknown
from fljax.core.settings import SYSTEMS
from fljax.core.transforms import Pipeline
from fljax.studies.groups import Group
from fljax.studies.results import Results
from fljax.training.record_keys import evaluation_keys, training_keys
from fljax.training.timing import clock_keys

# What must not decide unless it is allowed to: clients, groups and backdoors are evaluated on test
# rows if there are any.
ON_TEST = ("test", "held_out", "clients", "groups", "personal", "new_clients", "triggered")


class Criterion(NamedTuple):
    """The rule that the best trial is chosen by.

    Attributes:
      metric: The key of records that decides; None is the task's first metric on validation data.
      report: The key that is reported at the rounds that `metric` chose; it decides nothing. None
        is the same metric on test data, or on those of held-out clients, or `metric` where there
        are neither.
      maximize: Whether high values of `metric` are good; None follows the task's metric.
      at: "best": each trial counts with its best round, the earliest of equals. "last": with its
        last evaluated round.
      allow_test: Whether the choice may fall on test data: by a `metric` of the test set, or by
        `report` where no trial has `metric`. It flatters the result, which is labelled.

    Example:
      >>> studies.Criterion("eval/val/loss").at
      'best'
    """

    metric: str | None = None
    report: str | None = None
    maximize: bool | None = None
    at: str = "best"
    allow_test: bool = False


def filled(
    criterion: Criterion,
    metrics: Sequence[Metric] = (ACCURACY, LOSS),
    known: Collection[str] | None = None,
) -> Criterion:
    """Returns the criterion with what was left open as the task and its records have it.

    Args:
      criterion: As it was given.
      metrics: Of the task, the first one first.
      known: Keys that the records will have; None where that is not known yet, and nothing of them
        is checked.

    Example:
      >>> filled(Criterion(), [Metric("mse", "lower")])[:3]
      ('eval/val/mse', 'eval/test/mse', False)

    Raises:
      ValueError: For keys that no record has, or a direction that is not known or contradicts the
        metric's.
    """
    if criterion.at not in ("best", "last"):
        raise ValueError(f"at = {criterion.at!r} must be 'best' or 'last'.")
    key = criterion.metric or f"eval/val/{metrics[0].name}"
    name = (metric_of(key, metrics) or metrics[0]).name
    reported = [f"eval/{split}/{name}" for split in ("test", "held_out")]
    report = criterion.report or next(
        (other for other in reported if known is None or other in known), key
    )
    criterion = criterion._replace(metric=key, report=report)
    if known is not None:
        check_keys(criterion, known)
    return criterion._replace(maximize=_direction(key, criterion.maximize, metrics))


def _direction(key: str, maximize: bool | None, metrics: Sequence[Metric]) -> bool:
    """Returns whether high values of a key are good."""
    metric = metric_of(key, metrics)
    if metric is None:
        if maximize is None:
            raise ValueError(
                f"Nothing says whether high or low values of {key} are good: set maximize=True or "
                "maximize=False in the criterion."
            )
        return bool(maximize)
    better = metric.sign > 0
    if maximize is not None and maximize != better:
        raise ValueError(
            f"maximize = {maximize}, but of {metric.name!r} {metric.better} values are better. "
            "Leave maximize out of the criterion, which follows the metric then."
        )
    return better


def check_keys(criterion: Criterion, known: Collection[str]) -> None:
    """Raises ValueError for a criterion whose keys no record has, or that must not choose."""
    metric, report, *_, allow_test = criterion
    if metric not in known and not (allow_test and report in known):
        if metric.startswith("eval/val/") and not any(key.startswith("eval/val/") for key in known):
            raise ValueError(
                f"No trial has {metric}; without a validation set there is nothing to "
                "choose by. Set val_fraction, such as to 0.1, or name another metric; "
                "allow_test=True chooses on test data, which flatters the result, and says so. "
                f"Metrics there are: {', '.join(sorted(known)) or 'none at all'}."
            )
        raise ValueError(unknown("metric of the criterion", metric, _near(metric, known)))
    if report not in known:
        raise ValueError(unknown("report of the criterion", report, _near(report, known)))
    if rows_of(metric) in ON_TEST and not allow_test:
        raise ValueError(
            f"{metric} is measured on test data, and a choice by it flatters the result. "
            "Choose by a metric of the validation set, such as eval/val/accuracy; or allow it by "
            "allow_test=True, and the result will say so."
        )


def _near(key: str, known: Collection[str]) -> list[str]:
    """Returns the keys that are worth naming: groups of clients are many."""
    if key.startswith("eval/groups/"):
        return list(known)
    return [other for other in known if not other.startswith("eval/groups/")]


BY_ACCURACY = filled(Criterion())


def for_groups(criterion: Criterion | None, groups: Sequence[Group]) -> Criterion:
    """Returns the criterion of a study, with what was left open as its first group has it.

    Args:
      criterion: As it was given, or None.
      groups: Of the trials that are listed; none where they are proposed as the study goes.

    Raises:
      ValueError: See `filled`; for any of the groups.
    """
    criterion = criterion or Criterion()
    if not groups:
        return filled(criterion)
    found = criterion
    for group in groups:
        metrics = group.experiment.task.metrics
        found = filled(found, metrics, keys_of(group, found[:2]))
    return found


def check_proposed(criterion: Criterion, group: Group) -> None:
    """Raises ValueError where a group that was proposed does not fit what the study chose before.

    What is reported may be the default, which was taken without knowing the data.
    """
    open_report = criterion._replace(report=None)
    if criterion.report == filled(open_report).report:
        criterion = open_report
    filled(criterion, group.experiment.task.metrics, keys_of(group, criterion[:2]))


def keys_of(group: Group, wanted: Iterable[str | None] = ()) -> list[str]:
    """Returns the keys that records of a group's trials will have.

    Args:
      group: The group.
      wanted: What is looked for: rounds are rehearsed only where evaluations are not all of it.
    """
    dataset, task, spec, options, _ = group.experiment
    judged = (options.get(name, 0) for name in ("eval_clients", "eval_personal"))
    pipeline = options.get("pipeline", Pipeline())
    keys = evaluation_keys(dataset, task.metrics, *judged, pipeline=pipeline)
    if all(key is None or key.startswith("eval/") for key in wanted):
        return keys
    transfers = any(options.get(f"{link}_mbps") is not None for link in ("uplink", "downlink"))
    private = options.get("privacy") is not None
    timed = {name: options[name] for name in SYSTEMS if name in options}
    return keys + training_keys(
        dataset, task, spec, pipeline, transfers=transfers, private=private, clock=clock_keys(timed)
    )


def resolve(results: Results, criterion: Criterion) -> Criterion:
    """Returns the criterion with the metric that the trials have.

    Args:
      results: Of the study.
      criterion: As `filled` returns it.

    Raises:
      ValueError: If no trial has the metric, or the choice would fall on test data and that was not
        allowed.
    """
    known = {key for row in results.rows for key in row if "/" in key}
    if not results.rows:
        raise ValueError("No trial has a row yet, so there is nothing to choose from.")
    # what is reported need not be there: all trials may have diverged before it was
    check_keys(criterion, known | {criterion.report} if criterion.metric in known else known)
    return criterion if criterion.metric in known else criterion._replace(metric=criterion.report)


def score_label(criterion: Criterion, metrics: Sequence[Metric] = (ACCURACY, LOSS)) -> str:
    """Returns what the score of a configuration is: "validation accuracy, best round (%)"."""
    _, unit = unit_of(criterion.metric, metrics)
    return f"{name_of(criterion.metric, metrics)}, {criterion.at} round{unit}"
