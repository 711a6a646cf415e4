"""A compressor: a code for one vector, with its exact size and its constants.

A compressor knows nothing of clients, trees or rounds; `fljax.compression.links` puts it between
clients and server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.compression import wire
from fljax.core.values import wrong

PyTree = Any


class Compressor(NamedTuple):
    """A code for a vector x of d floating-point numbers.

    Inside the round program a payload is arrays of fixed shapes that are quick to make and to
    decode; bytes are counted there and never made. `serialize` makes them, on the host.

    The numbers must be finite. Of a client whose update holds a NaN or an infinity nothing is kept
    (the round program looks before it encodes), so codes need no value for them; most have none.

    Attributes:
      name: The method and its settings, for records.
      paper: Where it was published.
      encode: (key, x[d]) -> payload.
      decode: (payload, d) -> x_hat[d].
      bits: (payload, d) -> uint32 scalar, the exact size on the wire.
      serialize: (payload, d) -> the message as bytes, ceil(bits / 8) of them.
      deserialize: (message, d) -> the payload of a message of float32 numbers.
      layout: d -> the fields of a message; None where the size depends on the values.
      omega: d -> the smallest known w with E|x_hat - x|^2 <= w |x|^2, of an unbiased compressor
        (E x_hat = x); None for a biased one.
      alpha: d -> the largest known a with E|x_hat - x|^2 <= (1 - a) |x|^2, of a biased compressor;
        a contraction has one above 0. None where none is known.
        Both hold for every vector, up to float32's rounding, whose length |x| is 0 or between 1e-15
        and 1e15: squares and quotients of much smaller and larger numbers leave float32.

    Example:
      >>> code, x = compression.qsgd(8), jnp.arange(4.0)
      >>> payload = code.encode(jax.random.key(0), x)
      >>> message = code.serialize(payload, 4)
      >>> len(message) == -(-int(code.bits(payload, 4)) // 8)
      True
    """

    name: str
    paper: str
    encode: Callable[[jax.Array, jax.Array], PyTree]
    decode: Callable[[PyTree, int], jax.Array]
    bits: Callable[[PyTree, int], jax.Array]
    serialize: Callable[[PyTree, int], bytes]
    deserialize: Callable[[bytes, int], PyTree]
    layout: Callable[[int], wire.Layout] | None = None
    omega: Callable[[int], float] | None = None
    alpha: Callable[[int], float] | None = None


def fixed_size(
    name: str,
    paper: str,
    encode: Callable[[jax.Array, jax.Array], PyTree],
    decode: Callable[[PyTree, int], jax.Array],
    layout: Callable[[int], wire.Layout],
    *,
    omega: Callable[[int], float] | None = None,
    alpha: Callable[[int], float] | None = None,
) -> Compressor:
    """Returns the compressor whose messages of vectors of one length have one layout.

    Args:
      name, paper, encode, decode, omega, alpha: See `Compressor`. The payload is a dict.
      layout: d -> {name of an array of the payload: `wire.Field`}, in the order on the wire.
    """
    return Compressor(
        name,
        paper,
        encode,
        decode,
        bits=lambda payload, d: wire.count(wire.bits(layout(d), payload)),
        serialize=lambda payload, d: wire.to_bytes(layout(d), payload),
        deserialize=lambda message, d: wire.from_bytes(layout(d), message),
        layout=layout,
        omega=omega,
        alpha=alpha,
    )


def in_program_only(
    name: str,
    paper: str,
    encode: Callable[[jax.Array, jax.Array], PyTree],
    decode: Callable[[PyTree, int], jax.Array],
    bits: Callable[[PyTree, int], jax.Array],
) -> Compressor:
    """Returns the compressor of a traced setting, whose messages cannot be made into bytes.

    Args:
      name, paper, encode, decode, bits: See `Compressor`.
    """

    def refuse(*_):
        raise ValueError(f"{name} is part of a round program. Make bytes with a number instead.")

    return Compressor(name, paper, encode, decode, bits, refuse, refuse)


def chain(first: Compressor, *others: Compressor) -> Compressor:
    """Returns the compressor that sends the values of the first one by the next one's code.

    `chain(top_k(0.01), qsgd(8))` sends the positions of the largest coordinates as `top_k` does,
    and their values in 8 bits; `chain(rotation(), qsgd(4))` quantizes a rotated vector.

    Of unbiased compressors the chain is unbiased, with 1 + w = (1 + w1)(1 + w2) where the first one
    is linear in its values (all of this library are).

    Where the first one is a contraction that sends a part of its vector as it is, or all of it
    rotated, and leaves out what is orthogonal to that (all of this library with values of 32 bits
    are), |x|^2 = |y|^2 + |rest|^2 with values y, of which |y|^2 >= a1 |x|^2, so that the error is
    |x|^2 - |y|^2 + E|y_hat - y|^2. After it

        a contraction with a2              a = a1 a2
        an unbiased one with w2 <= 1       a = a1 (1 - w2)
        an unbiased one with w2 > 1        a = 1 - w2 < 0: no contraction

    the last for vectors of which nothing is left out.

    Wire format: that of the first one, with the second one's message in place of its values.

    Raises:
      ValueError: If a compressor but the last has no `values` to compress, or no fixed size.

    Example:
      >>> code = compression.chain(compression.top_k(0.5), compression.int8())
      >>> payload = code.encode(jax.random.key(0), jnp.array([3.0, -1.0, 0.5, -2.0]))
      >>> print(jnp.round(code.decode(payload, 4), 2), int(code.bits(payload, 4)), 'bits')
      [ 3.    0.    0.   -2.01] 52 bits
    """
    for place, part in enumerate((first, *others)):
        if not isinstance(part, Compressor):
            raise wrong(f"compressor {place} of the chain", part, "a fljax.compression.Compressor")
    *before, code = (first, *others)
    for part in reversed(before):
        code = _pair(part, code)
    return code


def _pair(first: Compressor, second: Compressor) -> Compressor:
    for part in (first, second):
        if part.layout is None:
            raise ValueError(
                f"{part.name} has messages whose size depends on the values or on a traced level; "
                "chained compressors need a fixed size."
            )
    if not isinstance(first.layout(64).get("values"), wire.Field):
        raise ValueError(
            f"{first.name} leaves no floating-point values that {second.name} could compress. "
            "Chain compressors that do, such as top_k, rand_k or rotation."
        )

    def length(d):
        return first.layout(d)["values"].count

    def encode(key, x):
        payload = first.encode(jax.random.fold_in(key, 0), x)
        values = second.encode(jax.random.fold_in(key, 1), payload["values"])
        return payload | {"values": values}

    def decode(payload, d):
        values = second.decode(payload["values"], length(d))
        return first.decode(payload | {"values": values}, d)

    def omega(d):
        return (1 + first.omega(d)) * (1 + second.omega(length(d))) - 1

    def alpha(d):
        if second.alpha is not None:
            rest = second.alpha(length(d))
        else:
            rest = 1 - second.omega(length(d))
        return rest * (first.alpha(d) if rest > 0 else 1)

    unbiased = first.omega is not None and second.omega is not None
    projects = first.alpha is not None and first.layout(64)["values"].dtype == np.float32
    bounded = second.alpha is not None or second.omega is not None
    return fixed_size(
        f"{first.name}, {second.name}",
        f"{first.paper}; {second.paper}",
        encode,
        decode,
        layout=lambda d: first.layout(d) | {"values": second.layout(length(d))},
        omega=omega if unbiased else None,
        alpha=alpha if projects and bounded and not unbiased else None,
    )
