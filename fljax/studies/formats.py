"""What the positions of sparse messages take in one format and another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fljax.compression.names import Code, Names, uplink_code
from fljax.compression.sizes import uplink_size
from fljax.compression.sparse import kept
from fljax.core.transforms import dense_bits
from fljax.studies.ladder import Rung

PyTree = Any

_SPARSE = ("top_k", "rand_k")


def markdown(rungs: Sequence[Rung], params: PyTree) -> str | None:
    """Returns the table of the sparse rungs without further quantization; None without any.

    Args:
      rungs: Of the ladder.
      params: Of the model; shapes will do.
    """
    codes = {rung.code: code for rung in rungs if (code := _sparse(rung)) is not None}
    if not codes:
        return None
    dense = dense_bits(params)
    lines = [
        f"| of {dense // 32:,} coordinates | sent | raw | bitmap | entropy bound | sent as |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for text, code in codes.items():
        size = uplink_size(code, params)
        count = sum(kept(call.arguments["fraction"], d) for call, d in code.steps(params))
        sizes = [(32 * count + bits) / 8 for bits in size.positions]
        cells = (f"{one:,.0f} ({dense / 8 / one:,.1f} x)" for one in sizes)
        lines.append(
            f"| `{text}` | {count:,} | {' | '.join(cells)} | "
            f"{code.calls[0].arguments['index_format']}: {size.bits / 8:,.0f} |"
        )
    return "\n".join(lines)


def _sparse(rung: Rung) -> Code | None:
    """Returns the code of a rung that sends coordinates at 32 bits each, or None."""
    code = uplink_code(Names(uplink=rung.uplink, uplink_per_leaf=rung.per_leaf))
    if code is None or len(code.calls) > 1 or code.calls[0].name not in _SPARSE:
        return None
    return code
