"""Holds ceremonies of secure aggregation, and says what they cost, by formula and by count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fljax.privacy.secagg import light, rehearsal


class Row(NamedTuple):
    """The cost of one protocol for each client of a cohort.

    Attributes:
      protocol: Its name.
      num_clients, size: Of the cohort, and words of a message.
      sent: Bytes that a client sends if nobody is lost, by formula.
      received: Likewise; None where it is not counted.
      overhead: `sent` over the bytes of the words alone.
      seconds: What it took all clients and the server to hold it, some of them lost; None if it was
        not held.
    """

    protocol: str
    num_clients: int
    size: int
    sent: int
    received: int | None
    overhead: float
    seconds: float | None


def costs(
    num_clients: int, size: int, degree: int | None, dropout: float, held: bool = True
) -> list[Row]:
    """Returns the costs of a ceremony on a complete and a regular graph, and of LightSecAgg.

    Args:
      num_clients: Of a cohort.
      size: Words of a message.
      degree: Neighbours of a client on the regular graph; None leaves it out.
      dropout: Share of clients that are lost before they send their words. LightSecAgg is made for
        twice as many, and hides from half of the clients.
      held: Whether to hold the ceremonies, and to check their sums and what was sent.

    Raises:
      AssertionError: If a sum or a count is not what it must be.
    """
    generator = np.random.default_rng(0)
    lost = {"input": generator.permutation(num_clients)[: round(dropout * num_clients)].tolist()}
    kept = [n for n in range(num_clients) if n not in lost["input"]]
    rows = []
    for near in (None, degree) if degree is not None else (None,):
        words = generator.integers(0, 2**32, (num_clients, size), dtype=np.uint32)
        by_stage = rehearsal.expected_bytes(num_clients, size, near)
        sent, received = map(sum, zip(*by_stage.values(), strict=True))
        seconds = None
        if held:
            start = time.perf_counter()
            ceremony = rehearsal.run(words, degree=near, lost=lost)
            seconds = time.perf_counter() - start
            _check(ceremony.total, words[kept].sum(0, dtype=np.uint32))
            _check(np.sum([*ceremony.sent.values()], axis=0)[kept], sent)
        name = "complete graph" if near is None else f"{near} neighbours"
        rows.append(_row(name, num_clients, size, sent, received, seconds))
    code = light.make_code(num_clients, num_clients // 2, round(2 * dropout * num_clients))
    numbers, seconds = generator.integers(-(2**15), 2**15, (num_clients, size)), None
    sent = sum(light.expected_bytes(code, size).values())
    if held:
        start = time.perf_counter()
        played = light.run(numbers, code, lost=lost)
        seconds = time.perf_counter() - start
        _check(played.total, numbers[kept].sum(0))
        _check(np.sum([*played.sent.values()], axis=0)[kept], sent)
    rows.append(_row("LightSecAgg", num_clients, size, sent, None, seconds))
    return rows


def _row(protocol, num_clients, size, sent, received, seconds) -> Row:
    return Row(protocol, num_clients, size, sent, received, sent / (4 * size), seconds)


def _check(found, expected) -> None:
    np.testing.assert_array_equal(found, expected)


def table(rows: Sequence[Row]) -> str:
    """Returns rows as a Markdown table."""
    lines = [
        "| protocol | clients | words | a client sends | receives | sent / words | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        received = "" if row.received is None else f"{row.received:,} B"
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        cells = [row.protocol, f"{row.num_clients:,}", f"{row.size:,}", f"{row.sent:,} B", received]
        lines.append("| " + " | ".join([*cells, f"{row.overhead:.3f}", seconds]) + " |")
    return "\n".join(lines)
