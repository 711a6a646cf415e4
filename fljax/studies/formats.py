"""What the positions of sparse messages take in one format and another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fljax.compression.names import Names, uplink_code
from fljax.compression.sparse import index_bits, kept
from fljax.studies.ladder import UNCOMPRESSED, Rung
from fljax.studies.outcomes import Row

_SPARSE = ("top_k", "rand_k")


class MessageBytes(NamedTuple):
    """Bytes of a sparse message, values of 32 bits included, by how it says where they belong.

    Attributes:
      raw: A position for each value.
      bitmap: One bit for each coordinate of the model.
      entropy: The bound below which no format goes on average, were all choices equally likely.
    """

    raw: float
    bitmap: float
    entropy: float


def message_bytes(k: int, d: int) -> MessageBytes:
    """Returns the bytes of k of d coordinates."""
    return MessageBytes(*((32 * k + bits) / 8 for bits in index_bits(k, d)))


def markdown(rows: Sequence[Row]) -> str | None:
    """Returns the table of the sparse rungs without further quantization; None without any."""
    dense = next(row.client_bytes for row in rows if row.rung == Rung(UNCOMPRESSED))
    length = round(dense / 4)
    fractions = {
        row.rung.uplink: fraction for row in rows if (fraction := _fraction(row.rung)) is not None
    }
    if not fractions:
        return None
    lines = [
        f"| of {length:,} coordinates | sent | raw | bitmap | entropy bound |",
        "|---|---:|---:|---:|---:|",
    ]
    for text, fraction in fractions.items():
        count = kept(fraction, length)
        cells = (f"{size:,.0f} ({dense / size:,.1f} x)" for size in message_bytes(count, length))
        lines.append(f"| `{text}` | {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fraction(rung: Rung) -> float | None:
    """Returns the share of coordinates that a rung sends at 32 bits each, or None."""
    code = uplink_code(Names(uplink=rung.uplink))
    if code is None or rung.per_leaf or len(code.calls) > 1 or code.calls[0].name not in _SPARSE:
        return None
    return code.calls[0].arguments["fraction"]
