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
from fljax.tasks.ranked import auc, binary

__all__ = [
    "TASKS",
    "Measured",
    "Metric",
    "Network",
    "Sum",
    "Task",
    "auc",
    "binary",
    "classification",
    "from_functions",
    "from_linen",
    "from_nnx",
    "make",
    "next_token",
    "softmax_cross_entropy",
    "takes_model",
]

# name -> function (model, num_classes, **options) -> Task
TASKS: dict[str, Callable[..., Task]] = {
    "classification": classification,
    "next_token": next_token,
    "binary": binary,
}


def takes_model(name: str) -> bool:
    """Returns whether a task by name is one of a model that it is given.

    Example:
      >>> tasks.takes_model("next_token")
      True
    """
    parameters = parts.parameters_of(parts.read_one("task", name, TASKS).function)
    return any(each.name == "model" or each.kind is each.VAR_KEYWORD for each in parameters)


def make(name: str, model: Any, num_classes: int | None) -> Task:
    """Returns a task by name.

    Args:
      name: One of `TASKS`, a call of one, or "module:function" of your own, which gets those of
        `model` and `num_classes` that it names and returns a Task.
      model: What the task trains; None where it makes its own.
      num_classes: Number of classes, or size of the vocabulary; None of targets without classes.

    Raises:
      ValueError: For an unknown name or argument, a model that the task does not take, or where a
        function of your own returns something else.

    Example:
      >>> tasks.make("classification", models.mlp((4, 3)), 3)
      Task('classification', 3 classes)
    """
    call = parts.read_one("task", name, TASKS)
    if num_classes is None and not call.is_own:
        raise ValueError(
            f"{call.where} learns classes, and these data have none: their targets are numbers of "
            "another kind. Give integers or texts as y, with kind='classification', or a task of "
            "your own, my_module:my_task."
        )
    offered = {"num_classes": num_classes}
    if model is not None:
        if not takes_model(name):
            raise ValueError(
                f"{call.where} takes no model, and is given one. Leave the model out, or let "
                f"{call.name} name a parameter `model`."
            )
        offered["model"] = model
    said = {"model": "the key 'model'", "num_classes": "the data"}
    task = parts.make(call, offered=offered, said=said)
    if not isinstance(task, Task):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(task)} ({type(task).__name__}), and a task "
            "is a fljax.tasks.Task, such as fljax.tasks.classification(model, num_classes) makes."
        )
    return task
