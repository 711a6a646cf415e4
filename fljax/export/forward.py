"""Makes one pure function of a trained model: from weights by name, and raw rows, to outputs.

It is the model in evaluation mode: no dropout, batch statistics as they were trained, no random
numbers. Preprocessing of the data set (scaled pixels, say) is a part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from fljax.config.prediction import Trained, spec_of
from fljax.core.trees import leaf_paths
from fljax.training.traffic import plain_forms

PyTree = Any


class Forward(NamedTuple):
    """A trained model as a function.

    Attributes:
      function: (weights, x) -> outputs, where x are rows as the data set holds them.
      weights: {name: array}; of one name in one place, as `Run.export` writes them.
      example: Shapes and dtypes of one row of x.
    """

    function: Callable[[Mapping[str, Any], PyTree], PyTree]
    weights: dict[str, np.ndarray]
    example: PyTree

    def arguments(self, rows: Any) -> tuple[dict[str, Any], PyTree]:
        """Returns the shapes of the function's arguments, x of so many rows."""
        weights = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in self.weights.items()
        }
        x = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), self.example
        )
        return weights, x

    def outputs(self, x: PyTree) -> PyTree:
        """Returns the function's outputs of some rows as NumPy arrays, in full float32."""
        with plain_forms(), jax.default_matmul_precision("highest"):
            return jax.tree.map(np.asarray, jax.jit(self.function)(self.weights, x))


def forward(trained: Trained) -> Forward:
    """Returns the function of a trained model.

    Args:
      trained: As `fljax.config.prediction.trained_model` reads it.

    Example:
      >>> from fljax.config.prediction import Trained
      >>> from fljax.core.algorithm import Variables
      >>> from fljax.export.forward import forward
      >>> task = fljax.tasks.classification(fljax.models.softmax_regression(4, 3), num_classes=3)
      >>> params, frozen, state = task.init(jax.random.key(0))
      >>> row = {"shape": [4], "dtype": "float32"}
      >>> about = {"example": {"x": row, "y": {"shape": [], "dtype": "int32"}}}
      >>> made = forward(Trained(task, Variables(params, state), frozen, None, about))
      >>> sorted(made.weights), made.function(made.weights, np.ones((2, 4), np.float32)).shape
      (['layers.0.bias', 'layers.0.kernel'], (2, 3))
    """
    spec = spec_of(trained.about)
    trees = trained.variables.params, trained.frozen, trained.variables.model_state
    leaves, structure = jax.tree.flatten(trees)
    names = _names(trees)
    # keys of random streams are no weights: they stay in the program
    constants = {name: leaf for name, leaf in zip(names, leaves, strict=True) if _is_key(leaf)}
    weights = {
        name: np.asarray(leaf)
        for name, leaf in zip(names, leaves, strict=True)
        if name not in constants
    }

    def function(weights, x):
        found = {**weights, **constants}
        params, frozen, state = jax.tree.unflatten(structure, [found[name] for name in names])
        if trained.preprocess is not None:
            rows = jax.tree.leaves(x)[0].shape[0]
            y = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), spec["y"])
            x = trained.preprocess({"x": x, "y": y})["x"]
        return trained.task.apply(params, frozen, state, x)

    return Forward(_pruned(function), weights, spec["x"])


def _pruned(function: Callable) -> Callable:
    """Returns the function without what its outputs do not need.

    Layers that draw in training, such as dropout, prepare their keys in evaluation as well, and
    converters to other formats know no random numbers.
    """

    def pruned(*arguments):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
        small = core.ClosedJaxpr(jaxpr, closed.consts)
        outputs = core.jaxpr_as_fun(small)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return pruned


def _names(trees: tuple[PyTree, ...]) -> list[str]:
    """Returns the names of all leaves; those of several trees have that of their tree first."""
    kinds = ("params", "frozen", "model_state")
    paths = [(kind, path) for kind, tree in zip(kinds, trees, strict=True)
             for path in leaf_paths(tree)]  # fmt: skip
    held = Counter(path for _, path in paths)
    return [
        ".".join((path if held[path] == 1 else f"{kind}/{path}").split("/")) or kind
        for kind, path in paths
    ]


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)
