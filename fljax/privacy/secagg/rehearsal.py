"""Holds a ceremony of secure aggregation among clients that it plays all, and counts the bytes."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fljax.core.values import FACTOR, Field, checked
from fljax.privacy.secagg import channel
from fljax.privacy.secagg.ceremony import (
    ADVERT,
    REVEALED,
    SEALED,
    SIGNED,
    STAGES,
    Client,
    advertise,
    confirm,
    reveal,
    send,
    share,
    unmask,
)
from fljax.privacy.secagg.channel import Expand

_NUMBER = struct.Struct("<I")


class Ceremony(NamedTuple):
    """A ceremony that has been held.

    Attributes:
      total: uint32[d], the sum of the words of the survivors modulo 2^32.
      survivors: Whose words are in it.
      sent: {stage: int64[N]} bytes that each client sent.
      received: {stage: int64[N]} bytes that each client received before it.
    """

    total: np.ndarray
    survivors: tuple[int, ...]
    sent: dict[str, np.ndarray]
    received: dict[str, np.ndarray]


def run(
    words: np.ndarray,
    *,
    degree: int | None = None,
    threshold: float = 2 / 3,
    lost: Mapping[str, Collection[int]] | None = None,
    is_server_trusted: bool = False,
    expand: Expand = channel.aes_words,
    random: Callable[[int], bytes] = os.urandom,
) -> Ceremony:
    """Holds a ceremony among N clients and an honest server.

    Args:
      words: uint32[N, d] of each client.
      degree: Neighbours of a client, an even number, on a ring in random order; None for all.
      threshold: Share of the neighbours that must be there in each stage.
      lost: {stage: clients that send nothing from this stage on}.
      is_server_trusted: Whether the stage "confirm" is left out.
      expand: Makes the words of a mask from 32 bytes: `channel.aes_words`, or
        `channel.threefry_words` as the round program makes them.
      random: Number of bytes -> random bytes.

    Returns:
      The ceremony.

    Raises:
      ProtocolError: If too few clients are left for the sum to be revealed.
      ValueError: For settings out of range.

    Example:
      >>> words = np.arange(12, dtype=np.uint32).reshape(4, 3)
      >>> held = rehearsal.run(words, lost={"input": [2]})
      >>> held.total.tolist(), held.survivors
      ([12, 15, 18], (0, 1, 3))
    """
    words = np.asarray(words, np.uint32)
    count = len(words)
    threshold = checked("threshold", threshold, Field(2 / 3, float, FACTOR))
    lost = {stage: set((lost or {}).get(stage, ())) for stage in STAGES}
    clients = enrol(count, degree, threshold, is_server_trusted, random)
    books = Books(*({stage: np.zeros(count, np.int64) for stage in STAGES} for _ in range(2)))
    here = [n for n in range(count) if n not in lost["advertise"]]
    adverts = {n: books.sent("advertise", n, [advertise(clients[n])])[0] for n in here}

    here = [n for n in here if n not in lost["share"]]
    mail: dict[int, list[bytes]] = {n: [] for n in range(count)}
    for n in here:
        told = [adverts[m] for m in clients[n].neighbours if m in adverts]
        books.received("share", n, told)
        clients[n], messages = share(clients[n], told, random)
        for message in books.sent("share", n, messages):
            mail[_NUMBER.unpack_from(message, _NUMBER.size)[0]].append(message)

    here = [n for n in here if n not in lost["input"]]
    arrived: dict[int, np.ndarray] = {}
    for n in here:
        books.received("input", n, mail[n])
        clients[n], text = send(clients[n], mail[n], words[n], expand)
        (text,) = books.sent("input", n, [text])
        arrived[n] = np.frombuffer(text, "<u4", offset=_NUMBER.size)
    survivors = tuple(arrived)
    listed = [_NUMBER.pack(n) for n in survivors]

    here, signatures = [n for n in here if n not in lost["confirm"]], []
    if not is_server_trusted:
        for n in here:
            books.received("confirm", n, listed)
            clients[n], signature = confirm(clients[n], survivors)
            signatures += books.sent("confirm", n, [signature])

    here, revealed = [n for n in here if n not in lost["unmask"]], {}
    for n in here:
        books.received("unmask", n, listed if is_server_trusted else signatures)
        clients[n], text = unmask(clients[n], survivors, signatures)
        (revealed[n],) = books.sent("unmask", n, [text])
    near = {client.number: client.neighbours for client in clients}
    total = reveal(arrived, revealed, adverts, clients[0].needed, near, expand)
    return Ceremony(total, survivors, books.bytes_sent, books.bytes_received)


class Books(NamedTuple):
    """The bytes that each client sends and receives.

    Attributes:
      bytes_sent, bytes_received: {stage: int64[N]}.
    """

    bytes_sent: dict[str, np.ndarray]
    bytes_received: dict[str, np.ndarray]

    def sent(self, stage: str, client: int, messages: Sequence[bytes]) -> Sequence[bytes]:
        """Enters messages of a client, and returns them."""
        self.bytes_sent[stage][client] += sum(map(len, messages))
        return messages

    def received(self, stage: str, client: int, messages: Sequence[bytes]) -> None:
        """Enters messages to a client."""
        self.bytes_received[stage][client] += sum(map(len, messages))


def expected_bytes(
    num_clients: int, size: int, degree: int | None = None, is_server_trusted: bool = False
) -> dict[str, tuple[int, int]]:
    """Returns what each client sends and receives if nobody is lost.

    Args:
      num_clients: N.
      size: Words of a client.
      degree: Neighbours of a client; None for all.
      is_server_trusted: Whether the stage "confirm" is left out.

    Returns:
      {stage: (bytes sent, bytes received)}.

    Example:
      >>> rehearsal.expected_bytes(100, 7850)["input"]
      (31404, 10890)
    """
    near = num_clients - 1 if degree is None else degree
    everybody = num_clients * _NUMBER.size
    stages = {
        "advertise": (ADVERT, 0),
        "share": (near * SEALED, near * ADVERT),
        "input": (_NUMBER.size + 4 * size, near * SEALED),
        "confirm": (SIGNED, everybody),
        "unmask": (_NUMBER.size + near * REVEALED, num_clients * SIGNED),
    }
    if is_server_trusted:
        stages |= {"confirm": (0, 0), "unmask": (stages["unmask"][0], everybody)}
    return stages


def enrol(
    count: int,
    degree: int | None,
    threshold: float,
    is_server_trusted: bool,
    random: Callable[[int], bytes] = os.urandom,
) -> list[Client]:
    """Returns N clients that know each other's signatures and their neighbours."""
    if degree is not None and not (degree % 2 == 0 and 2 <= degree < count):
        raise ValueError(
            f"degree = {degree!r}; it must be an even number from 2 to {count - 1}, or None for "
            "the complete graph."
        )
    if count < 3:
        raise ValueError(f"A ceremony of {count} clients hides nothing; it takes 3 at least.")
    order = sorted(range(count), key=lambda _: random(16))
    place = {number: at for at, number in enumerate(order)}
    signing = [channel.signing_key(random(channel.KEY_BYTES)) for _ in range(count)]
    identities = {number: channel.public_bytes(key) for number, key in enumerate(signing)}
    round = random(channel.KEY_BYTES)
    clients = []
    for number in range(count):
        near = set(range(count)) - {number}
        if degree is not None:
            steps = [d for d in range(-(degree // 2), degree // 2 + 1) if d]
            near = {order[(place[number] + step) % count] for step in steps}
        # as in the round program, a product that is off by some ulps asks for nobody more
        needed = max(1, math.ceil(threshold * len(near) - 1e-9))
        secrets = random(channel.KEY_BYTES), random(channel.KEY_BYTES)
        clients.append(
            Client(
                number, round, tuple(sorted(near)), needed,
                0 if is_server_trusted else math.ceil(threshold * count - 1e-9), identities,
                signing[number], channel.private_key(random(channel.KEY_BYTES)),
                channel.private_key(secrets[0]), secrets,
            )
        )  # fmt: skip
    return clients
