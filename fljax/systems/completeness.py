"""Completeness: clients that answer in time, and have done a part of their work.

A function of one's own, which `completeness = "module:function(...)"` names, is as those here: it
takes literals, and returns what says the share of its local steps that each client does in a round.

    def by_parity(least=0.5):
        return lambda clients, seed, number: np.where(clients % 2, 1.0, least)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fljax.core.schedule import FATES, Arrivals, Schedule, Spans
from fljax.core.values import wrong
from fljax.systems import flgo_work
from fljax.systems.fleet import Fleet

# (clients, seed, number of the round) -> float64[n] shares of their local steps
Shares = Callable[[np.ndarray, int, int], np.ndarray]
_ARRIVED, _PARTIAL = FATES.index("arrived"), FATES.index("partial")


def part_dynamic_uniform(p: float = 0.5) -> Shares:
    """Lets some clients do a uniform share, others all; anew in each round: FLGo's PDU.

    Example:
      >>> from fljax.systems.completeness import part_dynamic_uniform
      >>> part_dynamic_uniform(0.0)(np.arange(2), 0, 0).tolist()
      [1.0, 1.0]
    """
    return lambda clients, seed, number: flgo_work.part_dynamic_uniform(clients, seed, number, p)


def full_static_uniform() -> Shares:
    """Lets each client always do a uniform share of its own: FLGo's FSU.

    Example:
      >>> from fljax.systems.completeness import full_static_uniform
      >>> shares = full_static_uniform()
      >>> bool((shares(np.arange(2), 0, 0) == shares(np.arange(2), 0, 1)).all())
      True
    """
    return lambda clients, seed, number: flgo_work.full_static_uniform(clients, seed)


def arbitrary_dynamic_uniform(least: int = 1, most: int = 5) -> Shares:
    """Lets clients do from `least` to `most` of `most` epochs, anew in each round: FLGo's ADU.

    Example:
      >>> from fljax.systems.completeness import arbitrary_dynamic_uniform
      >>> arbitrary_dynamic_uniform(5, 5)(np.arange(2), 0, 0).tolist()
      [1.0, 1.0]
    """
    return lambda clients, seed, number: flgo_work.arbitrary_dynamic_uniform(
        clients, seed, number, least, most
    )


def arbitrary_static_uniform(least: int = 1, most: int = 5) -> Shares:
    """Lets each client always do its own number of `most` epochs: FLGo's ASU.

    Example:
      >>> from fljax.systems.completeness import arbitrary_static_uniform
      >>> bool((arbitrary_static_uniform(1, 2)(np.arange(9), 0, 0) >= 0.5).all())
      True
    """
    return lambda clients, seed, number: flgo_work.arbitrary_static_uniform(
        clients, seed, least, most
    )


# name -> function of literals that returns Shares
SHARES: dict[str, Callable[..., Shares]] = {
    "part_dynamic_uniform": part_dynamic_uniform,
    "full_static_uniform": full_static_uniform,
    "arbitrary_dynamic_uniform": arbitrary_dynamic_uniform,
    "arbitrary_static_uniform": arbitrary_static_uniform,
}


def in_part(schedule: Schedule, fleet: Fleet, shares: Shares) -> Schedule:
    """Returns a schedule whose clients take a share of their steps, in the time of all of them.

    Such clients are slow, or busy with other things: they answer when they would have, with what
    they have done by then, which is one step at least.

    Args:
      schedule: One with a clock.
      fleet: The clients.
      shares: What of their work they do.

    Example:
      >>> from fljax.core.sampler import replay
      >>> from fljax.systems.completeness import arbitrary_dynamic_uniform, in_part
      >>> from fljax.systems.devices import equal
      >>> from fljax.systems.fleet import Fleet
      >>> from fljax.systems.synchronous import wait_for_all
      >>> fleet = Fleet(equal(2), None, np.array([10, 20]), 0.0, 0.0, 0.0, seed=0)
      >>> waits = wait_for_all(fleet, lambda count: replay([[0, 1]], num_clients=2), 2)
      >>> some = in_part(waits, fleet, arbitrary_dynamic_uniform(2, 2))
      >>> some.draw(some.init(), 0)[0].steps.tolist()
      [10, 20]
    """

    def draw(state, round: int):
        arrivals, state = schedule.draw(state, round)
        clients = np.asarray(arrivals.clients, np.int64)
        steps = fleet.steps[clients] if arrivals.steps is None else arrivals.steps
        part = _checked(shares(clients, fleet.seed, round), clients, round)
        done = flgo_work.steps_done(part, steps)
        done = np.where(arrivals.accepted, np.minimum(done, steps), steps)
        return _with_steps(arrivals, done, done < steps), state

    return schedule._replace(draw=draw, has_steps=True)


def _checked(shares: np.ndarray, clients: np.ndarray, round: int) -> np.ndarray:
    """Returns shares as float64[n]; raises ValueError for what are none."""
    found = np.asarray(shares)
    if found.shape != clients.shape or found.dtype.kind not in "iuf":
        raise wrong(
            f"completeness returned in round {round}", shares,
            f"{len(clients)} numbers, the share of each client",
        )  # fmt: skip
    if (bad := np.flatnonzero(~((found >= 0) & (found <= 1)))).size:
        raise ValueError(
            f"completeness gives client {clients[bad[0]]} the share {found[bad[0]]} in round "
            f"{round}; give shares from 0 to 1."
        )
    return found.astype(np.float64)


def _with_steps(arrivals: Arrivals, steps: np.ndarray, partial: np.ndarray) -> Arrivals:
    """Returns arrivals with so many steps; those that are partial are said to be."""
    spans, record = arrivals.spans, dict(arrivals.record)
    if spans is not None:
        behind = np.isin(spans.client, np.asarray(arrivals.clients)[partial])
        fate = np.where(behind & (spans.fate == _ARRIVED), _PARTIAL, spans.fate).astype(np.int8)
        spans = Spans(spans.client, spans.begin, spans.end, fate)
        record["systems/clients_partial"] = int((fate == _PARTIAL).sum())
    return arrivals._replace(steps=steps, spans=spans, record=record)
