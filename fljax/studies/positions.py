"""The size of sparse messages' positions in several formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax.compression.names import Code, Names, uplink_code
from fljax.compression.sizes import uplink_size
from fljax.compression.sparse import kept
from fljax.core.transforms import dense_bits

PyTree = Any

_SPARSE = ("top_k", "rand_k")


def sparse_codes(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Code]:
    """Returns {text: code} of the variants that send coordinates at 32 bits each.

    What clients keep beside it changes nothing in a message: a code is there once.
    """
    codes = {}
    for overrides in variants.values():
        text, per_leaf = overrides.get("uplink", "none"), overrides.get("uplink_per_leaf", False)
        code = uplink_code(Names(uplink=text, uplink_per_leaf=per_leaf))
        if code is not None and len(code.calls) == 1 and code.calls[0].name in _SPARSE:
            codes[text + " per leaf" * per_leaf] = code
    return codes


def table(codes: Mapping[str, Code], params: PyTree) -> list[list[str]]:
    """Returns the bytes of a message by format as texts, the head first.

    Args:
      codes: {text: code}, see `sparse_codes`.
      params: Of the model; shapes will do.
    """
    dense = dense_bits(params)
    coordinates = f"of {dense // 32:,} coordinates"
    rows = [[coordinates, "sent", "raw", "bitmap", "entropy bound", "sent as"]]
    for text, code in codes.items():
        size = uplink_size(code, params)
        count = sum(kept(call.arguments["fraction"], d) for call, d in code.steps(params))
        sizes = [(32 * count + bits) / 8 for bits in size.positions]
        sent_as = f"{code.calls[0].arguments['index_format']}: {size.bits / 8:,.0f}"
        cells = [f"{size:,.0f} ({dense / 8 / size:,.1f} x)" for size in sizes]
        rows.append([f"`{text}`", f"{count:,}", *cells, sent_as])
    return rows
