"""Devices of the clients: how fast they compute and send, what they hold, what they draw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core.values import POSITIVE, Field, checked

_RATE = Field(None, float, POSITIVE)


class Devices(NamedTuple):
    """What the devices of N clients can do; each array has one entry a client.

    A job of `steps` local steps takes its client

        8 downlink_bytes / downlink + steps x seconds of a step + 8 uplink_bytes / uplink

    seconds, times what `spread` draws for it.

    Attributes:
      step_seconds: float64[N] seconds of one local step. Where `flops` says how fast a device
        computes instead, None.
      flops: float64[N] floating-point operations a second, or None.
      uplink_mbps: float64[N] megabits (10^6 bits) a second; inf takes no time.
      downlink_mbps: float64[N] likewise.
      memory_gb: float64[N] gigabytes (10^9 bytes) that training may take; inf is no bound.
      compute_watts: float64[N] watts while computing.
      radio_watts: float64[N] watts while receiving and sending.
      tier: int32[N] the tier that each device belongs to, or None.
      tiers: Names of the tiers.
      spread: Standard deviation of the logarithm of a job's time about its median: 0 makes all
        jobs of a client alike.
      uplink_sd: float64[N] standard deviation of the link's speed about `uplink_mbps`, in the same
        unit. A job's speed is then normal, drawn again while it is not positive. None where all
        jobs of a client have one speed.
      downlink_sd: Likewise.
      response_seconds: float64[N] seconds until a device answers, whatever it is asked for, in the
        place of all else; None where steps and bytes decide.

    Example:
      >>> from fljax.systems.devices import equal
      >>> phones = equal(3, step_seconds=0.2)
      >>> phones.step_seconds.tolist(), phones.num_clients
      ([0.2, 0.2, 0.2], 3)
    """

    step_seconds: np.ndarray | None
    flops: np.ndarray | None
    uplink_mbps: np.ndarray
    downlink_mbps: np.ndarray
    memory_gb: np.ndarray
    compute_watts: np.ndarray
    radio_watts: np.ndarray
    tier: np.ndarray | None = None
    tiers: tuple[str, ...] = ()
    spread: float = 0.0
    uplink_sd: np.ndarray | None = None
    downlink_sd: np.ndarray | None = None
    response_seconds: np.ndarray | None = None

    @property
    def num_clients(self) -> int:
        """The number of devices."""
        return len(self.uplink_mbps)


def equal(num_clients: int, step_seconds: float = 1.0) -> Devices:
    """Gives all clients the same device: a step takes it some time, and nothing else does.

    Args:
      num_clients: N.
      step_seconds: Seconds of one local step.

    Raises:
      ValueError: If a step takes no time.
    """
    step = checked("step_seconds", step_seconds, _RATE)
    without = np.full(num_clients, np.inf)
    none = np.zeros(num_clients)
    return Devices(np.full(num_clients, step), None, without, without, without, none, none)
