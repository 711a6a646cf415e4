"""Free riders: clients that send an update without having trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.remembered import check_remembered, zeros_like
from fljax.core.transforms import UplinkLink
from fljax.core.values import FINITE, NON_NEGATIVE, Field, checked
from fljax.robustness.arguments import check_number
from fljax.robustness.attack import Attack
from fljax.robustness.attacks.alone import gaussian_like
from fljax.robustness.attacks.links import alone, of_attackers

__all__ = ["free_rider"]

_SENDS = ("nothing", "last")


def free_rider(
    sends: str = "nothing", std: float | jax.Array = 0.0, decay: float | jax.Array = 1.0
) -> Attack:
    """Sends what costs no training: no change of the model, or that of the round before.

    Fraboni et al. 2021 (arXiv:2006.11901): plain free riders return the model that they got, so
    that their update is zero; disguised ones add noise of std t^-decay in round t = 1, 2, ...

    Lin et al. 2019 (arXiv:1911.12560): "last" is delta weights, the difference of the two newest
    broadcast models, with noise as they suggest. It is taken as the last aggregate of updates:
    what models differ by where the server adds that to its model as it is (a server's learning
    rate of 1, no momentum, no noise of the server's own). Zero in the first round.

    Args:
      sends: "nothing" or "last".
      std: Standard deviation of the noise in the first round, at least 0; may be traced.
      decay: How fast it falls, as a power of the round; 0 for noise that stays; may be traced.

    Raises:
      ValueError: For another `sends`, a std below 0, or a decay that is no number.

    Example:
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> link = free_rider().uplink[0]
      >>> link.encode(jnp.array([1.0, -3.0]), (), job, jax.random.key(0))[0].tolist()
      [0.0, 0.0]
    """
    checked("sends", sends, Field(None, str, _SENDS))
    check_number("std", std, NON_NEGATIVE)
    check_number("decay", decay, FINITE)

    def disguised(value, job, key):
        own = std * (job.round + 1.0) ** -decay
        return jax.tree.map(jnp.add, value, gaussian_like(value, own, key))

    if sends == "nothing":
        link = alone(lambda update, job, key: disguised(zeros_like(update), job, key))
    else:
        link = _delta_weights(disguised)
    return Attack(uplink=(link,))


def _delta_weights(disguised) -> UplinkLink:
    """Returns the link of free riders that send what the server last made of all updates."""

    def encode(update, state, job, key, last):
        check_remembered(update, last, "free_rider('last')")
        return of_attackers(job, disguised(last, job, key), update), state

    def absorb(aggregate, last):
        mean = aggregate.mean()
        return aggregate, jax.tree.map(lambda new, old: new.astype(old.dtype), mean, last)

    return UplinkLink(
        encode,
        lambda payload, state: payload,
        init_server=zeros_like,
        absorb=absorb,
        sees_server=True,
    )
