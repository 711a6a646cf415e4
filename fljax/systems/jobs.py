"""Jobs in seconds: how long devices download, compute and upload."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fljax.core import random
from fljax.core.values import POSITIVE, wrong
from fljax.systems.devices import Devices


class JobTimes(NamedTuple):
    """Durations of n jobs, phase by phase.

    Attributes:
      download: float64[n] seconds until the client has the model.
      compute: float64[n] seconds of local training.
      upload: float64[n] seconds until the server has the update.
    """

    download: np.ndarray
    compute: np.ndarray
    upload: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """float64[n] seconds from the server's request to its answer."""
        return self.download + self.compute + self.upload


def job_times(
    devices: Devices,
    clients: np.ndarray,
    steps: np.ndarray | int,
    downlink_bytes: np.ndarray | float,
    uplink_bytes: np.ndarray | float,
    seed: int = 0,
    number: np.ndarray | int = 0,
) -> JobTimes:
    """Returns how long jobs take; what it costs follows the jobs, not the population.

    Where devices have a `spread`, all phases of a job are multiplied by one log-normal number of
    median 1. That and the speeds of links that vary depend on (seed, client, number) alone: never
    on who else works.

    Args:
      devices: Of all clients.
      clients: int64[n] whose jobs they are.
      steps: int64[n], or one for all, local steps.
      downlink_bytes: float64[n], or one for all, bytes that a client receives.
      uplink_bytes: Likewise, bytes that it sends.
      seed: Of the draws.
      number: int64[n], or one for all, the client's how manieth job it is.

    Raises:
      ValueError: If the devices say FLOP/s and no seconds.

    Example:
      >>> from fljax.systems.devices import equal
      >>> from fljax.systems.jobs import job_times
      >>> slow = equal(3, step_seconds=0.5)._replace(uplink_mbps=np.full(3, 8.0))
      >>> times = job_times(slow, np.array([0, 2]), np.array([4, 10]), 1e6, 1e6)
      >>> times.compute.tolist(), times.upload.tolist(), times.total.tolist()
      ([2.0, 5.0], [1.0, 1.0], [3.0, 6.0])
    """
    if devices.step_seconds is None:
        raise ValueError(
            "devices say how many FLOP/s they compute, and not how long a step takes: give the "
            "FLOPs of a step to fljax.systems.jobs.with_flops first."
        )
    clients = np.asarray(clients)
    factor = np.ones(len(clients))
    if devices.spread:
        factor = np.exp(devices.spread * random.normal(seed, "systems/jobs", clients, number))
    if devices.response_seconds is not None:
        nothing = np.zeros(len(clients))
        return JobTimes(nothing, factor * devices.response_seconds[clients], nothing)
    number = np.broadcast_to(number, clients.shape)
    down = _speeds("down", devices.downlink_mbps, devices.downlink_sd, clients, seed, number)
    up = _speeds("up", devices.uplink_mbps, devices.uplink_sd, clients, seed, number)
    return JobTimes(
        factor * (8e-6 * downlink_bytes / down),
        factor * (steps * devices.step_seconds[clients]),
        factor * (8e-6 * uplink_bytes / up),
    )


def with_flops(
    devices: Devices, flops_per_step: np.ndarray | float, moved_per_step: np.ndarray | float = 0.0
) -> Devices:
    """Returns devices whose step takes as long as its arithmetic, or its traffic with memory.

    That is the operations over those a second or, where devices have a bandwidth and it takes
    longer, the bytes over that; and what a step costs beside both.

    Args:
      devices: With `flops`.
      flops_per_step: float64[N], or one for all, floating-point operations of a local step.
      moved_per_step: Likewise, bytes that it reads and writes.

    Raises:
      ValueError: If the devices do not say FLOP/s, or a step has none.

    Example:
      >>> from fljax.systems.devices import equal
      >>> from fljax.systems.jobs import with_flops
      >>> phones = equal(2)._replace(step_seconds=None, flops=np.array([1e9, 4e9]))
      >>> with_flops(phones, 2e9).step_seconds.tolist()
      [2.0, 0.5]
      >>> with_flops(phones._replace(bandwidth=np.full(2, 1e9)), 2e9, 1e9).step_seconds.tolist()
      [2.0, 1.0]
    """
    if devices.flops is None:
        raise ValueError(
            "devices.flops is None: these devices say how long a step takes already "
            "(step_seconds), or nothing of their speed."
        )
    work = np.asarray(flops_per_step, np.float64)
    if not (np.isfinite(work) & (work > 0)).all():
        raise wrong("flops_per_step", flops_per_step, f"{POSITIVE} and finite")
    seconds = np.broadcast_to(work / devices.flops, devices.flops.shape)
    if devices.bandwidth is not None:
        seconds = np.maximum(seconds, np.asarray(moved_per_step) / devices.bandwidth)
    if devices.overhead_seconds is not None:
        seconds = seconds + devices.overhead_seconds
    return devices._replace(step_seconds=seconds)


def _speeds(
    link: str,
    means: np.ndarray,
    deviations: np.ndarray | None,
    clients: np.ndarray,
    seed: int,
    number: np.ndarray,
) -> np.ndarray:
    """Returns float64[n] megabits a second of jobs' links, of those that vary as drawn."""
    means = means[clients]
    if deviations is None:
        return means
    speeds, left, attempt = np.zeros(len(clients)), np.arange(len(clients)), 0
    while len(left):  # half of the draws or more are positive, since means are
        who, job = clients[left], number[left]
        drawn = random.normal(seed, f"systems/jobs/{link}", who, job, attempt)
        speeds[left] = means[left] + deviations[who] * drawn
        left, attempt = left[speeds[left] <= 0], attempt + 1
    return speeds
