"""FoolsGold: clients that have long moved alike count less, as sybils of one attacker do.

Fung, Yoon and Beschastnikh 2020, "The limitations of federated learning in sybil settings" (RAID
2020; arXiv:1808.04866), Algorithm 1. The server adds up what each client has sent, H_i, this round
included, and for the clients of a round

    cs_ij = cosine of H_i and H_j                       v_i = max over j of cs_ij
    cs_ij <- cs_ij v_i / v_j  where v_j > v_i           (pardoning)
    a_i = 1 - max over j of cs_ij,  a_i <- a_i / max over i of a_i
    a_i <- kappa (ln(a_i / (1 - a_i)) + 1 / 2)

each kept between 0 and 1. Client i has the learning rate a_i; those that are like nobody have 1.
As in the authors' code a cosine below 0 counts as 0 where the largest is taken.

Two choices are this simulator's. The aggregate is the mean of a_i x update_i over all clients of a
round, where the paper has their sum, so that a server's learning rate means what it does elsewhere.
All parameters are compared alike; the paper may weigh them by their importance for the output.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.core.capacity import own_bytes, physical_bytes
from fljax.core.transforms import Aggregator, Cohort
from fljax.core.values import POSITIVE
from fljax.robustness.arguments import check_count, check_number, too_few
from fljax.robustness.reports import REJECTIONS, rejections
from fljax.robustness.stacks import (
    directions,
    inner_products,
    mean_of,
    share_of,
    whole,
    zeros_like_update,
)

__all__ = ["foolsgold"]


def foolsgold(num_clients: int, confidence: Any = 1.0) -> Aggregator:
    """Returns the rule that gives clients of similar histories small learning rates.

    It holds a vector of all parameters for each client. Two jobs of one client in a cohort are not
    compared with each other. Where all clients of a round are the same, nothing is aggregated.

    Args:
      num_clients: Size of the population.
      confidence: kappa, how steeply learning rates fall; may be traced.

    Raises:
      ValueError: If a number is out of range, or the histories do not fit into memory.

    Example:
      >>> foolsgold(num_clients=3).init({"w": jnp.ones((2, 2))}).shape
      (3, 4)
    """
    check_count("num_clients", num_clients)
    check_number("confidence", confidence, POSITIVE)

    def init(params) -> jax.Array:
        flat = jax.eval_shape(zeros_like_update, params)
        _check_fits(num_clients, flat.size * flat.dtype.itemsize)
        return jnp.zeros((num_clients, flat.size), flat.dtype)

    def apply(stack: jax.Array, cohort: Cohort, history: jax.Array):
        sent = whole(stack, cohort, history.shape[1])
        places = jnp.where(cohort.valid, cohort.clients, num_clients)  # nobody's place is dropped
        history = history.at[places].add(sent, mode="drop")
        past = share_of(history[cohort.clients], cohort, stack.shape[1])
        compared = cohort.valid[:, None] & cohort.valid[None]
        compared &= cohort.clients[:, None] != cohort.clients[None]
        rates = _rates(jnp.where(compared, _cosines(past, cohort), 0), cohort.valid, confidence)
        value = rates.sum() / jnp.maximum(cohort.valid.sum(), 1) * mean_of(stack, rates)
        return value, history, rejections(rates > 0, cohort)

    # one client alone is like nobody
    problem = too_few("foolsgold", "2", 2)
    return Aggregator(
        "stack", apply, init, REJECTIONS, weighs=False, by_client=True, problem=problem
    )


def _cosines(stack: jax.Array, cohort: Cohort) -> jax.Array:
    """Returns [P, P], the cosines of all pairs of rows; zero where one of them is zero."""
    most = jnp.finfo(stack.dtype).max
    units = directions(jnp.clip(stack, -most, most), cohort)  # sums of rounds may be infinite
    return inner_products(units, units, cohort)


def _rates(cosines: jax.Array, valid: jax.Array, confidence: jax.Array | float) -> jax.Array:
    """Returns the clients' learning rates [P]; the cosine of what is not compared is zero."""
    most = jnp.maximum(cosines.max(1), 0)
    pardoned = cosines * jnp.minimum(1, most[:, None] / jnp.maximum(most, 1e-30)[None])
    rates = 1 - jnp.clip(pardoned.max(1), 0, 1)
    # what is left of equal histories but rounding would be scaled up to 1
    rates = jnp.where(valid & (rates > 100 * jnp.finfo(rates.dtype).eps), rates, 0)
    rates /= jnp.maximum(rates.max(), jnp.finfo(rates.dtype).tiny)
    return jnp.clip(confidence * (jnp.log(rates / (1 - rates)) + 0.5), 0, 1)


def _check_fits(num_clients: int, row_bytes: int) -> None:
    """Refuses histories that no device could hold, each of which has all of them."""
    device = jax.local_devices()[0]
    needed, there = num_clients * row_bytes, own_bytes(device) or physical_bytes()
    if needed > there:
        raise ValueError(
            f"foolsgold keeps a vector of all parameters for each of {num_clients:,} clients, on "
            f"each device: {needed / 1e9:,.1f} GB, where {there / 1e9:,.1f} GB are. Use fewer "
            "clients, a smaller model, or a rule that keeps nothing of clients."
        )
