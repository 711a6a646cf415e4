"""Compresses differences to what the server already knows of a client: EF21, DIANA, MARINA.

Updates change little from round to round, so that differences are small where updates are not, and
what compression loses vanishes as training converges. The server keeps a mean over all clients that
ever take part, which a round of part of them changes by that part only.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fljax.compression.compressor_arguments import check_fraction, check_range
from fljax.compression.feedback import check_decodes_anywhere
from fljax.core.algorithm import Aggregate
from fljax.core.remembered import check_remembered, zeros_like
from fljax.core.transforms import UplinkLink, dense_bits

PyTree = Any


def ef21(link: UplinkLink, num_clients: int) -> UplinkLink:
    """Returns the link that compresses how updates differ from the client's own estimate.

        client    c_i = C(u_i - g_i)             g_i' = g_i + c_i
        server    g' = g + |S| / N mean(c_i)     the round's update is g'

    For contractions. Richtarik et al. 2021 (arXiv:2106.05203); with a part of the clients
    Fatkhullin et al. 2021 (arXiv:2110.03294). Estimates start at zero. g is the mean of all g_i
    where every client takes part, whatever the weights, or where weights are equal; a client at
    most once in a cohort.

    Args:
      link: What compresses the difference; its payloads are decoded one by one.
      num_clients: Number N of the clients that ever take part: clients without rows never do.

    Wire format: that of the link.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.ef21(compression.uplink(compression.top_k(0.01)), num_clients=100)
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    return _shifted(link, num_clients, rate=1.0, shift_follows=True, what="ef21")


def diana(link: UplinkLink, num_clients: int, rate: float) -> UplinkLink:
    """Returns the link that compresses how updates differ from the client's shift.

        client    m_i = C(u_i - h_i)             h_i' = h_i + rate m_i
        server    the round's update is h + mean(m_i)
                  h' = h + rate |S| / N mean(m_i)

    For unbiased compressors: the round's update is unbiased then. Mishchenko et al. 2019
    (arXiv:1901.09269). Shifts start at zero. h is the mean of all h_i as g in `ef21`.

    Args:
      link: What compresses the difference; its payloads are decoded one by one.
      num_clients: As for `ef21`.
      rate: How fast shifts follow; at most 1 / (1 + omega) of the compressor.

    Wire format: that of the link.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> sent = compression.uplink(compression.qsgd(4))
      >>> link = compression.diana(sent, num_clients=100, rate=0.1)
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    check_fraction("rate", rate)
    return _shifted(link, num_clients, rate=rate, shift_follows=False, what="diana")


def marina(link: UplinkLink, probability: float, *, seed: int = 0) -> UplinkLink:
    """Returns the link that sends compressed changes of the update, and now and then all of it.

        client    u_i with the given probability, the same coin for all, else C(u_i - last u_i)
        server    g' = mean of u_i, or of g + C(u_i - last u_i); the round's update is g'

    For unbiased compressors. Gorbunov et al. 2021 (arXiv:2102.07845), Algorithm 1, with the updates
    of two rounds in place of gradients at two points. Every client takes part in every round, with
    the same weight; the first round sends everything. A robust rule in place of the mean sees what
    the mean is of, as in Byz-VR-MARINA (Gorbunov et al. 2022, arXiv:2206.00529).

    Args:
      link: What compresses the change; its payloads are decoded one by one.
      probability: Of a round in which updates are sent as they are.
      seed: Of the coins.

    Wire format: that of the link, or 32 bits a number in rounds without compression. The coin
    follows from the round's number.

    Example:
      >>> from fljax.core.transforms import Pipeline
      >>> link = compression.marina(compression.uplink(compression.qsgd(4)), probability=0.1)
      >>> pipeline = Pipeline(uplink=(link,))  # for simulate(..., pipeline=pipeline)
    """
    check_fraction("probability", probability)
    check_decodes_anywhere(link, "marina")

    def sends_all(round):
        key = jax.random.fold_in(jax.random.key(seed), round)
        return jax.random.bernoulli(key, probability) | (round == 0)

    def encode(update, state, job, key):
        inner, last = state
        check_remembered(update, last, "marina")
        change, inner = link.encode(jax.tree.map(jnp.subtract, update, last), inner, job, key)
        return (sends_all(job.round), update, change), (inner, update)

    def decode(payload, state):
        all_of_it, update, change = payload
        changed = jax.tree.map(jnp.add, state, link.decode(change, ()))
        return _where(all_of_it, update, changed)

    def bits(payload):
        all_of_it, update, change = payload
        return jnp.where(all_of_it, dense_bits(update), link.bits(change))

    def absorb(aggregate, state):
        estimate = _where(aggregate.count > 0, aggregate.mean(), state)
        return with_mean(aggregate, estimate), estimate

    return UplinkLink(
        encode,
        decode,
        bits,
        init_client=lambda params: (link.init_client(params), zeros_like(params)),
        init_server=zeros_like,
        absorb=absorb,
    )


def _shifted(
    link: UplinkLink, num_clients: int, *, rate: float, shift_follows: bool, what: str
) -> UplinkLink:
    """Returns the link that compresses differences to shifts which move towards the updates.

    Args:
      link, num_clients, rate: As for `diana`.
      shift_follows: Whether the round's update is the mean of all shifts after they have moved,
        not that before plus this round's differences.
      what: Its name.
    """
    check_decodes_anywhere(link, what)
    check_range("num_clients", num_clients, 1, 2**31 - 1)

    def moved(shift, difference, jobs, clients):
        return jax.tree.map(
            lambda h, m: h + (rate / clients) * jobs.astype(h.dtype) * m, shift, difference
        )

    def encode(update, state, job, key):
        inner, shift = state
        check_remembered(update, shift, what)
        payload, inner = link.encode(jax.tree.map(jnp.subtract, update, shift), inner, job, key)
        return payload, (inner, moved(shift, link.decode(payload, ()), jnp.float32(1), 1))

    def absorb(aggregate, shift):
        difference = aggregate.mean()
        after = moved(shift, difference, aggregate.count, num_clients)
        update = after if shift_follows else jax.tree.map(jnp.add, shift, difference)
        return with_mean(aggregate, update), after

    return link._replace(
        encode=encode,
        decode=lambda payload, state: link.decode(payload, ()),
        init_client=lambda params: (link.init_client(params), zeros_like(params)),
        init_server=zeros_like,
        absorb=absorb,
        decodes_changes=True,
    )


def with_mean(aggregate: Aggregate, mean: PyTree) -> Aggregate:
    """Returns the aggregate of the same weight with another mean."""
    total = jax.tree.map(
        lambda weight, value: jax.tree.map(lambda x: x * weight.astype(x.dtype), value),
        aggregate.weight,
        mean,
    )
    return aggregate._replace(sum=total)


def _where(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
