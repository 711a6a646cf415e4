"""Metrics: what a task measures, and its values for all rows, a client or a group, on the host.

The devices hand over sums for each example, and counts over all examples. A metric is a function
of such sums, so it does not depend on how examples were spread over batches, devices or clients:
integers are added in int64, everything else in float64. Whatever comes after an evaluation
(records, the best round, targets, plots, a sweep's choice) knows a metric by its name and its
direction alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.spread import EVENNESS, SPREAD, spread

__all__ = [
    "ACCURACY",
    "HIGHER",
    "LOSS",
    "LOWER",
    "Metric",
    "Sum",
    "client_metrics",
    "client_summary",
    "from_plain",
    "global_metrics",
    "group_metrics",
    "metric_of",
    "name_of",
    "plain",
    "rows_of",
    "spread_metric",
    "target_of",
    "unit_of",
]

HIGHER, LOWER = "higher", "lower"
_WORDS = {"val": "validation", "held_out": "held-out", "new_clients": "new clients'"}
# What records say of how a metric is spread over clients.
_SPREADS = (["clients"], ["personal"], ["new_clients"])
# Shown in percent.
_SHARES = ("accuracy", "top5")


class Sum(NamedTuple):
    """A sum that adds up over examples, and what its mean divides it by.

    Attributes:
      value: [...] numbers, of one example or of many; a histogram has axes of its own behind.
      weight: [...] how much they count for, such as the number of targets.

    Example:
      >>> hits = tasks.Sum(value=np.array([1, 0, 1]), weight=np.ones(3))
      >>> float(hits.value.sum() / hits.weight.sum())
      0.6666666666666666
    """

    value: Any
    weight: Any


class Metric(NamedTuple):
    """A metric: its name, which way is better, and how it follows from sums.

    Attributes:
      name: Its key: `eval/test/NAME` in records, `NAME` in the tables of clients.
      better: "higher" or "lower".
      value: ({name: Sum}) -> the metric, in NumPy; sums of many clients come as arrays [clients],
        and NaN says that there is no value. None is the mean, the sum of the same name divided by
        its weight. With `of_counts`, (counts) -> the metric.
      of_counts: Whether it follows from the task's counts; such a metric exists for all rows
        together, and not for each client or group.
      of_examples: Whether `value` is given the sums of single examples, arrays [examples], of all
        rows, a client or a group: for what no sum tells, such as the ranks of scores.
      label: What plots call it; the name where it is empty.
      unit: Such as "m²"; plots name it behind the label.

    Example:
      >>> rmse = lambda sums: np.sqrt(sums["squares"].value / sums["squares"].weight)
      >>> metric = tasks.Metric("rmse", "lower", rmse, label="Error", unit="m")
      >>> float(metric.value({"squares": tasks.Sum(18.0, 2)})), metric.sign, metric.title
      (3.0, -1.0, 'Error (m)')
    """

    name: str
    better: str = HIGHER
    value: Callable[[Any], Any] | None = None
    of_counts: bool = False
    of_examples: bool = False
    label: str = ""
    unit: str = ""

    @property
    def sign(self) -> float:
        """1 where higher values are better, -1 where lower ones are."""
        return 1.0 if self.better == HIGHER else -1.0

    @property
    def title(self) -> str:
        """The title of an axis: "Squared error (m²)"."""
        return (self.label or self.name) + (f" ({self.unit})" if self.unit else "")

    @property
    def words(self) -> str:
        """Its name within a sentence: "squared error", or "AUC" as it is."""
        words = self.label or self.name.replace("_", " ")
        is_word = words[1:2].islower() or not words[1:2].strip()
        return words[0].lower() + words[1:] if self.label and is_word else words


LOSS = Metric("loss", LOWER, label="Loss")
ACCURACY = Metric("accuracy", label="Accuracy")


def plain(metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """Returns what `config.json` says of metrics; the first one chooses rounds and models.

    Example:
      >>> plain([LOSS])
      [{'name': 'loss', 'better': 'lower', 'label': 'Loss', 'unit': ''}]
    """
    return [{name: getattr(metric, name) for name in _PLAIN} for metric in metrics]


def from_plain(described: Sequence[Mapping[str, str]] | None) -> tuple[Metric, ...]:
    """Returns the metrics that a `config.json` tells of, accuracy and loss if it tells of none.

    Example:
      >>> from_plain(plain([LOSS])) == (LOSS,), from_plain(None) == (ACCURACY, LOSS)
      (True, True)
    """
    return tuple(Metric(**fields) for fields in described or ()) or (ACCURACY, LOSS)


def target_of(options: Mapping[str, Any]) -> float | None:
    """Returns the value of the first metric that options ask for, by either of their names.

    Example:
      >>> target_of({"target": 3.5, "target_accuracy": None}), target_of({"target_accuracy": 0.9})
      (3.5, 0.9)
    """
    accuracy = options.get("target_accuracy")
    return options.get("target") if accuracy is None else accuracy


def metric_of(key: str, metrics: Sequence[Metric]) -> Metric | None:
    """Returns the metric that a key of records holds values of, or None.

    Args:
      key: Such as "eval/val/accuracy", "eval/groups/hospital/3/loss" or "train/loss"; of
        "eval/clients/worst" it is the first metric. Of "eval/triggered/accuracy", the success of a
        backdoor, lower values are better.
      metrics: Of the task, as `from_plain` returns them.

    Example:
      >>> metric_of("eval/groups/hospital/3/loss", (ACCURACY, LOSS)).better
      'lower'
      >>> metric_of("eval/triggered/accuracy", (ACCURACY, LOSS)).better
      'lower'
    """
    parts = key.split("/")
    if parts[:1] == ["eval"] and parts[1:-1] in _SPREADS and parts[-1] in SPREAD:
        better = {True: HIGHER, False: LOWER}.get(EVENNESS.get(parts[-1]), metrics[0].better)
        return metrics[0]._replace(better=better)
    is_value = parts[0] == "eval" or key == "train/loss"
    found = next((metric for metric in metrics if is_value and metric.name == parts[-1]), None)
    if found is not None and rows_of(key) == "triggered":  # which say what the attacker wants
        return found._replace(better=LOWER if found.better == HIGHER else HIGHER)
    return found


def rows_of(key: str) -> str:
    """Returns what rows a key is about: "val" for "eval/val/accuracy", "train", ...

    Example:
      >>> rows_of("eval/val/accuracy"), rows_of("train/loss")
      ('val', 'train')
    """
    parts = key.split("/")
    return parts[1] if parts[0] == "eval" and len(parts) > 1 else parts[0]


def name_of(key: str, metrics: Sequence[Metric] = (ACCURACY, LOSS)) -> str:
    """Returns a record's key in words.

    Args:
      key: Such as "eval/test/accuracy".
      metrics: Of the task; the first one is spread over clients.

    Example:
      >>> name_of("eval/val/loss"), name_of("eval/clients/p10")
      ('validation loss', 'accuracy, p10 over clients')
      >>> name_of("eval/groups/hospital/va/loss")
      'groups loss, hospital va'
      >>> name_of("eval/fairness/sex/equal_opportunity_difference")
      'fairness equal opportunity difference, sex'
    """
    rows, name = rows_of(key), key.rpartition("/")[2]
    if [rows] in _SPREADS and name in SPREAD:
        whose = {"personal": "clients of their own models", "new_clients": "new clients"}
        return f"{spread_metric(metrics).words}, {name} over {whose.get(rows, rows)}"
    if rows == "comm":
        return name.replace("_", " ")
    metric = metric_of(key, metrics)
    words = metric.words if metric else name.replace("_", " ")
    group = re.search("/(?:groups|fairness)/(.*)/", key)
    whose = f", {group[1].replace('/', ' ')}" if group else ""
    return f"{_WORDS.get(rows, rows)} {words}{whose}"


def unit_of(key: str, metrics: Sequence[Metric] = (ACCURACY, LOSS)) -> tuple[float, str]:
    """Returns (factor, unit) in which a record's key is shown: accuracies in percent.

    Args:
      key: Such as "eval/test/accuracy".
      metrics: Of the task.

    Example:
      >>> unit_of("eval/test/error", [Metric("error", LOWER, unit="m²")])
      (1.0, ' (m²)')
    """
    metric = metric_of(key, metrics)
    if [rows_of(key)] in _SPREADS and key.rpartition("/")[2] in SPREAD:
        return _unit_of_spread(key.rpartition("/")[2], metrics[0])
    if (metric.name if metric else key.rpartition("/")[2]) in _SHARES:
        return 100.0, " (%)"
    return 1.0, f" ({metric.unit})" if metric and metric.unit else ""


def _unit_of_spread(name: str, metric: Metric) -> tuple[float, str]:
    factor, unit = (100.0, "%") if metric.name in _SHARES else (1.0, metric.unit)
    if name in ("jain", "gini", "entropy"):
        return 1.0, ""
    if name == "variance":
        factor, unit = factor**2, unit and f"({unit})²" if " " in unit else unit and f"{unit}²"
    return factor, f" ({unit})" if unit else ""


def global_metrics(
    metrics: Sequence[Metric], sums: Mapping[str, Sum], counts: Any = None
) -> dict[str, float]:
    """Computes the metrics of all examples together.

    Args:
      metrics: What to compute.
      sums: {name: (value[R, ...], weight[R])} of each example.
      counts: What metrics of counts read; without counts, they are left out.

    Returns:
      {name of a metric: value}; a mean without weight is NaN.

    Example:
      >>> global_metrics([LOSS], {"loss": (np.array([0.5, 2.5]), np.array([1, 2]))})
      {'loss': 1.0}
    """
    totals = {name: Sum(_total(value), _total(weight)) for name, (value, weight) in sums.items()}
    with np.errstate(all="ignore"):
        return {
            metric.name: float(
                metric.value(counts)
                if metric.of_counts
                else _value(metric, _as_arrays(sums) if metric.of_examples else totals)
            )
            for metric in metrics
            if not (metric.of_counts and counts is None)
        }


def client_metrics(
    metrics: Sequence[Metric], sums: Mapping[str, Sum], owners: np.ndarray, num_clients: int
) -> dict[str, np.ndarray]:
    """Computes each client's own metrics.

    Args:
      metrics: What to compute; metrics of counts are left out.
      sums: {name: (value[R, ...], weight[R])} of each example; "loss" is among them.
      owners: Integer[R] client of each example.
      num_clients: Size of the population that `owners` refers to.

    Returns:
      {"client": int64[K] ascending, "examples": int64[K], "weight": [K] weight of the loss (its
      targets), and float64[K] for each metric}. A client whose loss has no weight is left out; NaN
      in another metric means that it has no value for that client.

    Example:
      >>> sums = {"loss": (np.array([1.0, 3.0, 5.0]), np.array([1, 1, 1]))}
      >>> client_metrics([LOSS], sums, owners=np.array([0, 0, 2]), num_clients=4)["loss"].tolist()
      [2.0, 5.0]
    """
    totals = _by_owner(sums, owners, num_clients)
    clients = np.flatnonzero(totals["loss"].weight)
    totals = {name: Sum(*(each[clients] for each in total)) for name, total in totals.items()}
    own = _of_each(metrics, sums, owners, num_clients)
    whole = np.asarray(sums["loss"][1]).dtype.kind in "iub"
    counts = {
        "client": clients.astype(np.int64),
        "examples": np.bincount(owners, minlength=num_clients)[clients].astype(np.int64),
        "weight": totals["loss"].weight.astype(np.int64 if whole else np.float64),
    }
    own = {name: values[clients] for name, values in own.items()}
    return counts | _values(metrics, totals) | own


def group_metrics(
    metrics: Sequence[Metric],
    sums: Mapping[str, Sum],
    owners: np.ndarray,
    groups: np.ndarray,
) -> dict[Any, dict[str, float]]:
    """Computes the metrics of each group of clients over all their examples.

    Args:
      metrics: What to compute; metrics of counts are left out.
      sums: {name: (value[R, ...], weight[R])} of each example; "loss" is among them.
      owners: Integer[R] client of each example.
      groups: [N] group of each client, numbers or strings.

    Returns:
      {group: {name of a metric: value}}; groups whose loss has no weight are left out.

    Example:
      >>> sums = {"loss": (np.array([1.0, 3.0, 5.0]), np.array([1, 1, 1]))}
      >>> group_metrics([LOSS], sums, np.array([0, 0, 1]), np.array(["north", "south"]))
      {'north': {'loss': 2.0}, 'south': {'loss': 5.0}}
    """
    names, place = np.unique(groups, return_inverse=True)
    totals = _by_owner(sums, place[owners], len(names))
    values = _values(metrics, totals) | _of_each(metrics, sums, place[owners], len(names))
    return {
        name: {metric: float(each[number]) for metric, each in values.items()}
        for number, name in enumerate(names.tolist())
        if totals["loss"].weight[number]
    }


def client_summary(table: Mapping[str, np.ndarray], metric: Metric) -> dict[str, float]:
    """Describes how a metric is spread over clients, each client counting once.

    Args:
      table: As `client_metrics` returns it. A client that has no value of the metric is left out;
        one whose loss is NaN as well, since its model diverged, is not.
      metric: The metric.

    Returns:
      As `fljax.core.spread.spread`. Where the model of a client diverged, all are NaN.

    Example:
      >>> client_summary({"loss": np.array([1.0, 2.0, 6.0])}, LOSS)["worst"]
      6.0
    """
    values, losses = (np.asarray(table[name], np.float64) for name in (metric.name, LOSS.name))
    return spread(values[~np.isnan(values) | ~np.isfinite(losses)], metric.sign > 0)


def spread_metric(metrics: Sequence[Metric]) -> Metric:
    """Returns the first metric that a single client has: not of counts over all rows.

    Example:
      >>> spread_metric([LOSS]).name
      'loss'
    """
    return next(metric for metric in metrics if not metric.of_counts)


_PLAIN = ("name", "better", "label", "unit")


def _total(values: np.ndarray) -> Any:
    """Sums over examples: integers in int64, everything else in float64."""
    values = np.asarray(values)
    return values.sum(0, dtype=np.int64 if values.dtype.kind in "iub" else np.float64)


def _by_owner(sums: Mapping[str, Sum], owners: np.ndarray, size: int) -> dict[str, Sum]:
    """Returns the sums over the examples of each owner, float64[size, ...]."""

    def added(values):
        values = np.asarray(values)
        columns = values.reshape(len(values), -1).T
        # float64 sums of integers are exact below 2^53
        by_column = [np.bincount(owners, weights=column, minlength=size) for column in columns]
        return np.stack(by_column, -1).reshape(size, *values.shape[1:])

    return {name: Sum(added(value), added(weight)) for name, (value, weight) in sums.items()}


def _of_each(
    metrics: Sequence[Metric], sums: Mapping[str, Sum], owners: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """Returns {name: float64[size]} of metrics of examples, over those of each owner."""
    wanted = [metric for metric in metrics if metric.of_examples]
    if not wanted:
        return {}
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=size)
    ends = counts.cumsum()
    arrays, found = _as_arrays(sums), np.full((len(wanted), size), np.nan)
    with np.errstate(all="ignore"):
        for owner in np.flatnonzero(counts):
            rows = order[ends[owner] - counts[owner] : ends[owner]]
            own = {name: Sum(value[rows], weight[rows]) for name, (value, weight) in arrays.items()}
            found[:, owner] = [metric.value(own) for metric in wanted]
    return {metric.name: values for metric, values in zip(wanted, found, strict=True)}


def _as_arrays(sums: Mapping[str, Sum]) -> dict[str, Sum]:
    return {name: Sum(*map(np.asarray, pair)) for name, pair in sums.items()}


def _values(metrics: Sequence[Metric], totals: Mapping[str, Sum]) -> dict[str, np.ndarray]:
    with np.errstate(all="ignore"):
        return {
            metric.name: np.asarray(_value(metric, totals), np.float64)
            for metric in metrics
            if not (metric.of_counts or metric.of_examples)
        }


def _value(metric: Metric, totals: Mapping[str, Sum]) -> Any:
    """Returns a metric of sums; of a mean without weight NaN."""
    if metric.value is not None:
        return metric.value(totals)
    value, weight = totals[metric.name]
    return np.where(weight == 0, np.nan, value / weight)
