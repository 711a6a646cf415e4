"""Additive secret sharing: servers that hold shares of numbers add and multiply them unseen.

A number becomes fixed-point in the ring of 2^64 (`fljax.privacy.ring`), and the sum of as many
shares as there are parties; all but all of them are uniformly distributed, so that no party, and no
group of parties short of all, learns anything. Sums and products with public numbers are each
party's own work; products of secrets use up a triple (Beaver 1991) that a trusted dealer hands out
beforehand, as in CrypTen (Knott et al. 2021, arXiv:2109.00984), whose truncation this is as well.
Parties follow the protocol ("honest but curious").

Shares are arrays [P, ...] of the ring, row p being what party p holds. What is returned beside them
is the cost: bytes that all parties together send, and rounds of messages.

  >>> secret, cost = shares.split(jax.random.key(0), jnp.array([1.5, -2.0]), num_parties=3)
  >>> shares.reveal(ring.add(secret, secret))[0].tolist()
  [3.0, -4.0]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.values import Field, Interval, checked
from fljax.privacy import ring

__all__ = [
    "Cost", "Triple", "aggregate", "deal", "deal_elementwise", "matmul", "multiply", "reveal",
    "split", "truncate",
]  # fmt: skip

FRACTIONAL_BITS = 16
_BYTES = ring.BITS // 8


class Cost(NamedTuple):
    """The bytes that a protocol sends.

    Attributes:
      bytes: Of all parties together.
      rounds: Of messages that wait for those before them.

    Example:
      >>> shares.Cost(16, 1) + shares.Cost(8, 1)
      Cost(bytes=24, rounds=2)
    """

    bytes: int
    rounds: int

    def __add__(self, other: tuple) -> Cost:
        return Cost(self.bytes + other[0], self.rounds + other[1])


class Triple(NamedTuple):
    """Shares of random factors and of their product, each used once.

    Attributes:
      first, second, product: [P, ...] shares.
    """

    first: jax.Array
    second: jax.Array
    product: jax.Array


def split(
    key: jax.Array, values: jax.Array, num_parties: int, fractional_bits: int = FRACTIONAL_BITS
) -> tuple[jax.Array, Cost]:
    """Returns the shares of numbers, which their owner sends to the parties.

    Args:
      key: Secret of the owner, for these numbers alone.
      values: Floating-point numbers [...], in magnitude below 2^(63 - fractional_bits).
      num_parties: At least 2.
      fractional_bits: Bits behind the point, 1 to 31; numbers are rounded to that.

    Returns:
      (shares [P, ...], cost).

    Raises:
      ValueError: For fewer than two parties, or other bits.

    Example:
      >>> secret, cost = shares.split(jax.random.key(0), jnp.ones(5), num_parties=2)
      >>> ring.shape_of(secret), cost
      ((2, 5), Cost(bytes=80, rounds=1))
    """
    num_parties = checked("num_parties", num_parties, Field(2, int, Interval(2, 1024)))
    _check_bits(fractional_bits)
    encoded = ring.encode(values, fractional_bits)
    cost = Cost(_BYTES * math.prod(ring.shape_of(encoded)) * num_parties, 1)
    return _split(key, encoded, num_parties), cost


def reveal(shares: jax.Array, fractional_bits: int = FRACTIONAL_BITS) -> tuple[jax.Array, Cost]:
    """Returns the numbers that all parties learn when each sends its share to the others.

    Args:
      shares: [P, ...].
      fractional_bits: As they were split.

    Returns:
      (values [...], cost).

    Example:
      >>> secret, _ = shares.split(jax.random.key(0), jnp.array([0.5]), num_parties=2)
      >>> shares.reveal(secret)
      (Array([0.5], dtype=float32), Cost(bytes=16, rounds=1))
    """
    _check_bits(fractional_bits)
    return ring.decode(ring.total(shares), fractional_bits), _opened(shares)


def deal_elementwise(key: jax.Array, num_parties: int, shape: tuple[int, ...]) -> Triple:
    """Returns the dealer's triple for a product of arrays of one shape.

    Example:
      >>> triple = shares.deal_elementwise(jax.random.key(1), 2, (5,))
      >>> ring.shape_of(triple.product)
      (2, 5)
    """
    return deal(key, num_parties, shape, shape, ring.multiply)


def deal(
    key: jax.Array,
    num_parties: int,
    first: tuple[int, ...],
    second: tuple[int, ...],
    product: Callable[[jax.Array, jax.Array], jax.Array] = ring.matmul,
) -> Triple:
    """Returns the dealer's triple for a bilinear product.

    Args:
      key: Secret of the dealer, for this triple alone.
      num_parties: How many share it.
      first, second: Shapes of the factors.
      product: `ring.matmul` or `ring.multiply`.

    Example:
      >>> triple = shares.deal(jax.random.key(1), 3, (4, 5), (5, 2))
      >>> ring.shape_of(triple.product)
      (3, 4, 2)
    """
    keys = jax.random.split(key, 5)
    a, b = ring.random(keys[0], first), ring.random(keys[1], second)
    factors = (a, b, product(a, b))
    return Triple(*(_split(k, f, num_parties) for k, f in zip(keys[2:], factors, strict=True)))


def multiply(
    first: jax.Array,
    second: jax.Array,
    triple: Triple,
    key: jax.Array,
    fractional_bits: int = FRACTIONAL_BITS,
) -> tuple[jax.Array, Cost]:
    """Returns the shares of an elementwise product, truncated to the same fractional bits.

    Args:
      first, second: [P, ...] shares of factors.
      triple: From `deal_elementwise`, used for nothing else.
      key: Of the dealer, for the truncation.
      fractional_bits: Of both factors and of the product.

    Returns:
      (shares [P, ...], cost). The product of numbers below 2^15 is right to two units of its last
      place, but for a probability of |product| x 2^(2 x fractional_bits - 63).

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> a, _ = shares.split(keys[0], jnp.array([1.5]), 2)
      >>> b, _ = shares.split(keys[1], jnp.array([-4.0]), 2)
      >>> product, cost = shares.multiply(a, b, shares.deal_elementwise(keys[2], 2, (1,)), keys[3])
      >>> bool(abs(shares.reveal(product)[0][0] + 6) < 1e-4), cost
      (True, Cost(bytes=32, rounds=1))
    """
    return _product(ring.multiply, first, second, triple, key, fractional_bits)


def matmul(
    first: jax.Array,
    second: jax.Array,
    triple: Triple,
    key: jax.Array,
    fractional_bits: int = FRACTIONAL_BITS,
) -> tuple[jax.Array, Cost]:
    """Returns the shares of a matrix product; arguments as for `multiply`, a triple from `deal`.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> eye, _ = shares.split(keys[0], jnp.eye(2), 2)
      >>> triple = shares.deal(keys[1], 2, (2, 2), (2, 2))
      >>> product, _ = shares.matmul(eye, eye, triple, keys[2])
      >>> bool(abs(shares.reveal(product)[0] - jnp.eye(2)).max() < 1e-4)
      True
    """
    return _product(ring.matmul, first, second, triple, key, fractional_bits)


def truncate(shares: jax.Array, bits: int, key: jax.Array) -> tuple[jax.Array, Cost]:
    """Returns the shares of number / 2^bits, rounded to one of its two neighbours or the next.

    Two parties shift their own shares (Mohassel and Zhang 2017). With more, how often the shares
    wrap around the ring must be known in shares as well: it follows from how often those of x + r
    do, for a random r whose shares and wraps the dealer hands out (CrypTen, appendix C.1.2).

    Args:
      shares: [P, ...].
      bits: 1 to 31.
      key: Of the dealer, for this truncation alone.

    Returns:
      (shares [P, ...], cost).

    Example:
      >>> secret, _ = shares.split(jax.random.key(0), jnp.array([8.0]), 3)
      >>> quarter, cost = shares.truncate(secret, 2, jax.random.key(1))
      >>> bool(abs(shares.reveal(quarter)[0][0] - 2) < 1e-4), cost
      (True, Cost(bytes=48, rounds=1))
    """
    _check_bits(bits)
    cost = Cost(0, 0) if shares.shape[0] == 2 else _opened(shares)
    return _truncated(shares, bits, key), cost


def aggregate(
    key: jax.Array,
    updates: jax.Array,
    num_servers: int,
    fractional_bits: int = FRACTIONAL_BITS,
) -> tuple[jax.Array, Cost]:
    """Returns the sum of clients' updates as servers find it that see nothing but shares.

    Each client splits its update among the servers, each server adds what it holds, and the servers
    reveal the sum.

    Args:
      key: Of the round; each client folds its number into it.
      updates: Floating-point numbers [N, ...] of at most 65,536 clients, already weighted.
      num_servers: At least 2.
      fractional_bits: Bits behind the point.

    Returns:
      (sum [...], cost): exactly the sum of the rounded updates, as long as it stays in the ring.

    Raises:
      ValueError: For fewer than two servers, other bits, or too many clients.

    Example:
      >>> updates = jnp.array([[1.0, 2.0], [0.5, -4.0], [0.25, 1.0]])
      >>> shares.aggregate(jax.random.key(0), updates, num_servers=2)
      (Array([ 1.75, -1.  ], dtype=float32), Cost(bytes=128, rounds=2))
    """
    num_clients = updates.shape[0]
    checked("number of clients", num_clients, Field(1, int, Interval(1, 2**16)))
    num_servers = checked("num_servers", num_servers, Field(2, int, Interval(2, 1024)))

    def held(client: jax.Array, update: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, client)
        return split(own, update, num_servers, fractional_bits)[0]

    sums = ring.total(jax.vmap(held)(jnp.arange(num_clients), updates))
    total, opened = reveal(sums, fractional_bits)
    return total, Cost(_BYTES * updates.size * num_servers, 1) + opened


def _product(product, first, second, triple: Triple, key, fractional_bits: int):
    _check_bits(fractional_bits)
    # both differences are opened in one round
    opened = Cost(_opened(first).bytes + _opened(second).bytes, 1)
    found = _multiplied(product, first, second, triple)
    short, cost = truncate(found, fractional_bits, key)
    return short, opened + cost


@functools.partial(jax.jit, static_argnames="product")
def _multiplied(product, first: jax.Array, second: jax.Array, triple: Triple) -> jax.Array:
    """Multiplies by a triple (a, b, ab): xy = ab + (x - a) b + a (y - b) + (x - a) (y - b)."""
    x = ring.total(ring.subtract(first, triple.first))
    y = ring.total(ring.subtract(second, triple.second))
    found = jax.vmap(lambda b, a, ab: ring.add(ab, ring.add(product(x, b), product(a, y))))(
        triple.second, triple.first, triple.product
    )
    return found.at[0].set(ring.add(found[0], product(x, y)))


@functools.partial(jax.jit, static_argnames="bits")
def _truncated(shares: jax.Array, bits: int, key: jax.Array) -> jax.Array:
    if shares.shape[0] == 2:
        # both round down; party 1 shifts -x, so that no wrap is left over
        second = ring.negative(ring.shift(ring.negative(shares[1]), bits))
        return jnp.stack([ring.shift(shares[0], bits), second])
    keys = jax.random.split(key, 2)
    shape = ring.shape_of(shares)
    mask = ring.random(keys[0], shape)
    masked = ring.add(shares, mask)
    own = jnp.stack([ring.wraps(jnp.stack(pair)) for pair in zip(shares, mask, strict=True)])
    of_mask = _split(keys[1], ring.times(ring.wraps(mask), 1), shares.shape[0])
    wraps = ring.subtract(ring.times(own, 1), of_mask)
    # all parties learn the masked shares, the first adds how often these wrap around
    wraps = wraps.at[0].set(ring.add(wraps[0], ring.times(ring.wraps(masked), 1)))
    lost = ring.multiply(wraps, ring.times(jnp.ones(shape, jnp.int32), 2 ** (ring.BITS - bits)))
    return ring.subtract(ring.shift(shares, bits), lost)


@functools.partial(jax.jit, static_argnames="num_parties")
def _split(key: jax.Array, numbers: jax.Array, num_parties: int) -> jax.Array:
    """Returns [P, ...] shares of numbers of the ring, all but the first drawn at random."""
    drawn = ring.random(key, (num_parties - 1, *ring.shape_of(numbers)))
    return jnp.concatenate([ring.subtract(numbers, ring.total(drawn))[None], drawn])


def _opened(shares: jax.Array) -> Cost:
    """Returns the cost of every party sending its share to all others."""
    num_parties, *shape = ring.shape_of(shares)
    return Cost(_BYTES * num_parties * (num_parties - 1) * math.prod(shape), 1)


def _check_bits(bits: int) -> None:
    checked("fractional_bits", bits, Field(FRACTIONAL_BITS, int, Interval(1, 31)))
