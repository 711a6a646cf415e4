"""Binds a task to a run's data, as algorithms see it."""

from __future__ import annotations

from typing import Any

from fljax.core.gradients import LocalTask, bind
from fljax.core.task import Task
from fljax.data.dataset import FederatedDataset
from fljax.data.examples import batch_spec


def bound(task: Task, frozen: Any, dataset: FederatedDataset, **options: Any) -> LocalTask:
    """Returns the task bound to its frozen constants and to the data.

    Args:
      task: The task.
      frozen: Constants of the model.
      dataset: The federated data.
      **options: Further arguments of `fljax.core.gradients.bind`.
    """
    options.setdefault("like", batch_spec(dataset.train.examples.spec, 1))
    population = dataset.population
    return bind(task, frozen, dataset.preprocess, population=population, **options)
