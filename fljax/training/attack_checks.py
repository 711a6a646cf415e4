"""Tells attacks what a run knows of its data, and refuses those that do not fit them."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

from fljax.core.task import Task
from fljax.core.transforms import Pipeline
from fljax.data.dataset import FederatedDataset
from fljax.robustness.attack import Attack
from fljax.training.triggered_rows import opened_split

# Training rows among which the largest number is looked for.
_LOOKED_AT = 1000


def facts_of(dataset: FederatedDataset, task: Task, attack: Any) -> dict[str, Any]:
    """Returns {parameter: value} of what attacks and rules by name may ask for.

    Args:
      dataset, task: Of the run.
      attack: As the options have it; rows are read for one that a text names alone.

    Returns:
      num_clients; members, those without the server's own; classes, 0 where there are none; root,
      the server's own client, or None; largest, the largest number among inputs as they are stored,
      or None where these are several arrays or nobody asks.
    """
    return {
        "num_clients": dataset.num_clients,
        "members": dataset.members,
        "classes": task.num_classes or dataset.num_classes or 0,
        "root": dataset.root,
        "largest": _largest(dataset) if isinstance(attack, str) else None,
    }


def check_relabelling(attack: Attack, num_classes: int | None) -> None:
    """Raises ValueError for an attack that makes labels beyond the classes, or changes none.

    Args:
      attack: Whose numbers are Python's.
      num_classes: Of the task; None where that has none.
    """
    if num_classes is None:
        return
    classes = np.arange(num_classes)
    for relabelled in attack.labels:
        made = np.asarray(relabelled(classes))
        beyond = made[(made < 0) | (made >= num_classes)]
        if beyond.size:
            raise ValueError(
                f"attack makes the label {beyond[0]}, and the classes of the task are 0 to "
                f"{num_classes - 1}. Make it for {num_classes} classes."
            )
        if (made == classes).all():
            raise ValueError(
                f"attack changes none of the labels 0 to {num_classes - 1}, and would have no "
                "effect. Name a source among them, and another target."
            )


def check_trigger(dataset: FederatedDataset, task: Task, pipeline: Pipeline) -> None:
    """Checks that a backdoor says a class of the task, and warns where nobody can judge it.

    Raises:
      ValueError: If it says another class.
    """
    trigger, classes = pipeline.trigger, task.num_classes
    if trigger is None:
        return
    if classes is not None and not 0 <= trigger.target < classes:
        raise ValueError(
            f"the backdoor's target = {trigger.target} is no class of the task, which are 0 to "
            f"{classes - 1}. Choose one of them."
        )
    if opened_split(dataset) is None:
        warnings.warn(
            f"a backdoor is judged on test, validation or held-out rows, and {dataset.name!r} has "
            "none: nothing will tell of its success. Give it test rows, or set val_fraction, such "
            "as 0.1.",
            stacklevel=2,
        )


def _largest(dataset: FederatedDataset) -> float | None:
    """Returns the largest finite number of evenly spaced training inputs, of one array."""
    examples = dataset.train.examples
    spec = examples.spec["x"]
    if not isinstance(spec, jax.ShapeDtypeStruct) or not examples.num_examples:
        return None
    rows = np.linspace(0, examples.num_examples - 1, _LOOKED_AT).astype(np.int64)
    x = np.asarray(examples.take(np.unique(rows))["x"])
    finite = x[np.isfinite(x)]
    return float(finite.max()) if finite.size else None
