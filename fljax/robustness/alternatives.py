"""One of several attacks, chosen by a number, so that runs under either share a program."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from fljax.core.transforms import BatchLink, CohortLink, UplinkLink
from fljax.core.values import Interval
from fljax.robustness.arguments import check_count
from fljax.robustness.attack import Attack

__all__ = ["alternatives"]


def alternatives(which: Any, attacks: Sequence[Attack]) -> Attack:
    """Returns one of several attacks by its number: all are computed, and one is kept.

    Links stand where they stand in each attack alone, with the same keys, so that it does what the
    one alone does. Where none has a link at a place, none is there.

    Args:
      which: The number of the attack, from 0; may be traced.
      attacks: The attacks.

    Raises:
      ValueError: If none has that number, one changes rows before training, or several have
        triggers.

    Example:
      >>> from fljax.robustness.attacks.alone import sign_flip
      >>> one = alternatives(0, [sign_flip(2.0), Attack()])
      >>> job = fljax.core.algorithm.blank_job(None)._replace(attacker=jnp.bool_(True))
      >>> one.uplink[0].encode(jnp.ones(2), ((),), job, None, ((),))[0].tolist()
      [-2.0, -2.0]
    """
    check_count("which", which, Interval(0, len(attacks) - 1))
    if any(attack.own_rows is not None for attack in attacks):
        raise ValueError("an attack on rows before training cannot be one of several.")
    triggers = [attack.trigger for attack in attacks if attack.trigger is not None]
    if len(triggers) > 1:
        raise ValueError(f"{len(triggers)} of the attacks have a trigger, and a run has one.")

    def links(name, join):
        columns = itertools.zip_longest(*(getattr(attack, name) for attack in attacks))
        return tuple(
            join(which, {number: link for number, link in enumerate(column) if link is not None})
            for column in columns
        )

    return Attack(
        batches=links("batches", _of_batches),
        uplink=links("uplink", _of_messages),
        cohort=links("cohort", _of_cohorts),
        trigger=triggers[0] if triggers else None,
        labels=tuple(made for attack in attacks for made in attack.labels),
    )


def _of_batches(which: Any, links: dict[int, BatchLink]) -> BatchLink:
    def apply(batch, job, key):
        for number, link in links.items():
            batch = link.apply(batch, _of_job(job, which == number), key)
        return batch

    return BatchLink(apply)


def _of_job(job: Any, chosen: jax.Array | bool) -> Any:
    return job if job.attacker is None else job._replace(attacker=job.attacker & chosen)


def _of_messages(which: Any, links: dict[int, UplinkLink]) -> UplinkLink:
    """Returns a link of the states of all, client's and server's."""

    def encode(update, states, job, key, servers):
        found = []
        for (number, link), state, server in zip(links.items(), states, servers, strict=True):
            told = (server,) if link.sees_server else ()
            own = _of_job(job, which == number)
            update, state = link.encode(update, state, own, key, *told)
            found.append(state)
        return update, tuple(found)

    def absorb(aggregate, servers):
        found = []
        for link, server in zip(links.values(), servers, strict=True):
            aggregate, server = link.absorb(aggregate, server)
            found.append(server)
        return aggregate, tuple(found)

    def inits(name):
        return lambda params: tuple(getattr(link, name)(params) for link in links.values())

    return UplinkLink(
        encode,
        lambda payload, states: payload,
        init_client=inits("init_client"),
        init_server=inits("init_server"),
        absorb=absorb,
        sees_server=True,
    )


def _of_cohorts(which: Any, links: dict[int, CohortLink]) -> CohortLink:
    def apply(stack, cohort, states, key):
        found = []
        for (number, link), state in zip(links.items(), states, strict=True):
            hostile = cohort.attackers
            chosen = None if hostile is None else hostile & (which == number)
            stack, state = link.apply(stack, cohort._replace(attackers=chosen), state, key)
            found.append(state)
        return stack, tuple(found)

    return CohortLink(apply, lambda params: tuple(link.init(params) for link in links.values()))
