"""Sums sketches of updates before the server decodes them: FetchSGD."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.compression.compressor_arguments import check_fraction, check_range, check_seed
from fljax.compression.differences import with_mean
from fljax.compression.links import Form, Sent, leaves_of, vector_of
from fljax.compression.sparse import kept
from fljax.core.transforms import UplinkLink
from fljax.core.values import DECAY, Field, checked
from fljax_kernels import sketch, top_k_mask, unsketch

PyTree = Any


class Sketches(NamedTuple):
    """The sketches that the server keeps, [rows, columns] each.

    Attributes:
      momentum: Sketch of the momentum.
      error: Sketch of what has not been applied yet.
    """

    momentum: jax.Array
    error: jax.Array


def fetch_sgd(
    fraction: float = 0.01,
    *,
    rows: int = 5,
    columns: int = 10_000,
    momentum: float = 0.9,
    seed: int = 0,
) -> UplinkLink:
    """Returns the link whose clients send count sketches, of which the server takes the sum.

        u <- momentum u + mean of the sketches     e <- e + u
        the round's update is the top k of unsketch(e)     e <- e - sketch of the update

    Momentum and error feedback live in sketches on the server, so that clients keep nothing.
    Rothchild et al. 2020 (arXiv:2007.07682), Algorithm 1, the learning rate left to the server's
    optimizer. Links before it must change nothing when they decode (clipping); a weight must be one
    number a client. A round that nobody took part in leaves the sketches as they are.

    Args:
      fraction: Share of the coordinates that a round's update may change.
      rows: Of a sketch; an odd number.
      columns: Of a sketch. With as many as there are coordinates none meet, and nothing is lost.
      momentum: Factor of the momentum, from 0 to below 1.
      seed: Of the hash functions, the same for everybody.

    Wire format: 32 rows columns bits.

    Raises:
      ValueError: For settings out of range, or an update with leaves that are no floating-point
        numbers.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.fetch_sgd(0.01, rows=3, columns=1000)
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    check_fraction("fraction", fraction)
    check_range("rows", rows, 1, 2**15)
    check_range("columns", columns, 1, 2**31 - 1)
    check_seed(seed)
    momentum = checked("momentum", momentum, Field(0.9, float, DECAY))

    def sketched(x):
        return sketch(x, jax.random.key(seed), rows, columns)

    def encode(update, state, job, key):
        form, rest = Form.of(update), leaves_of(update)[1]
        if rest:
            raise ValueError(
                f"fetch_sgd sums sketches of floating-point numbers, but leaves of the update are "
                f"{', '.join(str(leaf.dtype) for leaf in rest)} or have no entries."
            )
        return Sent((sketched(vector_of(update)),), (), form), state

    def absorb(aggregate, state: Sketches):
        sent = aggregate.mean()
        total, form = sent.payloads[0], sent.form
        speed = momentum * state.momentum + total
        error = state.error + speed
        estimate = unsketch(error, jax.random.key(seed), form.length)
        largest = top_k_mask(estimate, kept(fraction, form.length))
        update = jnp.where(largest, estimate, 0)
        new = Sketches(speed, error - sketched(update))
        anybody = aggregate.count > 0
        state = jax.tree.map(lambda a, b: jnp.where(anybody, a, b), new, state)
        return with_mean(aggregate, form.tree_of((update,), ())), state

    def init_server(params):
        nothing = jax.eval_shape(sketched, vector_of(params))
        # two arrays, since each of them is donated
        return Sketches(*(jnp.zeros(nothing.shape, nothing.dtype) for _ in range(2)))

    return UplinkLink(
        encode,
        decode=lambda sent, state: sent,
        init_server=init_server,
        absorb=absorb,
        linear=True,
    )
