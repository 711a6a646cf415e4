"""Chooses the metrics of a task by their names."""

from __future__ import annotations

from collections.abc import Sequence

from fljax.core.metrics import LOSS, Metric
from fljax.core.values import Field, checked


def chosen(
    names: Sequence[str] | None, known: Sequence[Metric], default: Sequence[str]
) -> tuple[Metric, ...]:
    """Returns metrics by name, in that order; the first one chooses rounds, models and trials.

    Args:
      names: Names of `known`, or one; None for the default. The loss comes last where it is not
        named: every task has it.
      known: All metrics of the task.
      default: Names of those it has where nobody asks.

    Raises:
      ValueError: For an unknown name, one said twice, or none at all.
    """
    by_name = {metric.name: metric for metric in known}
    asked = Field(None, tuple, tuple(by_name), optional=True)
    names = checked("metrics", names, asked)
    if names is not None and not names:
        raise ValueError(
            f"metrics = {names!r} names none. Leave it out, or name some of {', '.join(by_name)}."
        )
    names = list(default if names is None else names)
    return tuple(by_name[name] for name in dict.fromkeys([*names, LOSS.name]))
