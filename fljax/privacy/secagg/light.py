"""LightSecAgg: masks that are coded, so that a server takes away the sum of all at once.

Each client hides its numbers behind one mask of its own, and before that sends every other client
one coded piece of it. A survivor answers with the sum of the pieces it holds of the survivors; from
any `target` such answers follows the sum of their masks, however many are lost (So et al. 2022,
MLSys, arXiv:2109.14236). The server's work does not grow with those that are lost, and pieces are
1 / (target - private) as long as a message; Bonawitz' shares are 33 bytes. Numbers are those of the
prime field of 2^31 - 1.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from fljax.privacy.secagg import channel
from fljax.privacy.secagg.channel import ProtocolError

PRIME = 2**31 - 1
WORD_BYTES = 4
STAGES = ("advertise", "share", "input", "unmask")
_NUMBER_BYTES = 4
_ADVERT = _NUMBER_BYTES + channel.KEY_BYTES
_SEAL = 2 * _NUMBER_BYTES + channel.NONCE_BYTES + channel.TAG_BYTES


class Code(NamedTuple):
    """The coding of the masks of N clients.

    Attributes:
      num_clients: N.
      private: How many clients that put their pieces together still learn nothing.
      target: How many survivors must answer, more than `private`.
    """

    num_clients: int
    private: int
    target: int

    def piece_size(self, size: int) -> int:
        """Returns the numbers in a piece of a mask of so many.

        Example:
          >>> light.make_code(10, private=3, lost=2).piece_size(100)
          20
        """
        return -(-size // (self.target - self.private))


def make_code(num_clients: int, private: int, lost: int) -> Code:
    """Returns the code for a number of clients of whom some may be lost.

    Args:
      num_clients: N.
      private: How many clients that put their pieces together still learn nothing.
      lost: How many may be lost; all others then answer.

    Raises:
      ValueError: If not even one client more than `private` is sure to be left.

    Example:
      >>> light.make_code(100, private=50, lost=10)
      Code(num_clients=100, private=50, target=90)
    """
    target = num_clients - lost
    if not (0 < private < target <= num_clients):
        raise ValueError(
            f"Of {num_clients} clients {lost} may be lost and {private} put their pieces together; "
            f"at least 1 must, and more than {private} must be left. Lower one of them."
        )
    return Code(num_clients, private, target)


def coded(code: Code, mask: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Returns uint32[N, piece] of a mask, row j for client j.

    Args:
      code: Of all clients.
      mask: uint32[d] below the prime.
      random: uint32[private, piece] uniform below the prime.

    Example:
      >>> code = light.make_code(4, private=1, lost=1)
      >>> pieces = light.coded(code, np.arange(6, dtype=np.uint32), np.ones((1, 3), np.uint32))
      >>> light.decoded(code, {j: pieces[j] for j in (0, 2, 3)}, size=6).tolist()
      [0, 1, 2, 3, 4, 5]
    """
    own = code.target - code.private
    padded = np.pad(mask, (0, code.piece_size(mask.size) * own - mask.size)).reshape(own, -1)
    return _product(_matrix(code), np.concatenate([padded, random]))


def decoded(code: Code, answers: Mapping[int, np.ndarray], size: int) -> np.ndarray:
    """Returns the mask, or the sum of masks, whose pieces these are.

    Args:
      code: Of all clients.
      answers: {client: uint32[piece]}; the first `target` of them are used.
      size: Numbers in a mask.

    Raises:
      ProtocolError: If there are too few.
    """
    if len(answers) < code.target:
        raise ProtocolError(
            f"{len(answers)} clients have answered and {code.target} must. Too many are lost, so "
            "the sum of this round stays hidden."
        )
    chosen = sorted(answers)[: code.target]
    points = [code.target + 1 + client for client in chosen]
    back = _lagrange(points, range(1, code.target - code.private + 1))
    parts = _product(back, np.stack([answers[client] for client in chosen]))
    return parts.reshape(-1)[:size]


class Rehearsal(NamedTuple):
    """A round that was played.

    Attributes:
      total: int64[d] sum of the survivors' numbers.
      survivors: Whose numbers are in it.
      sent: {stage: int64[N]} bytes that each client sent.
    """

    total: np.ndarray
    survivors: tuple[int, ...]
    sent: dict[str, np.ndarray]


def run(
    numbers: np.ndarray,
    code: Code,
    lost: Mapping[str, Collection[int]] | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> Rehearsal:
    """Plays a round among N clients and an honest server; pieces travel sealed.

    Args:
      numbers: int64[N, d] of each client, whose sum is below 2^30 in magnitude.
      code: From `make_code`.
      lost: {stage "input" or "unmask": clients that send nothing from there on}.
      random: Number of bytes -> random bytes.

    Raises:
      ProtocolError: If too few are left.
      ValueError: If a sum might leave the field.

    Example:
      >>> code = light.make_code(5, private=2, lost=1)
      >>> numbers = np.arange(10).reshape(5, 2) - 4
      >>> light.run(numbers, code, lost={"input": [3]}).total.tolist()
      [-2, 2]
    """
    count, size = numbers.shape
    if np.abs(numbers).sum(0).max(initial=0) >= 2**30:
        raise ValueError("A sum of these numbers might reach 2^30, where signs cannot be told.")
    lost = {stage: set((lost or {}).get(stage, ())) for stage in STAGES}
    sent = {stage: np.zeros(count, np.int64) for stage in STAGES}
    keys = [channel.private_key(random(channel.KEY_BYTES)) for _ in range(count)]
    public = [channel.public_bytes(key) for key in keys]
    sent["advertise"] += _ADVERT
    masks, held = [], [[b""] * count for _ in range(count)]
    for sender in range(count):
        mask = _uniform(random, (size,))
        pieces = coded(code, mask, _uniform(random, (code.private, code.piece_size(size))))
        masks.append(mask)
        for receiver, piece in enumerate(pieces):
            key = channel.agreed_key(keys[sender], public[receiver], b"piece")
            context = sender.to_bytes(_NUMBER_BYTES) + receiver.to_bytes(_NUMBER_BYTES)
            sealed = context + channel.seal(key, piece.astype("<u4").tobytes(), context, random)
            held[receiver][sender] = sealed
            sent["share"][sender] += len(sealed) if receiver != sender else 0
    survivors = tuple(n for n in range(count) if n not in lost["input"])
    hidden = [_added(np.mod(numbers[n], PRIME), masks[n]) for n in survivors]
    sent["input"][list(survivors)] += _NUMBER_BYTES + WORD_BYTES * size
    answers = {}
    for n in survivors:
        if n in lost["unmask"]:
            continue
        total = np.zeros(code.piece_size(size), np.uint32)
        for sender in survivors:
            key = channel.agreed_key(keys[n], public[sender], b"piece")
            context, sealed = held[n][sender][:8], held[n][sender][8:]
            total = _added(total, np.frombuffer(channel.unseal(key, sealed, context), "<u4"))
        answers[n] = total
        sent["unmask"][n] += _NUMBER_BYTES + WORD_BYTES * total.size
    sum_of_masks = decoded(code, answers, size)
    total = np.zeros(size, np.uint32)
    for words in hidden:
        total = _added(total, words)
    total = np.mod(total.astype(np.int64) - sum_of_masks, PRIME)
    return Rehearsal(np.where(total > PRIME // 2, total - PRIME, total), survivors, sent)


def expected_bytes(code: Code, size: int) -> dict[str, int]:
    """Returns {stage: bytes that a client sends} if it is not lost.

    Example:
      >>> light.expected_bytes(light.make_code(100, private=50, lost=10), 7850)["unmask"]
      792
    """
    piece = WORD_BYTES * code.piece_size(size)
    return {
        "advertise": _ADVERT,
        "share": (code.num_clients - 1) * (_SEAL + piece),
        "input": _NUMBER_BYTES + WORD_BYTES * size,
        "unmask": _NUMBER_BYTES + piece,
    }


@functools.lru_cache(maxsize=8)
def _matrix(code: Code) -> np.ndarray:
    """Returns uint64[N, target]: the pieces of a mask from its parts, the random ones last.

    Row j evaluates the polynomial through the parts at a point of client j's own; any `target`
    rows, and of the random columns any `private`, are independent (Yu et al. 2019,
    arXiv:1806.00939).
    """
    points = range(code.target + 1, code.target + 1 + code.num_clients)
    return _lagrange(range(1, code.target + 1), points)


def _lagrange(known: list[int] | range, wanted: list[int] | range) -> np.ndarray:
    """Returns uint64[wanted, known]: values of a polynomial from its values at known points."""
    rows = []
    for point in wanted:
        above = 1
        for other in known:
            above = above * (point - other) % PRIME
        row = []
        for place in known:
            below = (point - place) % PRIME
            for other in known:
                if other != place:
                    below = below * (place - other) % PRIME
            row.append(above * pow(below, -1, PRIME) % PRIME)
        rows.append(row)
    return np.array(rows, np.uint64)


def _product(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns uint32 matrix x rows in the field; two factors of 31 bits fit into 64."""
    total = np.zeros((len(matrix), rows.shape[1]), np.uint64)
    for column, row in zip(matrix.T, rows.astype(np.uint64), strict=True):
        total = (total + column[:, None] * row) % PRIME
    return total.astype(np.uint32)


def _added(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return ((first.astype(np.uint64) + second.astype(np.uint64)) % PRIME).astype(np.uint32)


def _uniform(random: Callable[[int], bytes], shape: tuple[int, ...]) -> np.ndarray:
    """Returns uint32 numbers below the prime; of 64 bits, the bias is 2^-33."""
    drawn = np.frombuffer(random(8 * math.prod(shape)), "<u8").reshape(shape)
    return (drawn % np.uint64(PRIME)).astype(np.uint32)
