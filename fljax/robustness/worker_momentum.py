"""Sends momentum instead of updates, whose noise attackers then cannot hide in."""

from __future__ import annotations

import jax

from fljax.core.remembered import check_remembered, zeros_like
from fljax.core.transforms import UplinkLink
from fljax.core.values import DECAY, Field, checked
from fljax.robustness.arguments import check_number
from fljax.robustness.attacks.links import of_attackers

__all__ = ["worker_momentum"]


def worker_momentum(
    beta: float | jax.Array, dampened: bool = True, attackers: bool = True
) -> UplinkLink:
    """Returns the link by which clients send the momentum of their updates.

        m_i <- beta m_i + (1 - beta) u_i

    Karimireddy et al. 2021 (arXiv:2012.10333). m is zero at first. Their code leaves the factor
    1 - beta out (`dampened=False`), so that messages are 1 / (1 - beta) times the paper's. A
    client's momentum is as large as the model, in the ClientStore: it changes only where a message
    of the client arrives, and waits for its next round otherwise. The link stands before those of
    an attack and of compression.

    Args:
      beta: From 0 to below 1; 0 sends updates as they are; may be traced.
      dampened: Whether updates are scaled by 1 - beta.
      attackers: Whether hostile clients send momentum too, which their attack then changes. In the
        official experiments those that flip labels or bits send gradients without momentum (False);
        their momentum stays as it was.

    Raises:
      ValueError: For a beta outside, or switches that are neither True nor False.

    Example:
      >>> link = worker_momentum(0.5)
      >>> job, momentum = fljax.core.algorithm.blank_job(None), link.init_client(jnp.zeros(1))
      >>> for update in (8.0, 4.0):
      ...     sent, momentum = link.encode(jnp.array([update]), momentum, job, None)
      ...     print(sent.tolist())
      [4.0]
      [4.0]
    """
    check_number("beta", beta, DECAY)
    checked("dampened", dampened, Field(None, bool))
    checked("attackers", attackers, Field(None, bool))

    def encode(update, momentum, job, key):
        check_remembered(update, momentum, "worker_momentum")
        new = jax.tree.map(
            lambda m, u: (beta * m + (1 - beta if dampened else 1) * u).astype(m.dtype),
            momentum,
            update,
        )
        sent = jax.tree.map(lambda m, u: m.astype(u.dtype), new, update)
        if attackers or job.attacker is None:
            return sent, new
        return of_attackers(job, update, sent), of_attackers(job, momentum, new)

    return UplinkLink(encode, lambda payload, state: payload, init_client=zeros_like)
