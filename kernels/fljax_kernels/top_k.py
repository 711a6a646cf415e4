"""The k entries of largest magnitude, by a search for the threshold instead of a sort.

The bits of a float without its sign, read as an integer, have the order of its magnitude. The
search keeps a bracket of two such integers and counts, in each pass over the entries, how many are
at least as large as two probes: one where the k-th entry would be if the bracket were evenly
filled, which is soon almost right, and one in its middle, which halves it whatever the entries are.
A first bracket comes from a sample of the entries. It ends when exactly k entries reach the lower
end, or when a single value is left, of which the first places are taken.

On arrays of a million distinct numbers that is mostly five to ten passes, and never many more than
one for each bit. Few entries of a short array come sooner from XLA's partial sort, which on CPUs
compares the bits of float32 as integers too.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fljax_kernels.compaction import index_of_rank, true_indices
from fljax_kernels.rows import for_each_row

# entries of the sample that gives the first bracket, of arrays that are several times larger
_SAMPLE = 8192
# rows of entries that are counted in a byte each
_ROWS = 128
# a partial sort on a CPU is for arrays up to this length, for so many entries and this share
_SHORT = 8192
_FEW = 80
_FEW_OF_ALL = 1 / 16


def top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the k entries of largest magnitude, in the order of their places.

    Which ones is as in `top_k_mask`.

    Args:
      x: float[..., d].
      k: Number of entries to keep, from 1 to d.

    Returns:
      (values float[..., k], indices int32[..., k]), the indices ascending.

    Raises:
      ValueError: If k is out of range.
      TypeError: If x is not real floating point.

    Example:
      >>> values, indices = top_k(jnp.array([1.0, -3.0, 2.0]), 2)
      >>> values.tolist(), indices.tolist()
      ([-3.0, 2.0], [1, 2])
    """
    _check(x, k)
    if _sorts_sooner(x, k):
        indices = for_each_row(partial(_indices_by_sort, k=k), lax.stop_gradient(x))
    else:
        indices = true_indices(top_k_mask(x, k), k)
    return jnp.take_along_axis(x, indices, -1), indices


def top_k_mask(x: jax.Array, k: int | jax.Array) -> jax.Array:
    """Marks the k entries of largest magnitude; of equal ones those of lowest index.

    Exact for every float: -0.0 equals 0.0, denormal numbers are told apart, and NaN, whatever its
    bits, counts as larger than infinity, so that it is kept and seen. `jnp.where(mask, x, 0)` is
    what a receiver of the k entries has, and becomes part of the same loop.

    Args:
      x: float[..., d].
      k: Number of entries to keep, from 1 to d; an int32[] may be traced, and is trusted.

    Returns:
      bool[..., d], with k true entries in each row.

    Raises:
      ValueError: If k is out of range.
      TypeError: If x is not real floating point.

    Example:
      >>> top_k_mask(jnp.array([1.0, -3.0, 2.0]), 2).tolist()
      [False, True, True]
    """
    _check(x, k)
    x = lax.stop_gradient(x)
    if isinstance(k, jax.Array):
        return for_each_row(_mask_of_row, x, k)
    if k == x.shape[-1]:
        return jnp.ones(x.shape, bool)
    return for_each_row(partial(_mask_of_row, k=k), x)


def _check(x, k):
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"top_k is for real floating-point arrays, not {x.dtype}; convert it.")
    if not isinstance(k, jax.Array) and (x.ndim == 0 or not 1 <= k <= x.shape[-1]):
        raise ValueError(
            f"k = {k} entries cannot be kept of an array of shape {x.shape}; choose k from 1 to "
            "the size of its last axis."
        )


def _sorts_sooner(x, k):
    d = x.shape[-1]
    few = d <= _SHORT and k <= min(_FEW, _FEW_OF_ALL * d)
    return few and x.dtype == jnp.float32 and jax.default_backend() == "cpu"


def _indices_by_sort(x, k):
    # the bits of magnitudes, which hold one NaN and no sign, as the numbers that XLA's form is for
    keys = lax.bitcast_convert_type(magnitudes(x), x.dtype)
    return jnp.sort(lax.top_k(keys, k)[1])


class Bracket(NamedTuple):
    """Two magnitudes, as integers, between which the k-th largest lies.

    Attributes:
      low: int[], at least k entries are as large.
      high: int[], fewer than k entries are as large.
      reach_low: int32[], number of entries of at least `low`.
      reach_high: int32[], number of entries of at least `high`.
    """

    low: jax.Array
    high: jax.Array
    reach_low: jax.Array
    reach_high: jax.Array


def magnitudes(x: jax.Array) -> jax.Array:
    """Returns integers that are ordered as the magnitudes of x are; all NaN are equal."""
    dtype = jnp.dtype(f"int{8 * x.dtype.itemsize}")
    bits = lax.bitcast_convert_type(x, dtype) & jnp.iinfo(dtype).max
    return jnp.minimum(bits, _nan(x.dtype))


def _nan(dtype):
    """Returns the smallest magnitude of a NaN, which is next to infinity's."""
    return lax.bitcast_convert_type(jnp.array(jnp.inf, dtype), f"int{8 * dtype.itemsize}") + 1


def _mask_of_row(x, k):
    return mask_of_largest(magnitudes(x), _nan(x.dtype), k)


def mask_of_largest(keys: jax.Array, most: jax.Array, k: int | jax.Array) -> jax.Array:
    """Marks the k largest of int[d] keys, as `largest` takes them; of equal ones the first."""
    found = largest(keys, most, k)
    k = jnp.asarray(k, jnp.int32)

    def first_dropped():
        return index_of_rank(keys == found.low, k - found.reach_high)

    dropped = lax.cond(found.reach_low > k, first_dropped, lambda: jnp.int32(keys.size))
    late = jnp.arange(keys.size, dtype=jnp.int32) >= dropped
    return keys >= found.low + late.astype(keys.dtype)


def largest(keys: jax.Array, most: jax.Array, k: jax.Array | int) -> Bracket:
    """Finds a bracket below which no entry is among the k largest.

    Args:
      keys: int[d], not negative.
      most: An upper bound of the keys, smaller than the largest integer.
      k: int32[], from 1 to d.

    Returns:
      A bracket with reach_low = k, or else with high = low + 1: then `low` is the k-th largest key,
      which occurs more often than there is room for.
    """
    zero = jnp.zeros((), keys.dtype)
    bracket = Bracket(zero, most + 1, jnp.int32(keys.size), jnp.int32(0))
    k = jnp.asarray(k, jnp.int32)
    if keys.size >= 4 * _SAMPLE:
        sample = keys[: keys.size // _SAMPLE * _SAMPLE].reshape(_SAMPLE, -1)[:, 0]
        ranks = _ranks_around(k / keys.size)
        guesses = jax.vmap(lambda rank: largest(sample, most, rank).low)(ranks)
        # the value above a guess, so that one of which there are many is found at once
        bracket = _narrow(bracket, keys, k, guesses + jnp.arange(2, dtype=keys.dtype))

    def unfinished(bracket):
        return (bracket.reach_low > k) & (bracket.high - bracket.low > 1)

    return lax.while_loop(
        unfinished, lambda bracket: _narrow(bracket, keys, k, _probes(bracket, k)), bracket
    )


def _ranks_around(share):
    """Returns the ranks in the sample that enclose a share of all entries, in most cases."""
    middle = share * _SAMPLE
    margin = 2 * jnp.sqrt(middle * (1 - share)) + 1
    ranks = jnp.stack([middle + margin, middle - margin])
    return jnp.clip(jnp.round(ranks), 1, _SAMPLE).astype(jnp.int32)


def _probes(bracket, k):
    width = bracket.high - bracket.low
    entries = bracket.reach_low - bracket.reach_high
    share = (bracket.reach_low - k).astype(jnp.float32) / entries.astype(jnp.float32)
    steps = jnp.stack([(share * width.astype(jnp.float32)).astype(width.dtype), width // 2])
    return bracket.low + jnp.clip(steps, 1, width - 1)


def _narrow(bracket, keys, k, probes):
    reaches = _reach(keys, probes)
    low, high, reach_low, reach_high = bracket
    for i in range(2):
        probe, reach = probes[i], reaches[i]
        up, down = (reach >= k) & (probe > low), (reach < k) & (probe < high)
        low, reach_low = jnp.where(up, probe, low), jnp.where(up, reach, reach_low)
        high, reach_high = jnp.where(down, probe, high), jnp.where(down, reach, reach_high)
    return Bracket(low, high, reach_low, reach_high)


def _reach(keys, probes):
    """Returns how many entries are at least as large as each of two probes, int32[2]."""
    columns = keys.size // _ROWS if jax.default_backend() == "cpu" else 0
    # on a CPU, sums of bytes side by side: XLA makes vectors of them, and both sums of one word
    block = keys[: columns * _ROWS].reshape(_ROWS, columns)
    one, other, none = (jnp.uint16(number) for number in (1, 256, 0))
    both = jnp.where(block >= probes[0], one, none) + jnp.where(block >= probes[1], other, none)
    both = both.sum(0, dtype=jnp.uint16)
    blocks = jnp.stack([(both & 255).sum(dtype=jnp.int32), (both >> 8).sum(dtype=jnp.int32)])
    rest = keys[columns * _ROWS :]
    return blocks + (rest >= probes[:, None]).sum(1, dtype=jnp.int32)
