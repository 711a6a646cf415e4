"""Makes the task of a run: of a model, of names, and of what the data say of both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fljax import models, tasks
from fljax.core.settings import OPTIONS
from fljax.core.values import checked
from fljax.data.dataset import FederatedDataset, Split

# Rows whose targets are read at a time.
_BLOCK = 2**16


def as_task(
    model: Any,
    dataset: FederatedDataset,
    name: str | None = None,
    fast_layers: bool = True,
    model_options: Mapping[str, Any] | None = None,
    init_from: str | os.PathLike | None = None,
    adapters: str | None = None,
    augmentation: str | Sequence[tasks.Augmentation] | None = None,
) -> tasks.Task:
    """Returns the model as a task that fits the dataset, with what changes its examples.

    Args:
      model: A task, a model, or the name of one, which then has as many outputs as the task wants
        for these data; None where the task of this name makes its own.
      dataset: The data.
      name: Of the task; None is what the data are made for.
      fast_layers: As for `fljax.tasks.classification`.
      model_options: Further arguments of a model by name.
      init_from, adapters, augmentation: As for `fljax.simulate`.

    Raises:
      ValueError: If task, model and data do not fit together.
    """
    made = _plain(model, dataset, name, fast_layers, model_options, init_from, adapters)
    return made if augmentation is None else tasks.augmented(made, augmentation)


def _plain(model, dataset, name, fast_layers, model_options, init_from, adapters) -> tasks.Task:
    """Returns the task of examples as they are."""
    fast_layers = checked("fast_layers", fast_layers, OPTIONS["fast_layers"])
    spec, num_classes = dict(dataset.train.examples.spec), dataset.num_classes
    if isinstance(model, str):
        shape, outputs = tuple(spec["x"].shape), tasks.num_outputs(name, num_classes, spec)
        model = models.named(model, outputs, shape, model_options or {})
    if isinstance(model, tasks.Task):
        given = {"task": name, "init_from": init_from, "adapters": adapters}
        for key, value in {**given, "fast_layers": None if fast_layers else False}.items():
            if value is not None:
                raise ValueError(
                    f"{key} = {value!r} has no effect: the model is a task already. Leave it out, "
                    "or give the model alone."
                )
        return model
    if model is not None:
        of_model = {"init_from": init_from, "adapters": adapters, "fast_layers": fast_layers}
        model = models.prepared(model, **of_model)
    if name is not None:
        return tasks.make(name, model, num_classes, spec)
    if num_classes is None:
        raise ValueError(
            f"{dataset.name!r} has targets of its own kind, and a model alone does not say what is "
            "learned of them: name the task, such as task='regression', or give a fljax.tasks.Task "
            "(docs/tasks.md)."
        )
    return tasks.TASKS[dataset.kind](model, num_classes)


def fitted(task: tasks.Task, dataset: FederatedDataset, privacy: Any = None) -> tasks.Task:
    """Returns the task with what it takes from the training targets, see `Task.fit`.

    Args:
      task: The task; one that needs nothing, or is fitted, is returned as it is.
      dataset: The data.
      privacy: What is to protect the clients, or None.

    Raises:
      ValueError: Where clients are to be protected: no noise covers what a task takes so.
    """
    if task.fit is None:
        return task
    if privacy is not None:
        raise ValueError(
            f"The task {task.kind!r} counts the labels of all clients to balance them, which no "
            "noise of privacy covers. Give it the weights as numbers that do not follow from these "
            "data."
        )
    return task.fit(_targets(dataset.train))


def _targets(split: Split) -> Iterator[Any]:
    """Yields y of the rows of a split, in blocks."""
    rows, arrays = split.rows(), split.examples.arrays
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        if arrays is None:
            yield split.examples.take(block)["y"]
        else:
            yield jax.tree.map(lambda values, block=block: np.asarray(values[block]), arrays["y"])
