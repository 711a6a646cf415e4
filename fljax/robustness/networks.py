"""Sorts each column of a stack by a network of minima and maxima over its rows.

XLA's sort on CPUs takes some 80 ns a number; a network compares whole rows, 1 to 2 ns a number for
10 to 300 rows. Batcher's odd-even mergesort (1968) of P rows has about log2(P)^2 / 2 layers. A row
meets at most one other row in a layer, so that a layer is one minimum and maximum of two gathered
stacks, whatever P is: it compiles in under a second. Rows of which no wanted rank depends are left
out, layer by layer, from the last one on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["by_columns", "ordered"]

# Numbers of a block that is sorted on CPUs: it stays in a core's cache from layer to layer.
_BLOCK = 2**15
# Blocks that a rule takes at once.
_BLOCKS = 16


class _Layer(NamedTuple):
    """Each row that comes out is the minimum or the maximum of two that go in.

    Attributes:
      first, second: uint32[rows out], places among the rows in; the same where nothing is compared.
      takes_minimum: bool[rows out].
    """

    first: np.ndarray
    second: np.ndarray
    takes_minimum: np.ndarray


def ordered(rows: jax.Array, ranks: Sequence[int]) -> jax.Array:
    """Returns the rows of some ranks of a stack whose columns are sorted, ascending.

    Args:
      rows: float[P, d] without NaN; infinities are numbers like others.
      ranks: Of the wanted rows, ascending, each once: 0 for the minima, P - 1 for the maxima.

    Returns:
      float[len(ranks), d].

    Example:
      >>> rows = jnp.array([[3.0, 0.0], [1.0, 9.0], [2.0, 5.0]])
      >>> ordered(rows, [0, 2]).tolist()
      [[1.0, 0.0], [3.0, 9.0]]
    """
    if jax.default_backend() != "cpu":
        return _sorted(rows, ranks)
    return _in_turn(lambda block: _sorted(block, ranks), rows, len(ranks), _width(len(rows)))


def by_columns(rule: Callable[[jax.Array], jax.Array], stack: jax.Array) -> jax.Array:
    """Applies a rule to a stack, on CPUs to some columns after others.

    Args:
      rule: [P, c] -> [c], which makes each column's number of that column alone.
      stack: [P, d].

    Returns:
      [d].

    Example:
      >>> by_columns(lambda block: block.max(0), jnp.array([[1.0, 5.0], [4.0, 2.0]])).tolist()
      [4.0, 5.0]
    """
    if jax.default_backend() != "cpu":
        return rule(stack)
    width = _BLOCKS * _width(len(stack))
    return _in_turn(lambda block: rule(block)[None], stack, 1, width)[0]


def _width(size: int) -> int:
    """Returns how many columns of so many rows are sorted at once on CPUs."""
    return 2 ** max(4, (_BLOCK // size).bit_length() - 1)


def _in_turn(rule: Callable, stack: jax.Array, rows: int, width: int) -> jax.Array:
    """Returns [rows, d] of a rule that makes [rows, width] of [P, width], one after another."""
    columns = stack.shape[1]
    if columns <= width:
        return rule(stack)

    def block(number, found):
        # the last block begins earlier, and finds some numbers twice
        start = jnp.minimum(number * width, columns - width)
        own = rule(jax.lax.dynamic_slice_in_dim(stack, start, width, axis=1))
        return jax.lax.dynamic_update_slice_in_dim(found, own, start, axis=1)

    found = jnp.zeros((rows, columns), stack.dtype)
    return jax.lax.fori_loop(0, -(-columns // width), block, found)


def _sorted(rows: jax.Array, ranks: Sequence[int]) -> jax.Array:
    start, layers = _network(len(rows), tuple(ranks))
    rows = _taken(rows, start)
    for layer in layers:
        one, other = _taken(rows, layer.first), _taken(rows, layer.second)
        least, most = jnp.minimum(one, other), jnp.maximum(one, other)
        rows = jnp.where(layer.takes_minimum[:, None], least, most)
    return rows


def _taken(rows: jax.Array, places: np.ndarray) -> jax.Array:
    return rows.at[places].get(mode="promise_in_bounds")


@functools.lru_cache(maxsize=32)
def _network(size: int, ranks: tuple[int, ...]) -> tuple[np.ndarray, list[_Layer]]:
    """Returns the rows that matter at all, and the layers that bring those of some ranks out."""
    wanted = np.asarray(ranks)
    layers = []
    for partner in reversed(_partners(size)):
        meets = partner[wanted]
        needed = np.union1d(wanted, meets)
        first, second = (np.searchsorted(needed, rows) for rows in (wanted, meets))
        layers.append(_Layer(first.astype(np.uint32), second.astype(np.uint32), wanted < meets))
        wanted = needed
    return wanted.astype(np.uint32), layers[::-1]


def _partners(size: int) -> list[np.ndarray]:
    """Returns int[P] for each layer: whom a row is compared with, itself where with nobody.

    Knuth's Algorithm M (The Art of Computer Programming, volume 3, section 5.2.2), with rows above
    P left out, which would hold infinities.
    """
    rows, found = np.arange(size), []
    powers = [2**power for power in range((size - 1).bit_length())]
    for half in powers:  # sorted runs of so many rows are merged by twos
        for distance in reversed([power for power in powers if power <= half]):
            offset = rows - distance % half
            lower = (offset >= 0) & (offset // distance % 2 == 0) & (rows + distance < size)
            lower &= rows // (2 * half) == (rows + distance) // (2 * half)
            partner = rows.copy()
            partner[lower] += distance
            partner[partner[lower]] = rows[lower]
            found.append(partner)
    return found
