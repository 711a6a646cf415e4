"""Finds the size of a compressed update on the wire without compressing one."""

from __future__ import annotations

from collections.abc import Hashable
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
    return Size(_payload_bits(code, params), dense, positions)


# A configuration is checked more than once, and a study checks one for every trial.
_known: dict[Hashable, int] = {}


def _payload_bits(code: Code, params: PyTree) -> int:
    """Returns the bits of a code of fixed size; codes of ours are traced once for each model."""
    leaves, tree = jax.tree.flatten(params)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    calls = tuple((call.name, *sorted(call.arguments.items())) for call in code.calls)
    key = calls, code.per_leaf, tree, shapes, jax.config.jax_enable_x64
    if key in _known:
        return _known[key]

    def sent(params, key):
        return code.link.encode(params, code.link.init_client(params), None, key)[0]

    bits = int(code.link.bits(jax.eval_shape(sent, params, jax.random.key(0))))
    if not any(":" in call.name for call in code.calls):  # the user's may be another one tomorrow
        _known[key] = bits
    return bits
