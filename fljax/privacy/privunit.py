"""PrivUnit: messages that leave a client as random vectors near to, or far from, their direction.

PrivUnit (Bhowmick et al. 2018, "Protection against reconstruction and its applications in private
federated learning", arXiv:1812.00984) is the best unbiased local randomizer of unit vectors; this
is its Gaussian form PrivUnitG (Asi, Feldman and Talwar 2022, "Optimal algorithms for mean
estimation under local differential privacy", arXiv:2205.02466), which errs as little in many
dimensions, and whose constants are a matter of the normal distribution alone. Of a unit vector u a
client sends

    v / s,    v = alpha u + (the part of N(0, I) that is orthogonal to u)

where alpha is normal, but exceeds a threshold gamma with a probability p that is larger than it
would be by itself, 1 - q. Wherever v is, it is at most e^epsilon times as likely for one u as for
another, with e^epsilon = p / (1 - p) * q / (1 - q). The scale s = E[alpha] makes it unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jax.scipy.stats import norm

from fljax.core.transforms import UplinkLink
from fljax.core.values import POSITIVE, Field, checked
from fljax.privacy import accounting
from fljax.privacy.clipping import clipped
from fljax.privacy.gaussian import normal_like
from fljax.privacy.local import checked_participations, local_guarantee, local_link
from fljax.privacy.mechanism import Guarantee, Mechanism, Setting

__all__ = ["Cap", "best_cap", "privunit", "randomized_direction"]

PyTree = Any

_NUMBER = Field(None, float, POSITIVE)
# Ways to divide epsilon between p and q that are tried.
_WAYS = 129


def privunit(
    clip_norm: float = 1.0,
    message_epsilon: float = 8.0,
    *,
    delta: float | None = None,
    max_participations: int | None = None,
) -> Mechanism:
    """Returns local differential privacy of users by PrivUnit, without bias.

    A message x whose norm is below C becomes a vector of norm C: its direction, or with probability
    (1 - |x| / C) / 2 the opposite one, so that it stays x on average. The variance of what is sent
    is C^2 (d + gamma s) / s^2 - |x|^2 in d dimensions.

    Args:
      clip_norm: Bound C of the norm of all that a client sends.
      message_epsilon: Epsilon of one message, with delta 0.
      delta: Of (epsilon, delta) of several messages; None for N^-1.1.
      max_participations: Rounds in which a client's data count; behind them it sends random
        vectors. None counts how often the sampler takes the client that it takes most often.

    Raises:
      ValueError: If a number is out of range.

    Example:
      >>> zeros = np.zeros(1000, int)
      >>> setting = privacy.Setting(1000, 100, "poisson", 100, 0, *[zeros] * 3)
      >>> mechanism = privacy.privunit(0.3, message_epsilon=2.0, max_participations=3)
      >>> promised = mechanism.guarantee(mechanism.hparams, setting)
      >>> round(promised.epsilon(1)["pld"], 3), round(promised.epsilon(100)["pld"], 3)
      (2.0, 6.0)
    """
    hparams = {
        "clip_norm": checked("clip_norm", clip_norm, _NUMBER),
        "message_epsilon": checked("message_epsilon", message_epsilon, _NUMBER),
    }
    if delta is not None:
        accounting.check_delta(delta)
    most = checked_participations(max_participations)

    def guarantee(hp: Mapping[str, float], setting: Setting) -> Guarantee:
        event = accounting.pure(hp["message_epsilon"])
        return local_guarantee(
            [(event, 1)],
            setting,
            delta,
            most,
            clip_norm=hp["clip_norm"],
            spends=f"a message spends epsilon = {hp['message_epsilon']:g}",
        )

    def link(hp: Mapping[str, Any], setting: Setting) -> UplinkLink:
        del setting

        def randomized(message: PyTree, key: jax.Array) -> PyTree:
            sign_key, key = jax.random.split(key)
            unit = _unit(clipped(message, hp["clip_norm"]), hp["clip_norm"], sign_key)
            sent = randomized_direction(unit, hp["message_epsilon"], key)
            return jax.tree.map(lambda leaf: leaf * hp["clip_norm"], sent)

        return local_link(randomized, most)

    return Mechanism("privunit", hparams, guarantee, link)


class Cap(NamedTuple):
    """The constants of PrivUnitG.

    Attributes:
      outside: 1 - p, the probability that alpha stays below the threshold.
      tail: 1 - q, the probability that a normal number exceeds it.
      threshold: gamma.
      scale: s, the mean of alpha.
    """

    outside: jax.Array
    tail: jax.Array
    threshold: jax.Array
    scale: jax.Array


def best_cap(epsilon: jax.Array | float, dimension: int) -> Cap:
    """Returns the constants that make the variance of what is sent smallest, nearly.

    Args:
      epsilon: Of the message; may be traced.
      dimension: Of the vector.

    Example:
      >>> from fljax.privacy.privunit import best_cap
      >>> cap = best_cap(4.0, dimension=1000)
      >>> [f"{value:.3f}" for value in cap]
      ['0.207', '0.066', '1.509', '1.516']
    """
    share = jnp.linspace(0.0, 1.0, _WAYS)
    inside, outside = jax.nn.sigmoid(share * epsilon), jax.nn.sigmoid(-share * epsilon)
    body, tail = (jax.nn.sigmoid(way * (1 - share) * epsilon) for way in (1, -1))
    threshold = -ndtri(tail)
    scale = norm.pdf(threshold) * (inside / tail - outside / body)
    best = jnp.argmin((dimension + threshold * scale) / scale**2)
    return Cap(outside[best], tail[best], threshold[best], scale[best])


def randomized_direction(unit: PyTree, epsilon: jax.Array | float, key: jax.Array) -> PyTree:
    """Returns a random vector whose mean is a unit vector, and whose direction is epsilon-private.

    Args:
      unit: Arrays whose norm all together is 1.
      epsilon: May be traced.
      key: Of this vector.

    Example:
      >>> from fljax.privacy.privunit import randomized_direction
      >>> keys = jax.random.split(jax.random.key(0), 10_000)
      >>> draw = lambda key: randomized_direction(jnp.array([0.6, 0.8]), 4.0, key)
      >>> bool(jnp.allclose(jax.vmap(draw)(keys).mean(axis=0), jnp.array([0.6, 0.8]), atol=0.05))
      True
    """
    leaves = jax.tree.leaves(unit)
    cap = best_cap(epsilon, sum(leaf.size for leaf in leaves))
    alpha_key, key = jax.random.split(key)
    alpha = _alpha(cap, alpha_key).astype(leaves[0].dtype)
    noise = normal_like(key, unit)
    along = sum(jnp.vdot(n, u) for n, u in zip(jax.tree.leaves(noise), leaves, strict=True))
    return jax.tree.map(
        lambda n, u: ((n + (alpha - along) * u) / cap.scale).astype(u.dtype), noise, unit
    )


def _alpha(cap: Cap, key: jax.Array) -> jax.Array:
    """Draws the length along the direction; tails keep the digits that differences would lose."""
    word, place = jax.random.bits(key, (2,), jnp.uint32)
    is_outside = word < (cap.outside * 2.0**32).astype(jnp.uint32)
    share = ((place >> 8).astype(cap.tail.dtype) + 0.5) * 2.0**-24
    return jnp.where(is_outside, ndtri((1 - cap.tail) * share), -ndtri(cap.tail * share))


def _unit(message: PyTree, clip_norm: jax.Array | float, key: jax.Array) -> PyTree:
    """Returns a unit vector that is message / clip_norm on average."""
    message = jax.tree.map(lambda leaf: leaf / clip_norm, message)
    leaves = jax.tree.leaves(message)
    length = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in leaves))
    is_opposite = jax.random.uniform(key, (), length.dtype) < (1 - length) / 2
    # a message of zeros has no direction: any will do
    even = 1 / jnp.sqrt(jnp.asarray(sum(leaf.size for leaf in leaves), length.dtype))
    sign = jnp.where(is_opposite, -1, 1)
    return jax.tree.map(
        lambda leaf: sign * jnp.where(length > 0, leaf / length, even).astype(leaf.dtype), message
    )
