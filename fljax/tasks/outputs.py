"""Says how many outputs a task wants of a model by name, where the data have no classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fljax.core import parts

Spec = Mapping[str, Any]

# What a task's function calls the number of its model's outputs.
NAMES = ("outputs", "num_labels", "num_classes", "dimensions")


def of_targets(spec: Spec) -> int:
    """Returns how many numbers a row has as targets: K of [K], 1 of a single one.

    Args:
      spec: {"x", "y"}: shape and dtype of a row, as `Examples.spec` of the data set.

    Raises:
      ValueError: For targets of another shape, or several.

    Example:
      >>> from fljax.tasks.outputs import of_targets
      >>> of_targets({"y": jax.ShapeDtypeStruct((3,), jnp.float32)})
      3
    """
    targets = jax.tree.leaves(spec["y"])
    if len(targets) != 1 or len(targets[0].shape) > 1:
        found = " and ".join(str(list(each.shape)) for each in targets)
        raise ValueError(
            f"a row has one target, or several in a row, and y is of the shape {found} here. Give "
            "the task a model and targets of its own: docs/tasks.md."
        )
    return math.prod(targets[0].shape)


def of_inputs(spec: Spec) -> int:
    """Returns how many numbers a row has as inputs.

    Example:
      >>> from fljax.tasks.outputs import of_inputs
      >>> of_inputs({"x": jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)})
      64
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(spec["x"]))


def num_outputs(
    call: parts.Call,
    table: Mapping[str, Callable[[Spec], int]],
    spec: Spec | None,
    num_classes: int | None,
) -> int | None:
    """Returns how many outputs a task by name wants of its model; None if nobody says so.

    Its text may say it, as in "segmentation(num_classes=3)", or `table` by the data, or these have
    classes; a function of the user's own that names a parameter `outputs` gets as many as a row has
    targets.
    """
    said = [number for name, number in written(call).items() if name in NAMES]
    if said and isinstance(said[0], int):  # of anything else, the task says what is wrong
        return said[0]
    names = {parameter.name for parameter in parts.parameters_of(call.function)}
    rule = table.get(call.name)
    if rule is None and num_classes is not None:
        return num_classes
    if rule is None and call.is_own and "outputs" in names:
        rule = of_targets
    if rule is None and spec is not None and "num_classes" in names and _are_integers(spec["y"]):
        raise ValueError(
            f"{call.where}: the data do not say of how many classes their integers are. Write "
            f"{call.name}(num_classes=...)."
        )
    return None if rule is None or spec is None else rule(spec)


def _are_integers(targets: Any) -> bool:
    return all(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(targets))


def written(call: parts.Call) -> dict[str, Any]:
    """Returns {parameter: argument} of a task's text."""
    return parts.written(call, ("model",))
