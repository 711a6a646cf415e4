"""Shares secrets of 32 bytes so that some number of shares reveals them, and fewer say nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from fljax.core.values import Field, Interval, checked

# The smallest prime above 2^256: every secret is below it.
PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(
    secret: bytes,
    num_shares: int,
    threshold: int,
    random: Callable[[int], bytes] = os.urandom,
) -> list[int]:
    """Returns the values of a random polynomial at 1, 2, ..., whose value at 0 is the secret.

    Shamir 1979, Communications of the ACM.

    Args:
      secret: 32 bytes.
      num_shares: How many shares to make.
      threshold: How many of them reveal the secret.
      random: Number of bytes -> random bytes.

    Raises:
      ValueError: For a secret of another length, or a threshold that is not 1 to num_shares.

    Example:
      >>> shares = shamir.split(bytes(range(32)), num_shares=5, threshold=3)
      >>> shamir.combine({2: shares[1], 5: shares[4], 1: shares[0]}) == bytes(range(32))
      True
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"The secret has {len(secret)} bytes; it must have {SECRET_BYTES}.")
    checked("threshold", threshold, Field(1, int, Interval(1, num_shares)))
    # 16 bytes more than the prime has leave a bias of 2^-127
    drawn = [int.from_bytes(random(SHARE_BYTES + 16)) % PRIME for _ in range(threshold - 1)]
    coefficients = [*drawn, int.from_bytes(secret)]
    shares = []
    for place in range(1, num_shares + 1):
        value = 0
        for coefficient in coefficients:
            value = (value * place + coefficient) % PRIME
        shares.append(value)
    return shares


def combine(shares: Mapping[int, int]) -> bytes:
    """Returns the secret that shares reveal; {place from 1 on: share}, as many as the threshold.

    Raises:
      ValueError: If the shares belong to no secret: they are wrong, or too few.

    Example:
      >>> shamir.combine(dict(enumerate(shamir.split(bytes(32), 4, 2), start=1))) == bytes(32)
      True
    """
    total = 0
    for place, share in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        total = (total + share * above * pow(below, -1, PRIME)) % PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("These shares belong to no secret of 32 bytes: some are wrong or missing.")
    return total.to_bytes(SECRET_BYTES)
