"""Functions of one row, for any leading axes: one row after another on CPUs, else side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import sequential_vmap


def for_each_row(function: Callable, x: jax.Array, *common: Any, axes: int = 1) -> Any:
    """Applies a function to each row.

    On a CPU, also `jax.vmap` around it makes a loop: side by side, rows of a million numbers take
    up to four times as long. Such a loop has no reverse-mode derivative.

    Args:
      function: (row, *common) -> pytree of arrays.
      x: [..., row].
      *common: Pytrees that all rows share.
      axes: Number of axes of a row.

    Returns:
      What the function returns, with the leading axes of x in front.
    """
    if jax.default_backend() == "cpu":
        function = sequential_vmap(function)
    for _ in range(x.ndim - axes):
        function = jax.vmap(function, in_axes=(0, *(None for _ in common)))
    return function(x, *common)
