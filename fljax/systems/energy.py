"""Energy and cost of jobs: watts times seconds, of computing and of the radio."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core.values import NON_NEGATIVE, Field, checked
from fljax.systems.devices import Devices
from fljax.systems.jobs import JobTimes

_PRICE = Field(None, float, NON_NEGATIVE)
_JOULES_PER_KWH = 3.6e6


class Energy(NamedTuple):
    """The energy that n jobs draw from their devices.

    Attributes:
      compute: float64[n] joules of local training.
      radio: float64[n] joules of receiving and sending.
    """

    compute: np.ndarray
    radio: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """float64[n] joules."""
        return self.compute + self.radio


def energy(devices: Devices, clients: np.ndarray, times: JobTimes) -> Energy:
    """Returns what jobs draw: the watts of a phase times its seconds.

    Args:
      devices: Of all clients.
      clients: int64[n] whose jobs they are.
      times: How long each phase took; of work that was cut off, until then.

    Example:
      >>> from fljax.systems.energy import energy
      >>> from fljax.systems.jobs import job_times
      >>> from fljax.systems.profiles import lognormal
      >>> phones = lognormal(3, sigma=0, uplink_mbps=8, compute_watts=4, radio_watts=1)
      >>> clients = np.array([0, 2])
      >>> drawn = energy(phones, clients, job_times(phones, clients, 10, 1e6, 1e6))
      >>> drawn.compute.tolist(), drawn.radio.tolist(), drawn.total.tolist()
      ([40.0, 40.0], [1.0, 1.0], [41.0, 41.0])
    """
    on_air = times.download + times.upload
    return Energy(
        devices.compute_watts[clients] * times.compute, devices.radio_watts[clients] * on_air
    )


def cost(
    joules: np.ndarray,
    sent_bytes: np.ndarray | float = 0.0,
    price_per_kwh: float = 0.0,
    price_per_gb: float = 0.0,
) -> np.ndarray:
    """Returns what jobs cost, in the currency of the prices.

    Args:
      joules: float64[n] that they draw.
      sent_bytes: float64[n], or one for all, bytes that go over links, both ways together.
      price_per_kwh: Of 3.6 million joules.
      price_per_gb: Of 10^9 bytes.

    Returns:
      float64[n].

    Raises:
      ValueError: If a price is negative.

    Example:
      >>> from fljax.systems.energy import cost
      >>> cost(np.array([3.6e6]), 5e8, price_per_kwh=0.3, price_per_gb=2.0).tolist()
      [1.3]
    """
    per_kwh = checked("price_per_kwh", price_per_kwh, _PRICE)
    per_gb = checked("price_per_gb", price_per_gb, _PRICE)
    return np.asarray(joules) / _JOULES_PER_KWH * per_kwh + np.asarray(sent_bytes) / 1e9 * per_gb
