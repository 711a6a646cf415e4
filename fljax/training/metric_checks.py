"""Finds metrics that a task cannot be judged by, before the first round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask
from fljax.core.metrics import HIGHER, LOSS, LOWER, Metric, Sum, client_metrics, global_metrics
from fljax.core.task import Task
from fljax.core.values import brief

# what else stands in the tables of clients
_COLUMNS = ("client", "id", "split", "examples", "weight", "rounds")


def check_metrics(
    task: Task, local: LocalTask, variables: Variables, batch: Mapping[str, Any]
) -> None:
    """Traces what a task measures, and computes its metrics of made-up sums.

    Args:
      task: The task, with its metrics.
      local: The task, bound to its constants.
      variables: Of the initial model; shapes will do.
      batch: Shapes of a batch.

    Raises:
      ValueError: If a name does not do, a sum has another shape, or a metric cannot be computed.
    """
    _check_names(task.kind, task.metrics)
    sums, counts = jax.eval_shape(local.measure, *variables, dict(batch))
    if not {"loss"} <= sums.keys() & {metric.name for metric in task.metrics}:
        raise ValueError(
            f"The task {task.kind!r} measures {', '.join(sums)}, and its metrics are "
            f"{', '.join(metric.name for metric in task.metrics)}: 'loss' must be among both."
        )
    for name, pair in sums.items():
        _check_shapes(name, [jnp.shape(leaf) for leaf in jax.tree.leaves(pair)], batch["mask"])
    counts = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.int64), counts)
    made_up = {
        name: Sum(np.ones((3, *value.shape[1:])), np.ones(3)) for name, (value, _) in sums.items()
    }
    for metric in task.metrics:
        _check_value(metric, made_up, counts)


def check_described(task: Task) -> None:
    """Refuses a task whose metrics are not described, or that measures nothing.

    Raises:
      TypeError: If `metrics` is no sequence of `Metric`, or `measure` no function.
    """
    described = isinstance(task.metrics, list | tuple) and not isinstance(task.metrics, Metric)
    if not (
        described and task.metrics and all(isinstance(metric, Metric) for metric in task.metrics)
    ):
        raise TypeError(
            f"The task {task.kind!r} has metrics = {brief(task.metrics)}; give a tuple of "
            "fljax.tasks.Metric, the one that chooses rounds first, and the loss among them."
        )
    if not callable(task.measure):
        raise TypeError(
            f"The task {task.kind!r} has measure = {brief(task.measure)}; give a function of "
            "params, frozen, model_state and batch that returns fljax.tasks.Measured."
        )


def _check_names(kind: str, metrics: Sequence[Metric]) -> None:
    names = [metric.name for metric in metrics]
    for name in names:
        if not isinstance(name, str) or "/" in name or name in _COLUMNS or names.count(name) > 1:
            raise ValueError(
                f"{name!r} cannot name a metric of the task {kind!r}: give each a name of its own, "
                f"without a slash and none of {', '.join(_COLUMNS)}."
            )
    for metric in metrics:
        if metric.better not in (HIGHER, LOWER) or (
            metric.name == LOSS.name and metric.better != LOWER
        ):
            raise ValueError(
                f"The metric {metric.name!r} of the task {kind!r} is better {metric.better!r}; say "
                f"{HIGHER!r} or {LOWER!r}, of the loss {LOWER!r}."
            )


def _check_shapes(name: str, shapes: Sequence[tuple], mask: Any) -> None:
    if len(shapes) != 2 or shapes[0][:1] != mask.shape or shapes[1] != mask.shape:
        raise ValueError(
            f"A task measures {name!r} as {', '.join(str(list(shape)) for shape in shapes)}; give "
            f"(value, weight), one of each for each of the {mask.size} rows. Only a value may have "
            "axes behind, as a histogram has."
        )


def _check_value(metric: Metric, sums: Mapping[str, Sum], counts: Any) -> None:
    if metric.of_counts and counts is None:
        raise ValueError(
            f"The metric {metric.name!r} follows from counts, and the task measures none."
        )
    try:
        global_metrics([metric], sums, counts)
        each = client_metrics([metric], sums, np.arange(3), 3).get(metric.name)
    except Exception as error:
        raise ValueError(
            f"The metric {metric.name!r} cannot be computed ({brief(error)}) from the sums "
            f"{', '.join(sums)}" + (" and the counts." if metric.of_counts else ".")
        ) from error
    if each is not None and each.shape != (3,):
        raise ValueError(
            f"The metric {metric.name!r} gives an array of shape {list(each.shape)} for 3 clients; "
            "it must give one number for each."
        )
