"""Metering: adds the energy of a round's jobs to its record."""

from __future__ import annotations

from typing import Any

import numpy as np

from fljax.core.schedule import Schedule
from fljax.systems.energy import energy
from fljax.systems.fleet import Fleet
from fljax.systems.jobs import JobTimes

KEYS = ("systems/round_joules", "systems/joules")


def draws_power(fleet: Fleet) -> bool:
    """Returns whether the devices of a fleet say what they draw."""
    return bool(fleet.devices.compute_watts.any() or fleet.devices.radio_watts.any())


def metered(schedule: Schedule, fleet: Fleet) -> Schedule:
    """Returns a schedule whose records tell the joules of a round's jobs, and of all so far.

    A job draws power from its beginning until it ends, or is given up: its phases have the shares
    of time that they have in a usual job of that client.

    Args:
      schedule: One with a clock.
      fleet: The clients, whose devices say watts.

    Example:
      >>> from fljax.core.sampler import replay
      >>> from fljax.systems.fleet import Fleet
      >>> from fljax.systems.metering import metered
      >>> from fljax.systems.profiles import lognormal
      >>> from fljax.systems.synchronous import wait_for_all
      >>> phones = lognormal(2, sigma=0, step_seconds=0.5, compute_watts=4)
      >>> fleet = Fleet(phones, None, np.array([10, 2]), 0.0, 0.0, 0.0, seed=0)
      >>> waits = wait_for_all(fleet, lambda count: replay([[0, 1]], num_clients=2), 2)
      >>> schedule = metered(waits, fleet)
      >>> schedule.draw(schedule.init(), 0)[0].record["systems/joules"]
      24.0
    """
    usual = fleet.medians()
    whole = np.where(usual.total > 0, usual.total, 1)
    shares = [phase / whole for phase in usual]

    def init() -> Any:
        return schedule.init(), np.float64(0)

    def draw(state: Any, round: int):
        inner, before = state
        arrivals, inner = schedule.draw(inner, round)
        spans = arrivals.spans
        lasted = spans.end - spans.begin
        times = JobTimes(*(share[spans.client] * lasted for share in shares))
        joules = float(energy(fleet.devices, spans.client, times).total.sum())
        told = dict(zip(KEYS, (joules, before + joules), strict=True))
        told = {key: float(value) for key, value in told.items()}
        state = inner, np.float64(before + joules)
        return arrivals._replace(record={**arrivals.record, **told}), state

    def observe(state: Any, round: int, statistics: Any) -> Any:
        return schedule.observe(state[0], round, statistics), state[1]

    return schedule._replace(init=init, draw=draw, observe=observe)
