"""Sends updates as matrices of low rank: PowerSGD."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from fljax.compression.compressor_arguments import check_range, check_seed
from fljax.compression.links import Form, Sent
from fljax.core.transforms import UplinkLink

PyTree = Any


def powersgd(rank: int = 2, *, seed: int = 0) -> UplinkLink:
    """Returns the link that sends matrices as products of two thin ones.

    One step of subspace iteration from where the client's last one ended:

        P = orthonormal(M Q)        Q' = M^T P        received: P Q'^T

    Vogels et al. 2019 (arXiv:1905.13727), Algorithm 1, for `error_feedback`. There all workers
    share Q and average P before they go on; here a client has the server's answer only in its next
    round, so each factorizes its own update, and keeps Q in the ClientStore.

    Leaves of two axes and more are matrices of all axes but the last by the last; where that saves
    nothing, and of other leaves, the numbers are sent as they are.

    Args:
      rank: Columns of P and Q.
      seed: Of the first Q, the same for all clients.

    Wire format: rank (n + m) numbers for a matrix [n, m], 32 bits each; 32 bits for each other
    number.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.powersgd(rank=2)
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    check_range("rank", rank, 1, 2**15)
    check_seed(seed)

    def encode(value, queries, job, key):
        leaves = jax.tree.leaves(value)
        matrices = [_matrix(leaf) for leaf in leaves if _is_factored(leaf, rank)]
        if [m.shape[-1] for m in matrices] != [len(query) for query in queries]:
            raise ValueError(
                "powersgd keeps a factor for each matrix among the model's parameters, and what "
                "its link covers has other matrices. Let it cover what has the parameters' shapes: "
                "covers='update', not None (the whole message)."
            )
        dense = tuple(leaf for leaf in leaves if not _is_factored(leaf, rank))
        factors = tuple(_factors(m, query) for m, query in zip(matrices, queries, strict=True))
        queries = tuple(
            # of a column that became zero nothing would ever come back
            jnp.where((q == 0).all(0), old, q)
            for (_, q), old in zip(factors, queries, strict=True)
        )
        return Sent(factors, dense, Form.of(value)), queries

    def decode(sent, state):
        factors, dense = iter(sent.payloads), iter(sent.rest)
        leaves = [
            _product(*next(factors)).reshape(leaf.shape)
            if _is_factored(leaf, rank)
            else next(dense)
            for leaf in sent.form.leaves
        ]
        return jax.tree.unflatten(sent.form.tree, leaves)

    def init_client(params):
        shapes = [leaf for leaf in jax.tree.leaves(params) if _is_factored(leaf, rank)]
        keys = jax.random.split(jax.random.key(seed), max(1, len(shapes)))
        return tuple(
            jax.random.normal(key, (leaf.shape[-1], rank), leaf.dtype)
            for key, leaf in zip(keys, shapes, strict=False)
        )

    return UplinkLink(encode, decode, init_client=init_client)


def _is_factored(leaf, rank: int) -> bool:
    if len(leaf.shape) < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return False
    size, columns = math.prod(leaf.shape), leaf.shape[-1]
    return 0 < rank * (size // columns + columns) < size if size else False


def _matrix(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(-1, leaf.shape[-1])


def _factors(matrix: jax.Array, query: jax.Array) -> tuple[jax.Array, jax.Array]:
    p = orthonormal(matrix @ query)
    return p, matrix.T @ p


def _product(p: jax.Array, q: jax.Array) -> jax.Array:
    return p @ q.T


def orthonormal(matrix: jax.Array) -> jax.Array:
    """Returns an orthonormal basis of the columns, by Gram-Schmidt's process.

    Args:
      matrix: [n, r] with a few columns. A column that depends on those before it becomes zero, up
        to rounding.

    Returns:
      [n, r].
    """
    columns: list[jax.Array] = []
    for column in matrix.T:
        whole = jnp.linalg.norm(column)
        for _ in range(2):  # once leaves a part of the others behind where columns are alike
            for other in columns:
                column = column - (other @ column) * other
        length = jnp.linalg.norm(column)
        depends = length <= 8 * jnp.finfo(column.dtype).eps * whole
        columns.append(jnp.where(depends, 0, column / jnp.where(depends, 1, length)))
    return jnp.stack(columns, axis=1)
