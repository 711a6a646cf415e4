"""Scales and words of pictures: how an axis lies, and what axes, scores and notes are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.metrics import ACCURACY, LOSS, SPREAD, Metric, metric_of, spread_metric
from fljax.studies.results import is_number
from fljax.studies.selection import Configuration, Criterion, split
from fljax.studies.space import short

_MOST_TICKS = 8
_SPLITS = {"val": "validation", "held_out": "held-out"}
_SHARES = ("accuracy", "top5")


class Scale(NamedTuple):
    """The layout of one axis.

    Attributes:
      kind: "linear", "log", or "names" for values that are no numbers.
      values: The different values, numbers ascending, others as they came.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def few(self) -> bool:
        """Whether every value can have a tick of its own."""
        return self.kind == "names" or len(self.values) <= _MOST_TICKS

    def position(self, value: Any) -> float:
        """Returns where a value lies: from 0, the first one, to 1, the last one."""
        if self.kind == "names":
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high, here = map(self._plain, (self.values[0], self.values[-1], value))
        return (here - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Returns (position, label): every value where there are few, else round numbers."""
        if self.few:
            return [(self.position(value), short(value)) for value in self.values]
        return self.round_ticks()

    def round_ticks(self) -> list[tuple[float, str]]:
        """Returns (position, label) of round numbers between the first value and the last one."""
        low, high = self.values[0], self.values[-1]
        shown = _powers(low, high) if self.kind == "log" else _round_numbers(low, high)
        return [(self.position(value), short(value)) for value in shown]

    def _plain(self, value: float) -> float:
        return math.log(value) if self.kind == "log" else value


def scale_of(values: Sequence[Any]) -> Scale:
    """Returns the scale on which values are spread more evenly.

    Args:
      values: Different values of an axis, numbers ascending.
    """
    values = tuple(values)
    if not all(map(is_number, values)):
        return Scale("names", values)
    if values[0] <= 0:
        return Scale("linear", values)
    if len(values) <= 2:
        return Scale("log" if values[-1] >= 5 * values[0] else "linear", values)
    numbers = np.array(values, np.float64)
    uneven = _unevenness(numbers) > _unevenness(np.log(numbers)) + 1e-9
    return Scale("log" if uneven else "linear", values)


def _unevenness(ascending: np.ndarray) -> float:
    """Returns how far values are from even steps between the first and the last, at most."""
    steps = (ascending - ascending[0]) / (ascending[-1] - ascending[0])
    return float(np.abs(steps - np.linspace(0, 1, len(steps))).max())


def _powers(low: float, high: float) -> list[float]:
    """Returns the powers of ten between two numbers; where they are few, 2 and 5 times them too."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        shown = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(shown) >= 3:
            break
    return shown


def _round_numbers(low: float, high: float) -> list[float]:
    """Returns about five round numbers between two numbers."""
    if low == high:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= max((f for f in (1, 2, 5) if f * step <= (high - low) / 4), default=1)
    first = math.ceil(low / step)
    return [step * k for k in range(first, math.floor(high / step) + 1)]


def score_label(criterion: Criterion, metrics: Sequence[Metric] = (ACCURACY, LOSS)) -> str:
    """Returns what the score of a configuration is: "validation accuracy, best round (%)"."""
    _, unit = unit_of(criterion.metric, metrics)
    return f"{name_of(criterion.metric, metrics)}, {criterion.at} round{unit}"


def name_of(key: str, metrics: Sequence[Metric] = (ACCURACY, LOSS)) -> str:
    """Returns a record's key in words.

    Args:
      key: Such as "eval/test/accuracy".
      metrics: Of the task; the first one is spread over clients.

    Example:
      >>> name_of("eval/val/loss"), name_of("eval/clients/p10")
      ('validation loss', 'accuracy, p10 over clients')
    """
    rows, name = split(key), key.rpartition("/")[2]
    if rows in ("clients", "personal") and name in SPREAD:
        own = " of their own models" if rows == "personal" else ""
        return f"{spread_metric(metrics).name}, {name} over clients{own}".replace("_", " ")
    if rows == "comm":
        return name.replace("_", " ")
    return f"{_SPLITS.get(rows, rows)} {name}".replace("_", " ")


def unit_of(key: str, metrics: Sequence[Metric] = (ACCURACY, LOSS)) -> tuple[float, str]:
    """Returns (factor, unit) in which a record's key is shown: accuracies in percent.

    Args:
      key: Such as "eval/test/accuracy".
      metrics: Of the task.

    Example:
      >>> unit_of("eval/test/error", [fljax.tasks.Metric("error", "lower", unit="m²")])
      (1.0, ' (m²)')
    """
    metric = metric_of(key, metrics)
    if (metric.name if metric else key.rpartition("/")[2]) in _SHARES:
        return 100.0, " (%)"
    return 1.0, f" ({metric.unit})" if metric and metric.unit else ""


def number(score: float) -> str:
    """Returns a score with three decimals, or three digits where these say little or too much."""
    if 10 <= abs(score) < 1e3:
        return f"{score:.1f}"
    return f"{score:.3f}" if score == 0 or 1e-2 <= abs(score) < 10 else f"{score:.3g}"


def note(configuration: Configuration) -> str:
    """Returns what a mean does not tell: trials that did not come to their end."""
    if configuration.diverged:
        return f"{configuration.diverged} of {len(configuration.trials)} diverged"
    stopped = [status.round for status in configuration.statuses if status.state == "stopped"]
    all_stopped = len(stopped) == len(configuration.trials)
    return f"stopped at {max(stopped)}" if all_stopped else ""
