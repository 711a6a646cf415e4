"""The fleet: the clients of a run as time sees them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.systems.availability import Availability
from fljax.systems.devices import Devices
from fljax.systems.jobs import JobTimes, job_times


class Fleet(NamedTuple):
    """The clients' devices, when they are there, and what a job asks of them.

    Attributes:
      devices: Of all N clients.
      availability: When they are online; None is always.
      steps: int64[N] local steps of a client's job; 0 for clients that have no batch.
      downlink_bytes: Bytes that a client receives for a job.
      uplink_bytes: Bytes that it sends.
      dropout: Probability that a job is lost, whatever the device and the time; or float64[N].
      seed: Of the run.

    Example:
      >>> from fljax.systems.devices import equal
      >>> from fljax.systems.fleet import Fleet
      >>> fleet = Fleet(equal(3, 0.5), None, np.array([4, 2, 10]), 0.0, 0.0, 0.0, seed=0)
      >>> fleet.times(np.array([0, 2]), number=0).total.tolist()
      [2.0, 5.0]
    """

    devices: Devices
    availability: Availability | None
    steps: np.ndarray
    downlink_bytes: float
    uplink_bytes: float
    dropout: float | np.ndarray
    seed: int

    @property
    def loses(self) -> bool:
        """Says whether jobs may be lost."""
        return bool(np.any(np.asarray(self.dropout) > 0)) or self.availability is not None

    def times(
        self, clients: np.ndarray, number: np.ndarray | int, steps: np.ndarray | None = None
    ) -> JobTimes:
        """Returns how long jobs take.

        Args:
          clients: int64[n] whose jobs they are.
          number: int64[n], or one for all, of the job among the client's.
          steps: int64[n] local steps; None for the configured ones.
        """
        steps = self.steps[clients] if steps is None else steps
        return job_times(
            self.devices, clients, steps, self.downlink_bytes, self.uplink_bytes, self.seed, number
        )

    def medians(self) -> JobTimes:
        """Returns how long a job of each client takes when nothing is unusual, float64[N]."""
        devices = self.devices._replace(spread=0.0, uplink_sd=None, downlink_sd=None)
        usual = self._replace(devices=devices)
        return usual.times(np.arange(len(self.steps)), 0)

    def ends(
        self,
        clients: np.ndarray,
        begin: np.ndarray | float,
        number: np.ndarray | int,
        steps: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns when jobs end, and which are lost.

        A job is lost as its client goes offline, or with probability `dropout` at a moment that is
        uniform over its time. Clients that have no batch are not asked to work: that takes no time,
        and nothing is lost.

        Args:
          clients: int64[n] whose jobs they are.
          begin: float64[n], or one for all, seconds at which they begin.
          number, steps: As for `times`.

        Returns:
          (float64[n] seconds of the end or the loss, bool[n] lost).
        """
        works = self.steps[clients] > 0
        total = np.where(works, self.times(clients, number, steps).total, 0)
        end, lost = begin + total, np.zeros(len(clients), bool)
        # of these clients alone: the population may be large
        chance = np.asarray(self.dropout)
        chance = chance[clients] if chance.ndim else chance
        if np.any(chance > 0):
            lost = works & (random.uniform(self.seed, "systems/lost", clients, number) < chance)
            share = random.uniform(self.seed, "systems/lost/when", clients, number)
            end = np.where(lost, begin + share * total, end)
        if self.availability is not None:
            until = np.where(works, self.availability.until(clients, begin), np.inf)
            lost |= until < end
            end = np.minimum(end, until)
        return end, lost
