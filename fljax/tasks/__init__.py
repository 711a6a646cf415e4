"""Tasks: a model together with its loss and its metrics.

A task is a record of pure functions, `Task`. The functions of `TASKS` make one of a model (see
`fljax.core.network`), and `supervised` makes one of a loss of one's own (docs/tasks.md). A problem
of another kind fills the record itself, as docs/extending.md shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fljax.core import parts
from fljax.core.metrics import Metric, Sum
from fljax.core.network import Network, from_functions, from_linen, from_nnx
from fljax.core.task import Measured, Task
from fljax.core.values import shown
from fljax.tasks import outputs
from fljax.tasks.augmentation import AUGMENTATIONS, Augmentation, augmented
from fljax.tasks.autoencoding import autoencoder
from fljax.tasks.binary import binary
from fljax.tasks.class_weights import balanced_weights
from fljax.tasks.concordance import concordance
from fljax.tasks.contrastive import DIMENSIONS, contrastive
from fljax.tasks.integer_targets import classification, next_token, softmax_cross_entropy
from fljax.tasks.masked_tokens import masked_token
from fljax.tasks.multi_label import multi_label
from fljax.tasks.outputs import Spec, of_inputs, of_targets
from fljax.tasks.ranked import auc, auc_of_histograms
from fljax.tasks.recommendation import recommendation
from fljax.tasks.regression import regression
from fljax.tasks.segmentation import segmentation
from fljax.tasks.supervised import supervised
from fljax.tasks.survival import survival

__all__ = [
    "AUGMENTATIONS",
    "TASKS",
    "Augmentation",
    "Measured",
    "Metric",
    "Network",
    "Sum",
    "Task",
    "auc",
    "auc_of_histograms",
    "augmented",
    "autoencoder",
    "balanced_weights",
    "binary",
    "classification",
    "concordance",
    "contrastive",
    "from_functions",
    "from_linen",
    "from_nnx",
    "make",
    "masked_token",
    "multi_label",
    "next_token",
    "num_outputs",
    "recommendation",
    "regression",
    "segmentation",
    "softmax_cross_entropy",
    "supervised",
    "survival",
    "takes_model",
]

# name -> function (model, num_classes or outputs, **options) -> Task
TASKS: dict[str, Callable[..., Task]] = {
    "classification": classification,
    "next_token": next_token,
    "binary": binary,
    "multi_label": multi_label,
    "regression": regression,
    "masked_token": masked_token,
    "segmentation": segmentation,
    "survival": survival,
    "recommendation": recommendation,
    "autoencoder": autoencoder,
    "contrastive": contrastive,
}

# name -> (spec of a row) -> how many outputs a model by name has, of tasks that learn no classes
OUTPUTS: dict[str, Callable[[Spec], int]] = {
    "multi_label": of_targets,
    "regression": of_targets,
    "survival": lambda spec: 1,
    "autoencoder": of_inputs,
    "contrastive": lambda spec: DIMENSIONS,
}


def takes_model(name: str) -> bool:
    """Returns whether a task by name is one of a model that it is given.

    Example:
      >>> tasks.takes_model("next_token")
      True
    """
    parameters = parts.parameters_of(parts.read_one("task", name, TASKS).function)
    return any(each.name == "model" or each.kind is each.VAR_KEYWORD for each in parameters)


def num_outputs(name: str | None, num_classes: int | None, spec: Spec | None = None) -> int | None:
    """Returns how many outputs a model by name has: one for each class, or as the task wants.

    Args:
      name: The task, as for `make`; None is what the data are made for.
      num_classes: Of the data, or None.
      spec: {"x", "y"}: shapes and dtypes of a row.

    Returns:
      The number; None if neither the data nor the task say it.

    Example:
      >>> tasks.num_outputs("regression", None, {"y": jax.ShapeDtypeStruct((2,), jnp.float32)})
      2
    """
    if name is None:
        return num_classes
    return outputs.num_outputs(parts.read_one("task", name, TASKS), OUTPUTS, spec, num_classes)


def make(name: str, model: Any, num_classes: int | None, spec: Spec | None = None) -> Task:
    """Returns a task by name.

    Args:
      name: One of `TASKS`, a call of one, or "module:function" of your own, which gets those of
        `model`, `num_classes` and `outputs` that it names and returns a Task.
      model: What the task trains; None where it makes its own.
      num_classes: Number of classes, or size of the vocabulary; None of targets without classes.
      spec: {"x", "y"}: shapes and dtypes of a row, of which tasks without classes take how many
        outputs they have.

    Raises:
      ValueError: For an unknown name or argument, a model that the task does not take, or where a
        function of your own returns something else.

    Example:
      >>> tasks.make("classification", models.mlp((4, 3)), 3)
      Task('classification', 3 classes)
    """
    call = parts.read_one("task", name, TASKS)
    unsaid = {each.name for each in parts.parameters_of(call.function)} - {*outputs.written(call)}
    needs_classes = "num_classes" in unsaid
    if num_classes is None and needs_classes and not call.is_own:
        raise ValueError(
            f"{call.where} learns classes, and these data have none: their targets are numbers of "
            "another kind. Give integers or texts as y, with kind='classification', name a task of "
            "such numbers (regression), or a task of your own, my_module:my_task."
        )
    offered: dict[str, Any] = {}
    if (num_classes is not None or call.is_own) and "num_classes" not in outputs.written(call):
        offered["num_classes"] = num_classes
    wanted = [each for each in ("outputs", "num_labels") if each in unsaid]
    if wanted and spec is not None and (num_classes is None or call.name in OUTPUTS):
        offered[wanted[0]] = num_outputs(name, None, spec)
    if model is not None:
        if not takes_model(name):
            raise ValueError(
                f"{call.where} takes no model, and is given one. Leave the model out, or let "
                f"{call.name} name a parameter `model`."
            )
        offered["model"] = model
    said = {"model": "the key 'model'", **dict.fromkeys(outputs.NAMES, "the data")}
    task = parts.make(call, offered=offered, said=said)
    if not isinstance(task, Task):
        raise ValueError(
            f"{call.where}: {call.name} returned {shown(task)} ({type(task).__name__}), and a task "
            "is a fljax.tasks.Task, such as fljax.tasks.classification(model, num_classes) makes."
        )
    return task
