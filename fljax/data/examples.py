"""Examples: flat arrays, or a function of row numbers; all clients' rows in one place.

An example is {"x": ..., "y": ...}. Each of them is an array, or a dict or tuple of arrays where a
model has several inputs or a task several targets.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.digits import counted
from fljax.data.tables import as_array, numbers_of
from fljax.data.values import check_range


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ArrayExamples:
    """Examples held in arrays (in memory, or `np.memmap`) whose first axis counts examples.

    Attributes:
      arrays: {name: array, or dict or tuple of arrays}.

    Raises:
      ValueError: If the arrays differ in length, are none of numbers, or hold 64-bit values beyond
        the range of the 32-bit types in which JAX will hold them.

    Example:
      >>> examples = data.ArrayExamples({"x": np.eye(3), "y": np.array([0, 1, 0])})
      >>> examples.take(np.array([2, 0]))['y'].tolist()
      [0, 0]
    """

    arrays: Mapping[str, Any]

    def __post_init__(self):
        arrays = {name: each_array(_numeric, array, name) for name, array in self.arrays.items()}
        object.__setattr__(self, "arrays", arrays)
        lengths = {name: len(values) for name, values in named_arrays(arrays).items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"all arrays need the same number of examples, not {lengths}")
        for name, values in named_arrays(arrays).items():
            check_range(values, name)

    def __repr__(self) -> str:
        return f"ArrayExamples({counted(self.num_examples, 'example')}: {shapes(self.spec)})"

    @property
    def num_examples(self) -> int:
        return len(jax.tree.leaves(self.arrays)[0])

    @property
    def spec(self) -> dict[str, Any]:
        return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), self.arrays)

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in jax.tree.leaves(self.arrays))

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        """Returns {name: array} of the examples at these rows, of shape rows.shape + example."""
        return jax.tree.map(lambda values: np.asarray(values[rows]), self.arrays)


def _numeric(values, name: str) -> np.ndarray:
    """Returns an array of numbers as it is, and anything else as such an array, or refuses it."""
    if (
        isinstance(values, np.ndarray | jax.Array)
        and np.ndim(values)
        and values.dtype.kind in "fiubc"
    ):
        return values
    return numbers_of(as_array(values, name), name)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LazyExamples:
    """Examples that are generated when they are asked for.

    Attributes:
      num_examples: How many there are.
      generate: Maps int64[R] row numbers to {name: array[R, ...]}; the same row always gives the
        same example, whatever the other rows are.
      spec: {name: shape and dtype of one example, or dict or tuple of such}.
      arrays: None; nothing is stored.

    Example:
      >>> kinds = {"x": np.float32, "y": np.int64}
      >>> spec = {name: jax.ShapeDtypeStruct((), kind) for name, kind in kinds.items()}
      >>> make = lambda rows: {"x": rows.astype(np.float32), "y": rows % 2}
      >>> data.LazyExamples(10, make, spec).take(np.array([3]))["y"].tolist()
      [1]
    """

    num_examples: int
    generate: Callable[[np.ndarray], dict[str, Any]]
    spec: Mapping[str, Any]
    arrays: None = dataclasses.field(default=None, init=False)

    def __repr__(self) -> str:
        return f"LazyExamples({counted(self.num_examples, 'example')}: {shapes(self.spec)})"

    @property
    def nbytes(self) -> int:
        """Bytes that all examples would occupy."""
        return self.num_examples * row_bytes(self.spec)

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        """Returns {name: array} of the examples at these rows, of shape rows.shape + example.

        Raises:
          ValueError: If what is generated is not what `spec` says, or JAX could not hold it.
        """
        rows = np.asarray(rows, np.int64)
        made, wanted = named_arrays(self.generate(rows.ravel())), named_arrays(self.spec)
        if missing := sorted(wanted.keys() - made.keys()):
            raise ValueError(f"generate returns no {missing[0]!r}, which spec names")
        batch = [
            self._checked(name, made[name], expected, rows.size).reshape(
                rows.shape + expected.shape
            )
            for name, expected in wanted.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(dict(self.spec)), batch)

    def _checked(
        self, name: str, values: Any, expected: jax.ShapeDtypeStruct, rows: int
    ) -> np.ndarray:
        values = np.asarray(values)
        if values.dtype != expected.dtype or values.shape != (rows, *expected.shape):
            raise ValueError(
                f"generate returns {name} as {values.dtype}{list(values.shape)} for {rows} rows, "
                f"but spec says {expected.dtype}{[rows, *expected.shape]}: let them agree"
            )
        check_range(values, name)
        return values

    def materialize(self) -> ArrayExamples:
        """Returns the same examples, held in arrays."""
        return ArrayExamples(self.take(np.arange(self.num_examples)))


Examples = ArrayExamples | LazyExamples


def shapes(spec: Mapping[str, Any]) -> str:
    """Returns types and shapes of an example for people: "x float32[64], y int32[]"."""
    named = named_arrays(spec).items()
    return ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)}" for name, leaf in named)


def row_bytes(spec: Mapping[str, Any]) -> int:
    """Returns the bytes of one example."""
    return sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in jax.tree.leaves(spec))


def batch_spec(spec: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Returns the shapes of a batch as the round program gathers it, its mask included.

    Args:
      spec: {name: shape and dtype of one example}, or pytrees of such.
      rows: B.

    Example:
      >>> batch_spec({"x": jax.ShapeDtypeStruct((4,), np.float32)}, 10)["x"].shape
      (10, 4)
    """

    def batched(leaf):
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((rows, *leaf.shape), dtype)

    return {**jax.tree.map(batched, dict(spec)), "mask": jax.ShapeDtypeStruct((rows,), jnp.bool_)}


def each_array(function: Callable[[Any, str], Any], values: Any, name: str) -> Any:
    """Returns function(array, name) of an array, or of all arrays of a dict or tuple of arrays."""
    if isinstance(values, Mapping):
        return {key: each_array(function, value, f"{name}/{key}") for key, value in values.items()}
    if isinstance(values, tuple):
        made = (each_array(function, value, f"{name}/{n}") for n, value in enumerate(values))
        return type(values)(*made) if hasattr(values, "_fields") else tuple(made)
    return function(values, name)


def named_arrays(tree: Any, name: str = "") -> dict[str, Any]:
    """Returns {name: array} of all arrays of a pytree: {"x": ..., "y/height": ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    simple = (
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves
    )
    return {"/".join(filter(None, (name, path))): leaf for path, leaf in simple}
