"""Finds the hidden units of a model: which axes of its arrays a narrower model has less of.

Nothing is asked of the model. Its training loss is traced, and axes are followed through the
equations (`fljax.core.unit_flow`). Hidden units are what a product with parameters makes and
another one sums over: neurons between dense layers, filters between convolutions, with their biases
and what normalizes each of them by itself. Inputs and outputs are none. A model of which some
hidden units cannot be divided is refused, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Variables
from fljax.core.axes import Axis, Part, axis_of, pieces_of
from fljax.core.gradients import LocalTask
from fljax.core.trees import leaf_paths
from fljax.core.unit_flow import Flow, Layers, follow
from fljax_kernels.forms import choosing

PyTree = Any

# Layers that an error lists.
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Places:
    """The axes of an array on which hidden units lie; a leaf of trees.

    Attributes:
      axes: Of each axis, (size, number of the layer of units, or None) of each of its parts, whose
        sizes multiply to its length.
    """

    axes: tuple[tuple[tuple[int, int | None], ...], ...]

    def mask(self, held: Sequence[jax.Array]) -> jax.Array | None:
        """Returns which entries of the array a narrower model has.

        Args:
          held: bool[n] of each layer of units, those that it has.

        Returns:
          bool, of a shape that broadcasts to the array's; None where it has no hidden units.

        Example:
          >>> flattened = Places((((2, None), (3, 0)), ((4, None),)))
          >>> flattened.mask([jnp.array([True, False, False])])[:, 0].astype(int).tolist()
          [1, 0, 0, 1, 0, 0]
        """
        found = None
        for number, parts in enumerate(self.axes):
            if all(layer is None for _, layer in parts):
                continue
            along = jnp.ones((), bool)
            for size, layer in parts:
                part = jnp.ones(size, bool) if layer is None else held[layer]
                along = along[..., None] & part
            shape = [-1 if axis == number else 1 for axis in range(len(self.axes))]
            along = along.reshape(shape)
            found = along if found is None else found & along
        return found


class HiddenUnits(NamedTuple):
    """The hidden units of a model.

    Attributes:
      sizes: How many each layer of units has.
      places: `Variables` of `Places`.
      made_by: Pytree of bools like the parameters: whether a leaf is a kernel that makes hidden
        units, or the bias that is added to what it makes.
    """

    sizes: tuple[int, ...]
    places: Variables
    made_by: PyTree


def hidden_units(task: LocalTask, variables: Variables) -> HiddenUnits:
    """Returns the hidden units of a task's model.

    Args:
      task: The task; it must know the shapes of a batch.
      variables: The model; shapes will do.

    Raises:
      ValueError: If there are none, or if some cannot be divided.

    Example:
      >>> task = tasks.classification(models.mlp((4, 8, 3)), num_classes=3)
      >>> params, frozen, state = task.init(jax.random.key(0))
      >>> like = {"x": jnp.ones((2, 4)), "y": jnp.zeros(2, int), "mask": jnp.ones(2, bool)}
      >>> bound = fljax.core.gradients.bind(task, frozen, like=like)
      >>> units = hidden_units(bound, Variables(params, state))
      >>> units.sizes, units.made_by["layers"]["1"]
      ((8,), {'bias': False, 'kernel': False})
    """
    if task.like is None:
        raise ValueError("The hidden units of a model are found with the shapes of a batch.")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    params, state = map(jax.tree.leaves, shapes)
    axes, layers = _followed(task, shapes)
    numbers: dict[Part, int] = {}
    for of_leaf in axes:
        for part in (cell.part for axis in of_leaf for cell in pieces_of(axis)):
            if part.read and (part.made or part.lost):
                numbers.setdefault(part, len(numbers))
    paths = [*leaf_paths(shapes.params), *leaf_paths(shapes.model_state)]
    _check(numbers, axes, paths)
    places = [Places(tuple(_places(axis, numbers) for axis in of_leaf)) for of_leaf in axes]
    structures = [jax.tree.structure(tree) for tree in shapes]
    split = [places[: len(params)], places[len(params) :]]
    made = _made_by(layers, numbers)
    return HiddenUnits(
        sizes=tuple(part.size for part in numbers),
        places=Variables(*map(jax.tree.unflatten, structures, split)),
        made_by=jax.tree.unflatten(structures[0], [n in made for n in range(len(params))]),
    )


def _followed(task: LocalTask, shapes: Variables) -> tuple[list[list[Axis]], Layers]:
    """Returns the axes of all leaves as the equations of the loss tie them together."""

    def losses(variables, batch):
        return task.loss(*variables, batch, jax.random.key(0), True)

    # as written, without what makes them fast
    with choosing(conv="grouped", stored="plain"):
        jaxpr = jax.make_jaxpr(losses)(shapes, dict(task.like)).jaxpr
    num_params, num_own = len(jax.tree.leaves(shapes.params)), len(jax.tree.leaves(shapes))
    flows = []
    for number, var in enumerate(jaxpr.invars):
        own = number < num_own
        axes = [axis_of(n, dead=own, reason=None if own else "") for n in var.aval.shape]
        leaves = None if not own else frozenset([number] if number < num_params else [])
        flows.append(Flow(axes, leaves, learned=own))
    layers = Layers({}, {})
    try:
        follow(jaxpr, flows, layers)
    except ValueError as error:
        raise ValueError(f"The model cannot be divided into hidden units: {error}.") from None
    return [flow.axes for flow in flows[:num_own]], layers


def _places(axis: Axis, numbers: dict[Part, int]) -> tuple[tuple[int, int | None], ...]:
    return tuple((cell.part.size, numbers.get(cell.part)) for cell in pieces_of(axis))


def _made_by(layers: Layers, numbers: dict[Part, int]) -> set[int]:
    """Returns the numbers of the parameters that make hidden units."""
    kernels = {
        leaf
        for leaf, units in layers.kernels.items()
        if any(cell.part in numbers for cell in pieces_of(units))
    }
    return kernels | {bias for bias, kernel in layers.biases.items() if kernel in kernels}


def _check(numbers: dict[Part, int], axes: list[list[Axis]], paths: list[str]) -> None:
    """Raises ValueError unless there are hidden units, and all can be divided."""
    if not numbers:
        raise ValueError(
            "The model has no hidden units to divide: no layer reads what another one makes. Use a "
            "model with hidden layers, such as models.mlp((784, 200, 10))."
        )
    problems: dict[str, list[str]] = {}
    for part in numbers:
        reason = "taken apart into groups" if part.grouped else part.reason
        if reason is None:
            continue
        where = [
            path
            for path, of_leaf in zip(paths, axes, strict=True)
            if any(cell.part is part for axis in of_leaf for cell in pieces_of(axis))
        ]
        problems.setdefault(reason or "tied to the inputs", []).extend(where)
    if not problems:
        return
    told = []
    for reason, where in problems.items():
        names = list(dict.fromkeys(where))
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        told.append(f"those of {', '.join(names[:_LISTED])}{more} are {reason}")
    raise ValueError(
        f"The model's hidden units cannot be divided: {'; '.join(told)}. A narrower model would "
        "compute something else there. Use dense and convolutional layers, and norms that treat "
        "each unit by itself, such as batch normalization."
    )
