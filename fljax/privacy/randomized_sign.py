"""Randomized response: of each coordinate of its message, a client sends a sign that may be wrong.

Warner 1965, and Duchi, Jordan and Wainwright 2013 (arXiv:1302.3203) for means of bounded numbers. A
coordinate x within [-B, B] becomes

    +B / t with probability (1 + t x / B) / 2, else -B / t;    t = tanh(epsilon / 2)

which is x on average, and whose two outcomes are at most e^epsilon times as likely for one x as for
another. With the sign of x in place of x / B, the sum over clients is a vote on each coordinate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fljax.core.transforms import UplinkLink
from fljax.core.values import COUNT, POSITIVE, Field, checked
from fljax.privacy import accounting
from fljax.privacy.local import checked_participations, local_guarantee, local_link
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting

__all__ = ["randomized_sign"]

PyTree = Any

ROUNDINGS = ("stochastic", "sign")
_NUMBER = Field(None, float, POSITIVE)
_COORDINATES = Field(None, int, COUNT)


def randomized_sign(
    value_bound: float = 0.01,
    coordinate_epsilon: float = 1.0,
    *,
    coordinates: int | None = None,
    rounding: str = "stochastic",
    delta: float | None = None,
    max_participations: int | None = None,
) -> Mechanism:
    """Returns local differential privacy of users by randomized response of signs.

    A message of d coordinates spends `coordinate_epsilon` d times, so that few of them should be
    sent: one of each of `coordinates` blocks of equal size, drawn anew for each message, whose
    place the server knows. What is sent is scaled up by the size of the block. A coordinate has
    the variance (size of the block) * (B / t)^2 - x^2.

    Args:
      value_bound: Bound B of a coordinate; larger ones are cut off.
      coordinate_epsilon: Epsilon of one coordinate, with delta 0.
      coordinates: How many of a message are sent; None for all.
      rounding: "stochastic", whose mean is the coordinate; or "sign", whose mean is B times the
        coordinate's sign.
      delta: Of (epsilon, delta) of all coordinates; None for N^-1.1.
      max_participations: Rounds in which a client's data count; behind them it sends random signs.
        None counts how often the sampler takes the client that it takes most often.

    Wire format: one bit for each coordinate that is sent.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> zeros = np.zeros(1000, int)
      >>> facts = (1000, 100, "poisson", 10, 0, *[zeros] * 3)
      >>> setting = privacy.Setting(*facts, message_size=7850)
      >>> mechanism = privacy.randomized_sign(0.01, 0.5, coordinates=50, max_participations=1)
      >>> promised = mechanism.guarantee(mechanism.hparams, setting)
      >>> {name: round(value, 2) for name, value in promised.epsilon(1).items()}
      {'rdp': 17.28, 'pld': 16.0}
    """
    hparams = {
        "value_bound": checked("value_bound", value_bound, _NUMBER),
        "coordinate_epsilon": checked("coordinate_epsilon", coordinate_epsilon, _NUMBER),
    }
    if coordinates is not None:
        checked("coordinates", coordinates, _COORDINATES)
    checked("rounding", rounding, Field("stochastic", str, ROUNDINGS))
    if delta is not None:
        accounting.check_delta(delta)
    most = checked_participations(max_participations)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        size = setting.message_size
        if coordinates is not None and coordinates > size:
            raise ValueError(
                f"coordinates = {coordinates:,}, but a message has {size:,} of them. Choose as "
                "many or fewer, or leave it out to send all."
            )
        event = accounting.pure(hp["coordinate_epsilon"])
        each = f"each of {coordinates or size:,} signs of a message spends epsilon = "
        spends = f"{each}{hp['coordinate_epsilon']:g}"
        return local_guarantee([(event, coordinates or size)], setting, delta, most, spends=spends)

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        del setting

        def randomized(message: PyTree, key: jax.Array) -> PyTree:
            vector, unravel = ravel_pytree(message)
            place_key, key = jax.random.split(key)
            places, sizes = _chosen(vector.size, coordinates or vector.size, place_key)
            part = jnp.clip(vector[places] / hp["value_bound"], -1, 1)
            if rounding == "sign":
                part = jnp.sign(part)
            signs = _response(part, hp["coordinate_epsilon"], key)
            scale = hp["value_bound"] / jnp.tanh(hp["coordinate_epsilon"] / 2)
            sent = (scale * sizes * signs).astype(vector.dtype)
            return unravel(jnp.zeros_like(vector).at[places].set(sent, unique_indices=True))

        return local_link(randomized, most, _signs_sent)

    return Mechanism("randomized_sign", hparams, guarantee, link)


def _chosen(size: int, number: int, key: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """Returns (one place of each block, the blocks' sizes), of `number` blocks of a vector."""
    edges = np.arange(number + 1, dtype=np.int64) * size // number
    sizes = np.diff(edges)
    offsets = jax.random.randint(key, (number,), 0, sizes.astype(np.int32))
    return edges[:-1].astype(np.int32) + offsets, sizes


def _response(x: jax.Array, epsilon: jax.Array | float, key: jax.Array) -> jax.Array:
    """Returns random signs, whose mean is tanh(epsilon / 2) x, of numbers within [-1, 1]."""
    size = jnp.abs(x)
    # of the less likely sign, which a difference from 1 would round off
    unlikely = (1 - size) / 2 + size * jax.nn.sigmoid(-epsilon)
    words = jax.random.bits(key, x.shape, jnp.uint32)
    is_unlikely = words < (unlikely * 2.0**32).astype(jnp.uint32)
    return jnp.where(x < 0, -1, 1) * jnp.where(is_unlikely, -1, 1)


def _signs_sent(payload: PyTree) -> jax.Array:
    return sum(
        ((leaf != 0).sum(dtype=jnp.uint32) for leaf in jax.tree.leaves(payload)), jnp.uint32(0)
    )
