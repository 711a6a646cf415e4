"""FLTrust: a server that trains on a few clean rows of its own trusts updates that agree with its.

Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust federated learning via trust bootstrapping"
(NDSS 2021, arXiv:2012.13995), Algorithm 2. With the server's update g_0 and the clients' g_i:

    trust   TS_i = max(0, cos(g_i, g_0))
    value   sum_i TS_i (|g_0| / |g_i|) g_i / sum_i TS_i

The server's rows are a client more, the root (`fljax.data.with_root`), which trains in every round
as clients do, by the same program; its update passes the same links on its way.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import NON_NEGATIVE, Field, checked
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import directions, inner_products, mean_of, norms

__all__ = ["TRUST", "fltrust"]

# The mean trust scores of honest clients, and those of attackers.
TRUST = ("robustness/trust_honest", "robustness/trust_attackers")


def fltrust(root: int | None = None) -> Aggregator:
    """Weighs updates by their cosine to the server's own, and gives each of them its length.

    Nothing is averaged with the server's update. Where it did not arrive, or no update points its
    way, the value is zero; the paper divides by a sum of zero there, and its code adds 1e-9 to that
    sum and to all norms, which this does not. An update of zeros is not trusted. A client is
    rejected if its score is 0; a round without the server's update reports nothing.

    Args:
      root: Number of the client that holds the server's rows, `dataset.root`.

    Raises:
      ValueError: If there is none.

    References: arXiv:2012.13995.

    Example:
      >>> rule = fltrust(root=2)
      >>> rule.needs, rule.weighs, rule.root
      ('stack', False, 2)
    """
    if root is None:
        raise ValueError(
            "fltrust trusts updates that agree with one of the server's own rows, and the data "
            "have none. Set root_rows, such as 100, or give dataset.root of "
            "fljax.data.with_root(dataset)."
        )
    root = checked("root", root, Field(None, int, NON_NEGATIVE))

    def apply(stack: jax.Array, cohort: Cohort, state: tuple):
        is_root = cohort.valid & (cohort.clients == root)
        judged = cohort.valid & ~is_root & is_root.any()
        lengths = norms(stack, cohort)
        units = directions(stack, cohort)
        reference = mean_of(units, is_root)
        cosines = inner_products(units, reference[None], cohort)[:, 0]
        trust = jnp.where(judged, jnp.maximum(cosines, 0), 0)
        value = jnp.where(is_root, lengths, 0).sum() * mean_of(units, trust)
        return value, state, _reports(trust, cohort._replace(valid=judged))

    return Aggregator(
        needs="stack", apply=apply, reports=(*TRUST, *REJECTIONS), weighs=False, root=root
    )


def _reports(trust: jax.Array, cohort: Cohort) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns the trust of honest clients and attackers, and the rejections, of who is judged."""
    hostile = cohort.attackers
    if hostile is None:
        hostile = jnp.zeros_like(cohort.valid)
    sides = (cohort.valid & ~hostile, cohort.valid & hostile)
    scores = {
        name: (jnp.where(side, trust, 0), side.astype(trust.dtype))
        for name, side in zip(TRUST, sides, strict=True)
    }
    return scores | rejections(trust > 0, cohort)
