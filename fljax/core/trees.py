"""Indexes and selects in pytrees whose leaves share a leading axis of lanes, slots or jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any

# Traces a function of arrays alone once for each shape, and writes it into every program that calls
# it, which is then as if it had been traced anew.
traced_once = functools.partial(jax.jit, inline=True)


def batched(function: Callable, size: int, in_axes: Any = 0) -> Callable:
    """Returns vmap(function), without a batch axis inside where its size is 1.

    A batch axis of one would turn every matrix product into a batched one.
    """
    if size > 1:
        return jax.vmap(function, in_axes)

    def single(*args):
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
        args = [
            arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
            for arg, axis in zip(args, axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*args))

    return single


@traced_once
def take_rows(tree: PyTree, indices: jax.Array) -> PyTree:
    """Returns rows of every leaf; indices[n] beyond the end read the last row.

    Example:
      >>> take_rows({"w": jnp.array([[1], [2], [3]])}, jnp.array([2, 0]))["w"].tolist()
      [[3], [1]]
    """

    def rows_of(leaf):
        if indices.shape[0] > 1:
            return leaf[indices]
        if leaf.shape[0] == 1:
            return leaf  # the only row there is; a slice would copy it
        return jax.lax.dynamic_slice_in_dim(leaf, indices[0], 1, axis=0)

    return jax.tree.map(rows_of, tree)


@traced_once
def put_rows(tree: PyTree, indices: jax.Array, rows: PyTree) -> PyTree:
    """Writes rows into every leaf; indices[n] beyond the end are dropped. No two are equal.

    A single row beyond the end goes to the last place instead of nowhere, because an in-place slice
    update is much cheaper than a scatter, and where there is only one place nothing but the row is
    left. Only the exchanges that open a round have such a row, and the first wave overwrites that
    place or leaves it unread.
    """

    def with_rows(leaf, row):
        if indices.shape[0] > 1:
            return leaf.at[indices].set(row, mode="drop", unique_indices=True)
        if leaf.shape[0] == 1:
            return row
        return jax.lax.dynamic_update_slice_in_dim(leaf, row, indices[0], axis=0)

    return jax.tree.map(with_rows, tree, rows)


@traced_once
def add_rows(total: jax.Array, indices: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns total[S, ...] with rows[n] added at indices[n], which may repeat.

    Example:
      >>> add_rows(jnp.zeros(3), jnp.array([0, 2, 2]), jnp.array([1.0, 2.0, 3.0])).tolist()
      [1.0, 0.0, 5.0]
    """
    if indices.shape[0] > 1:
        return total.at[indices].add(rows)
    # in place, where a scatter of one row would be a loop
    sum = jax.lax.dynamic_slice_in_dim(total, indices[0], 1, axis=0) + rows
    return jax.lax.dynamic_update_slice_in_dim(total, sum, indices[0], axis=0)


def add_rows_in_order(total: jax.Array, indices: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns what `add_rows` does, in the order of the rows on every device.

    A scatter adds in any order on GPUs, so that no two runs would be equal. A product with zeros
    and ones would carry what is not finite from one place to the others.
    """

    def of_place(place):
        return jnp.where(beside(indices == place, rows), rows, 0).sum(0, dtype=total.dtype)

    return total + jax.vmap(of_place)(jnp.arange(total.shape[0]))


@traced_once
def put_wanted_rows(tree: PyTree, indices: jax.Array, rows: PyTree, wanted: jax.Array) -> PyTree:
    """Writes those rows[n] that are wanted[n] into every leaf; the others are left as they are.

    No two of the indices are equal.
    """
    if indices.shape[0] > 1:
        beyond = jnp.arange(indices.shape[0])

        def with_rows(leaf, row):
            # each of those that are not wanted goes nowhere in a place of its own
            where = jnp.where(wanted, indices, leaf.shape[0] + beyond)
            return leaf.at[where].set(row, mode="drop", unique_indices=True)

        return jax.tree.map(with_rows, tree, rows)
    # in place, and without reading what it may overwrite
    return jax.lax.fori_loop(
        0, wanted[0].astype(jnp.int32), lambda _, tree: put_rows(tree, indices, rows), tree
    )


def zeros_like_shape(tree: PyTree, size: int) -> PyTree:
    """Returns zeros like the shapes of a tree, with a leading axis of `size`."""
    return jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), tree)


def leaf_paths(tree: PyTree) -> list[str]:
    """Returns the path of each leaf, in the order of leaves.

    Example:
      >>> leaf_paths({"layers": [{"kernel": 0, "bias": 0}]})
      ['layers/0/bias', 'layers/0/kernel']
    """
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def nbytes(tree: PyTree) -> int:
    """Returns the bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@traced_once
def all_finite(tree: PyTree) -> jax.Array:
    """Returns whether no leaf holds NaN or infinity, as a bool scalar."""

    def finite(leaf):
        # XLA's CPU backend reduces numbers with vectors, but truth values one by one
        return jnp.where(jnp.isfinite(leaf), 0.0, 1.0).sum() == 0

    finite = [finite(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.stack([jnp.array(True), *finite]).all()


@traced_once
def square_norm(tree: PyTree) -> jax.Array:
    """Returns the squared L2 norm of a tree; NaN exactly where `all_finite` says no.

    So one reading of a tree tells both. A number whose square is beyond 2^-40 of what its type
    holds counts as that much: 1.8e13 in float32.

    Example:
      >>> float(square_norm({"w": jnp.array([3.0, 4.0])})), float(square_norm(jnp.array(jnp.inf)))
      (25.0, nan)
    """

    def squares(leaf):
        leaf = leaf.astype(jnp.result_type(jnp.float32, leaf.dtype))
        largest = jnp.finfo(leaf.dtype).max * 2.0**-40
        return jnp.where(jnp.isfinite(leaf), jnp.minimum(leaf * leaf, largest), jnp.nan).sum()

    return sum(map(squares, jax.tree.leaves(tree)), jnp.zeros((), jnp.float32))


def beside(column: jax.Array, leaf: jax.Array) -> jax.Array:
    """Returns column[n] with trailing axes, so that it broadcasts against leaf[n, ...].

    A scalar does so as it is; with axes XLA would divide by it in another way.

    Example:
      >>> (jnp.ones((2, 2)) * beside(jnp.array([1.0, 3.0]), jnp.ones((2, 2)))).tolist()
      [[1.0, 1.0], [3.0, 3.0]]
    """
    if not column.ndim:
        return column
    return column.reshape(column.shape + (1,) * (leaf.ndim - column.ndim))
