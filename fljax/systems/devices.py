"""Devices of the clients: how fast they compute and send, what they hold, what they draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fljax.core.values import NON_NEGATIVE, POSITIVE, Field, Interval, checked, shown

_RATE = Field(None, float, POSITIVE)


class Devices(NamedTuple):
    """The abilities of the devices of N clients; each array has one entry a client.

    A job of `steps` local steps takes its client

        8 downlink_bytes / downlink + steps x seconds of a step + 8 uplink_bytes / uplink

    seconds, times what `spread` draws for it.

    Attributes:
      step_seconds: float64[N] seconds of one local step. Where `flops` says how fast a device
        computes instead, None.
      flops: float64[N] floating-point operations a second, or None.
      bandwidth: float64[N] bytes a second that a step moves between memory and processor, beside
        `flops`, of which the slower one decides; None is no bound.
      overhead_seconds: float64[N] seconds that a step takes beside both; None is none.
      uplink_mbps: float64[N] megabits (10^6 bits) a second; inf takes no time.
      downlink_mbps: float64[N] likewise.
      memory_gb: float64[N] gigabytes (10^9 bytes) that training may take; inf is no bound. Whose
        device has less than it takes has no part in it.
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
    bandwidth: np.ndarray | None = None
    overhead_seconds: np.ndarray | None = None

    @property
    def num_clients(self) -> int:
        """The number of devices."""
        return len(self.uplink_mbps)


class _Column(NamedTuple):
    """The range of an array of `Devices`, and whether inf and None are in it."""

    allowed: Interval
    unbounded: bool = False
    optional: bool = False


_COLUMNS = {
    "step_seconds": _Column(POSITIVE, optional=True),
    "flops": _Column(POSITIVE, optional=True),
    "uplink_mbps": _Column(POSITIVE, unbounded=True),
    "downlink_mbps": _Column(POSITIVE, unbounded=True),
    "memory_gb": _Column(POSITIVE, unbounded=True),
    "compute_watts": _Column(NON_NEGATIVE),
    "radio_watts": _Column(NON_NEGATIVE),
    "uplink_sd": _Column(NON_NEGATIVE, optional=True),
    "downlink_sd": _Column(NON_NEGATIVE, optional=True),
    "response_seconds": _Column(NON_NEGATIVE, optional=True),
    "bandwidth": _Column(POSITIVE, unbounded=True, optional=True),
    "overhead_seconds": _Column(NON_NEGATIVE, optional=True),
}


def checked_devices(devices: Devices, num_clients: int) -> Devices:
    """Returns devices whose columns are arrays, one entry a client, of numbers in their ranges.

    Args:
      devices: Lists in the place of arrays will do.
      num_clients: N.

    Raises:
      ValueError: For a column of another length or of no numbers, and for a number out of its
        range; it names the column, the client and the number.

    Example:
      >>> from fljax.systems.devices import checked_devices, equal
      >>> checked_devices(equal(2)._replace(step_seconds=[1, 2]), 2).step_seconds.tolist()
      [1.0, 2.0]
    """
    if devices.step_seconds is None and devices.flops is None:
        raise ValueError(
            "profiles: step_seconds and flops are both None. Say how long a step takes on each "
            "device, or how many FLOP/s it computes."
        )
    columns = {
        name: _checked_column(name, getattr(devices, name), num_clients, column)
        for name, column in _COLUMNS.items()
    }
    tier, count = devices.tier, len(devices.tiers)
    if tier is not None:
        tier = _numbers("tier", tier, num_clients)
        _check_range("tier", tier, (tier >= 0) & (tier < count) & (tier == np.floor(tier)),
                     f"a whole number below {count}, the number of tiers")  # fmt: skip
        tier = tier.astype(np.int32)
    spread = checked("profiles: spread", devices.spread, Field(None, float, NON_NEGATIVE))
    return devices._replace(**columns, tier=tier, spread=spread)


def _checked_column(name: str, values: Any, num_clients: int, column: _Column) -> Any:
    """Returns float64[N] of a column, or None where it may be."""
    if values is None and column.optional:
        return None
    found = _numbers(name, values, num_clients)
    low = found > 0 if column.allowed.low_open else found >= 0
    ok = low & (np.isfinite(found) | (column.unbounded & (found == np.inf)))
    _check_range(name, found, ok, f"{column.allowed}{', or inf' if column.unbounded else ''}")
    return found


def _numbers(name: str, values: Any, num_clients: int) -> np.ndarray:
    """Returns float64[N] of a list or an array."""
    try:
        found = np.asarray(values)
        kind = found.dtype.kind
        numbers = found.astype(np.float64) if kind in "iuf" else None
    except (TypeError, ValueError):  # ragged, or no numbers
        numbers = None
    if numbers is None:
        raise ValueError(f"profiles: {name} = {shown(values)} must be an array of numbers.")
    if numbers.shape != (num_clients,):
        size = f"{len(numbers)} clients" if numbers.ndim == 1 else f"the shape {numbers.shape}"
        raise ValueError(
            f"profiles has the devices of {size} ({name}), and the population has {num_clients}. "
            "Give one for each client."
        )
    return numbers


def _check_range(name: str, found: np.ndarray, ok: np.ndarray, must: str) -> None:
    if not ok.all():
        client = int(np.flatnonzero(~ok)[0])
        raise ValueError(
            f"profiles: {name} of client {client} is {found[client]:g} and must be {must}."
        )


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
