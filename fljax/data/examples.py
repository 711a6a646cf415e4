"""Examples: flat arrays, or a function of row numbers; all clients' rows in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from fljax.data.tables import as_array, numbers_of
from fljax.data.values import check_range


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ArrayExamples:
    """Examples held in arrays (in memory, or `np.memmap`) whose first axis counts examples.

    Raises:
      ValueError: If the arrays differ in length, are none of numbers, or hold 64-bit values beyond
        the range of the 32-bit types in which JAX will hold them.

    Example:
      >>> examples = data.ArrayExamples({"x": np.eye(3), "y": np.array([0, 1, 0])})
      >>> examples.take(np.array([2, 0]))['y'].tolist()
      [0, 0]
    """

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self):
        arrays = {name: _numeric(values, name) for name, values in self.arrays.items()}
        object.__setattr__(self, "arrays", arrays)
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"all arrays need the same number of examples, not {lengths}")
        for name, values in arrays.items():
            check_range(values, name)

    def __repr__(self) -> str:
        return f"ArrayExamples({self.num_examples:,} examples: {shapes(self.spec)})"

    @property
    def num_examples(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in self.arrays.items()}

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in self.arrays.values())

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns {name: array} of the examples at these rows, of shape rows.shape + example."""
        return {name: np.asarray(values[rows]) for name, values in self.arrays.items()}


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
      spec: {name: shape and dtype of one example}.
      arrays: None; nothing is stored.

    Example:
      >>> kinds = {"x": np.float32, "y": np.int64}
      >>> spec = {name: jax.ShapeDtypeStruct((), kind) for name, kind in kinds.items()}
      >>> make = lambda rows: {"x": rows.astype(np.float32), "y": rows % 2}
      >>> data.LazyExamples(10, make, spec).take(np.array([3]))["y"].tolist()
      [1]
    """

    num_examples: int
    generate: Callable[[np.ndarray], dict[str, np.ndarray]]
    spec: Mapping[str, jax.ShapeDtypeStruct]
    arrays: None = dataclasses.field(default=None, init=False)

    def __repr__(self) -> str:
        return f"LazyExamples({self.num_examples:,} examples: {shapes(self.spec)})"

    @property
    def nbytes(self) -> int:
        """Bytes that all examples would occupy."""
        row_bytes = sum(
            int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in self.spec.values()
        )
        return self.num_examples * row_bytes

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns {name: array} of the examples at these rows, of shape rows.shape + example.

        Raises:
          ValueError: If what is generated is not what `spec` says, or JAX could not hold it.
        """
        rows = np.asarray(rows, np.int64)
        batch = self.generate(rows.ravel())
        if missing := sorted(self.spec.keys() - batch.keys()):
            raise ValueError(f"generate returns no {missing[0]!r}, which spec names")
        return {
            name: self._checked(name, batch[name], rows.size).reshape(rows.shape + expected.shape)
            for name, expected in self.spec.items()
        }

    def _checked(self, name: str, values: np.ndarray, rows: int) -> np.ndarray:
        values, expected = np.asarray(values), self.spec[name]
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


def shapes(spec: Mapping[str, jax.ShapeDtypeStruct]) -> str:
    """Returns types and shapes of an example for people: "x float32[64], y int32[]"."""
    return ", ".join(
        f"{name} {expected.dtype}{list(expected.shape)}" for name, expected in spec.items()
    )
