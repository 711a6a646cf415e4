"""Statements of models about rows: outputs and targets, or losses where a task has no outputs.

One compiled program holds the rows once and runs model after model over them. Outputs are read in
float64 on the host, since attacks tell 0.9999999 from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask
from fljax.core.task import Task
from fljax.data.dataset import Examples, FederatedDataset
from fljax.training.binding import bound

PyTree = Any
# Rows that a model sees at once.
_BATCH = 500
# Tasks whose outputs are the logits of one label.
_OF_CLASSES = ("classification",)


class Statements(NamedTuple):
    """Statements of M models about R rows.

    Attributes:
      losses: float64[M, R], the mean loss of each row's targets.
      logits: float64[M, R, C], of tasks that classify; None elsewhere.
      y: int64[R] the labels, where there are logits.
    """

    losses: np.ndarray
    logits: np.ndarray | None
    y: np.ndarray | None


class Asked(NamedTuple):
    """Rows that models are asked about, on the devices.

    Attributes:
      batches: {name: [K, B, ...]} the rows, padded at the end, as training batches are.
      count: How many rows there are.
      y: int64[count] labels of tasks that classify, else None.
    """

    batches: Mapping[str, PyTree]
    count: int
    y: np.ndarray | None


def asked(task: Task, examples: Examples, rows: np.ndarray) -> Asked:
    """Returns rows as models are asked about them.

    Args:
      task: What models learn.
      examples: Which hold the rows.
      rows: int[R] row numbers.
    """
    taken = examples.take(np.asarray(rows))
    size = min(_BATCH, max(len(rows), 1))
    number = -(-len(rows) // size)

    def in_batches(values):
        padded = np.zeros((number * size, *values.shape[1:]), values.dtype)
        padded[: len(values)] = values
        return jnp.asarray(padded.reshape(number, size, *values.shape[1:]))

    batches = jax.tree.map(in_batches, taken)
    batches["mask"] = in_batches(np.ones(len(rows), bool))
    y = np.asarray(taken["y"], np.int64) if has_logits(task) else None
    return Asked(batches, len(rows), y)


def make_statements(
    task: Task, dataset: FederatedDataset
) -> Callable[[Variables, PyTree, Asked], Statements]:
    """Returns the function that says what models say of rows, compiled once for all of them.

    Args:
      task: What models learn.
      dataset: Whose preprocessing rows go through.

    Returns:
      (models, leaves [M, ...]; their constants; rows) -> Statements.
    """
    reads_logits = has_logits(task)

    def of_a_batch(local: LocalTask, variables: Variables, batch):
        sums = local.measure(*variables, batch).sums["loss"]
        value, weight = sums
        losses = value / jnp.maximum(weight, 1)
        return losses, local.outputs(*variables, batch) if reads_logits else None

    @jax.jit
    def of_models(models: Variables, frozen: PyTree, batches):
        local = bound(task, frozen, dataset)

        def of_a_model(variables):
            return jax.lax.map(lambda batch: of_a_batch(local, variables, batch), batches)

        return jax.lax.map(of_a_model, models)

    def statements(models: Variables, frozen: PyTree, rows: Asked) -> Statements:
        losses, logits = jax.device_get(of_models(models, frozen, rows.batches))
        return Statements(_rows_of(losses, rows), _rows_of(logits, rows), rows.y)

    return statements


def has_logits(task: Task) -> bool:
    """Returns whether a task's outputs are logits of which each row has one label."""
    return task.kind in _OF_CLASSES and task.apply is not None


def _rows_of(values: np.ndarray | None, rows: Asked) -> np.ndarray | None:
    """Returns what was found of the rows themselves: without padding, in float64."""
    if values is None:
        return None
    flat = values.reshape(len(values), -1, *values.shape[3:])
    return np.asarray(flat[:, : rows.count], np.float64)
