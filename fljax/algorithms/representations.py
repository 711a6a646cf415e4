"""Representations of rows with one class each, for the algorithms that look at them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask


def represented(task: LocalTask, model: Variables, batch) -> jax.Array:
    """Returns float[B, D], what the last layer reads of each row in evaluation mode."""
    found, _, _ = task.representation(*model, batch, None, False)
    return found.reshape(len(found), -1)


def check_classifies(name: str, task: LocalTask) -> None:
    """Raises ValueError for tasks without one class an example."""
    has_classes = task.num_classes is not None and task.judge is not None
    if has_classes and task.like is not None:
        has_classes = len(jax.eval_shape(task.targets, dict(task.like)).shape) == 1
    if not has_classes:
        raise ValueError(
            f"{name} needs one class for each example, as tasks.classification has it. Use another "
            "algorithm, such as ditto."
        )


def labels_of(task: LocalTask, batch) -> jax.Array:
    """Returns int[B], the class of each row; 0 in padding."""
    return jnp.where(batch["mask"], task.targets(batch), 0)
