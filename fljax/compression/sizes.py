"""Finds the size of a compressed update on the wire without compressing one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from fljax.compression.sparse import SPARSE, IndexBits, index_bits, kept
from fljax.core.precision import widened
from fljax.core.transforms import dense_bits

if TYPE_CHECKING:
    from fljax.compression.names import Code

PyTree = Any


class Size(NamedTuple):
    """Of one client's update.

    Attributes:
      bits: Compressed. Where the size depends on the values, that of values which all differ.
      dense_bits: As it is.
      positions: What the positions of a sparse code take, in three ways; None where nothing is
        left out.
    """

    bits: float
    dense_bits: int
    positions: IndexBits | None


def uplink_size(code: Code, params: PyTree) -> Size:
    """Returns the size of a compressed update.

    Args:
      code: What compresses it.
      params: The model's parameters, whose shapes an update has, in float32 at least; shapes will
        do.
    """

    def sent(params, key):
        return code.link.encode(params, code.link.init_client(params), None, key)[0]

    params = jax.eval_shape(widened, params)
    dense = int(dense_bits(params))
    found = [
        index_bits(kept(call.arguments["fraction"], d), d)
        for call, d in code.steps(params)
        if call.name in SPARSE
    ]
    positions = IndexBits(*map(sum, zip(*found, strict=True))) if found else None
    if any(part.layout is None for part, _ in code.parts(params)):
        if positions is None:  # a code of the user's, whose size the values decide on
            return Size(dense, dense, None)
        # pruning: a bitmap and the values
        values = sum(kept(code.calls[0].arguments["fraction"], d) for _, d in code.parts(params))
        return Size(positions.bitmap + 32 * values, dense, positions)
    payload = jax.eval_shape(sent, params, jax.random.key(0))
    return Size(int(code.link.bits(payload)), dense, positions)
