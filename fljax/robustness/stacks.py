"""Sums, norms and distances over a stack of updates whose parameters are sharded over devices.

A stack is [P, d]: one row for each place of the cohort, zero where nobody is, and this device's
share of the parameters. Numbers of rows are summed over the devices; vectors stay shares.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.core.transforms import Cohort
from fljax_kernels import random_k

__all__ = [
    "clip_factors",
    "counted",
    "directions",
    "inner_products",
    "mean_of",
    "median_of",
    "norms",
    "num_params",
    "over",
    "random_columns",
    "share_of",
    "square_distances",
    "square_norms",
    "whole",
    "zeros_like_update",
]


def counted(rows: jax.Array) -> jax.Array:
    """Returns how many rows of bool[P] are true, as a float of the default type."""
    return rows.sum().astype(jnp.result_type(float))


def square_norms(stack: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [P], the squared norm of each row over all devices."""
    return jax.lax.psum((stack * stack).sum(1), cohort.axis_name)


def norms(
    stack: jax.Array, cohort: Cohort, origin: jax.Array | float = 0.0, unit: float = 1.0
) -> jax.Array:
    """Returns [P], the norm of each row over all devices, of rows with any finite norm.

    Args:
      stack: [P, d].
      cohort: The cohort.
      origin: [d], what is taken from each row first.
      unit: What norms are told in, a power of two: in a large one they are finite where their
        numbers are.
    """

    def scaled(factor: float) -> jax.Array:
        return jnp.sqrt(square_norms((stack - origin) * factor, cohort)) / (factor * unit)

    plain = scaled(1.0)
    finite = jnp.isfinite(plain)
    # squares overflow from norms of 2^64 on, which hostile clients may well send
    exact = lambda: jnp.where(finite, plain, scaled(2.0**-80))  # noqa: E731
    return jax.lax.cond(finite.all(), lambda: plain, exact)


def over(values: jax.Array, largest: jax.Array) -> jax.Array:
    """Returns values / largest, where that is 0 or more, of any finite numbers; zero over zero.

    A plain quotient is compiled as a product with 1 / largest, which of numbers near the largest
    float is so small that processors take it for zero.
    """
    factor = jnp.where(largest > 1, 2.0**-64, 2.0**64).astype(values.dtype)
    largest = largest * factor
    return values * factor / jnp.where(largest > 0, largest, 1)


def directions(stack: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [P, d], rows of any finite numbers scaled to length 1; zero of zero."""
    largest = jax.lax.pmax(jnp.abs(stack).max(1), cohort.axis_name)
    # squares might be too small or too large numbers
    brought = over(stack, largest[:, None])
    lengths = jnp.sqrt(square_norms(brought, cohort))
    return brought / jnp.where(lengths > 0, lengths, 1)[:, None]


def inner_products(stack: jax.Array, others: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [P, Q], the inner products of the rows of two stacks, by one matrix product."""
    own = jnp.matmul(stack, others.T, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.psum(own, cohort.axis_name)


def mean_of(stack: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns [d], the mean of rows by their weights [P] or of those chosen; zero of none."""
    weights = rows.astype(stack.dtype)
    # shares first, since a sum of rows may be too large
    shares = weights / jnp.maximum(weights.sum(), jnp.finfo(stack.dtype).tiny)
    return jnp.matmul(shares, stack, precision=jax.lax.Precision.HIGHEST)


def median_of(values: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns the median of those of [P] whose rows are chosen, of an even number the mean of two;
    infinity of none."""
    ordered = jnp.sort(jnp.where(rows, values, jnp.inf))
    count = jnp.maximum(rows.sum(), 1)
    low, high = ordered[(count - 1) // 2], ordered[count // 2]
    return jnp.where(low < high, low + (high - low) / 2, low)


def square_distances(stack: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [P, P], the squared distances of all pairs, by one matrix product.

    Rows are taken relative to a mean of them, since what they share would cost digits; rows that
    are longer than the median one count less in it, since a hostile one would cost all digits of
    the others. Distances to places where nobody is, and those beyond the largest float, are
    infinite, those to oneself zero; a row that is not finite, or of no finite length, is infinitely
    far from all, itself included.
    """
    lengths = norms(stack, cohort)
    near = cohort.valid & jnp.isfinite(lengths)
    shares = jnp.where(near, clip_factors(lengths, median_of(lengths, near)), 0)
    # zero times infinity is no number, and a stack is seldom worth a copy
    mean = jax.lax.cond(
        (near | ~cohort.valid).all(),
        lambda: mean_of(stack, shares),
        lambda: mean_of(jnp.where(near[:, None], stack, 0), shares),
    )
    centred = jnp.where(near[:, None], stack - mean, 0)
    products = inner_products(centred, centred, cohort)
    squares = jnp.diagonal(products)
    found = squares[:, None] + squares[None] - (products + products.T)  # the same both ways
    found = jnp.where(jnp.isnan(found), jnp.inf, jnp.maximum(found, 0))
    found = jnp.where(near[:, None] & near[None], found, jnp.inf)
    oneself = jnp.eye(len(near), dtype=bool) & (near | ~cohort.valid)
    return jnp.where(oneself, 0, found)


def zeros_like_update(params) -> jax.Array:
    """Returns a zero for each parameter, [p]: the state of a rule that keeps a vector."""
    flat = jax.eval_shape(lambda tree: ravel_pytree(tree)[0], params)
    return jnp.zeros(flat.shape, flat.dtype)


def share_of(vector: jax.Array, cohort: Cohort, width: int) -> jax.Array:
    """Returns [..., d], this device's share of what all devices keep of all parameters, [..., p].

    Args:
      vector: The same on all devices.
      cohort: The cohort.
      width: d, the columns of the stack.
    """
    devices = jax.lax.psum(1, cohort.axis_name)
    pad = [(0, 0)] * (vector.ndim - 1) + [(0, devices * width - vector.shape[-1])]
    start = jax.lax.axis_index(cohort.axis_name) * width
    return jax.lax.dynamic_slice_in_dim(jnp.pad(vector, pad), start, width, axis=-1)


def num_params(stack: jax.Array, cohort: Cohort) -> int:
    """Returns how many parameters there are, on all devices together."""
    if cohort.num_params is not None:
        return cohort.num_params
    return stack.shape[1] * jax.lax.psum(1, cohort.axis_name)


def random_columns(key: jax.Array, stack: jax.Array, size: int, cohort: Cohort) -> jax.Array:
    """Returns [P, min(size, p)], columns at random places of all p parameters.

    A column is on the device that has it, and zero on the others, so that sums over devices of what
    is made of single columns are sums over all of them.

    Args:
      key: The same on all devices.
      stack: [P, d].
      size: How many different columns.
      cohort: The cohort.
    """
    total, width = num_params(stack, cohort), stack.shape[1]
    if size >= total:
        return stack
    own = random_k(key, total, size) - jax.lax.axis_index(cohort.axis_name) * width
    here = (own >= 0) & (own < width)
    return jnp.where(here, stack[:, jnp.clip(own, 0, width - 1)], 0)


def whole(share: jax.Array, cohort: Cohort, size: int) -> jax.Array:
    """Returns [..., p], a vector of all parameters from each device's share of it [..., d]."""
    gathered = jax.lax.all_gather(share, cohort.axis_name, axis=share.ndim - 1, tiled=True)
    return gathered[..., :size]


def clip_factors(lengths: jax.Array, bound: jax.Array | float) -> jax.Array:
    """Returns what vectors are multiplied by that no length is above a bound: 1 where none is,
    and 0 where lengths are infinite, or too many times the bound for a float."""
    return jnp.minimum(1, bound / jnp.maximum(lengths, jnp.finfo(lengths.dtype).tiny))
