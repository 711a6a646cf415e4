"""Makes rows to check an exported model with: random ones, nobody's data."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

_ROWS = 4
_SEED = 0


def random_rows(example: Any, num_classes: int | None) -> Any:
    """Returns four random rows of the shapes and types of an example.

    Floats are normal, bytes of pictures 0 to 255, other integers below the number of classes, which
    is that of tokens where a model reads some: what is beyond has no embedding.

    Args:
      example: Shapes and dtypes of one row.
      num_classes: Of the task; None for 2.

    Example:
      >>> from fljax.export.check import random_rows
      >>> random_rows(jax.ShapeDtypeStruct((3,), jnp.uint8), 10).shape
      (4, 3)
    """
    draw = np.random.default_rng(_SEED)

    def rows(leaf):
        shape, dtype = (_ROWS, *leaf.shape), np.dtype(leaf.dtype)
        if dtype.kind == "f" or dtype.kind == "V":  # bfloat16 is of the latter kind
            return draw.normal(size=shape).astype(dtype)
        if dtype.kind == "b":
            return draw.random(shape) < 0.5
        is_picture = dtype == np.uint8 and len(leaf.shape) > 1
        most = 256 if is_picture else max(num_classes or 2, 2)
        return draw.integers(0, most, shape).astype(dtype)

    return jax.tree.map(rows, example)


def named_arrays(rows: Any, outputs: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of `check.npz`: x, or x/NAME of several, and outputs by number."""
    inputs = {f"x/{name}": array for name, array in rows.items()} if isinstance(rows, dict) else {}
    leaves = jax.tree.leaves(outputs)
    return (inputs or {"x": rows}) | {
        f"outputs{number:03}": np.asarray(leaf) for number, leaf in enumerate(leaves)
    }
