"""Tasks: a model together with its loss and its metrics.

A task is a record of pure functions, `Task`. `classification` and `next_token` make one of a model
(see `fljax.core.network`); a problem of another kind fills the record itself, as
[docs/extending.md](../../docs/extending.md) shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fljax.core import parts
from fljax.core.metrics import Metric, Sum
from fljax.core.network import Network, from_functions, from_linen, from_nnx
from fljax.core.task import Measured, Task
from fljax.core.values import shown
from fljax.tasks.integer_targets import classification, next_token, softmax_cross_entropy

__all__ = [
    "TASKS",
    "Measured",
    "Metric",
    "Network",
    "Sum",
    "Task",
    "classification",
    "from_functions",
    "from_linen",
    "from_nnx",
    "make",
    "next_token",
    "softmax_cross_entropy",
]

# name -> function (model, num_classes, **options) -> Task
TASKS: dict[str, Callable[..., Task]] = {
    "classification": classification,
    "next_token": next_token,
}


def make(name: str, model: Any, num_classes: int) -> Task:
    """Returns a task by name.

    Args:
      name: One of `TASKS`, a call of one, or "module:function" of your own, which gets those of
        `model` and `num_classes` that it names and returns a Task.
      model: What the task trains.
      num_classes: Number of classes, or size of the vocabulary.

    Raises:
      ValueError: For an unknown name or argument, or where a function of your own returns something
        else.

    Example:
      >>> tasks.make("classification", models.mlp((4, 3)), 3)
      Task('classification', 3 classes)
    """
    call = parts.read_one("task", name, TASKS)
    offered = {"model": model, "num_classes": num_classes}
    said = {"model": "the key 'model'", "num_classes": "the data"}
    task = parts.make(call, offered=offered, said=said)
    if not isinstance(task, Task):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(task)} ({type(task).__name__}), and a task "
            "is a fljax.tasks.Task, such as fljax.tasks.classification(model, num_classes) makes."
        )
    return task
