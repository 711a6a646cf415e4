"""Profiles of devices: how unlike the devices of a population are, in a line.

Each function returns the `Devices` of N clients. Which device client i has depends on (seed, i)
alone: a population that grows keeps the devices that it has.

How fast devices compute is said in seconds of a local step, or, with `gflops`, in 10^9
floating-point operations a second; the run then knows what a step costs. What is not said has no
bound: links that take no time, memory without end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core import random
from fljax.core.values import (
    COUNT,
    FACTOR,
    NON_NEGATIVE,
    POSITIVE,
    Field,
    checked,
    sequence,
    shown,
)
from fljax.systems import flgo_work
from fljax.systems.devices import Devices, equal
from fljax.systems.drawn import by_shares, chosen, entries

_COUNT = Field(None, int, COUNT)
_NOT_NEGATIVE = Field(None, float, NON_NEGATIVE)
_RATE = Field(None, float, POSITIVE)
_SHARE = Field(None, float, FACTOR)


def lognormal(
    num_clients: int,
    seed: int = 0,
    sigma: float = 1.0,
    step_seconds: float = 1.0,
    gflops: float | None = None,
    uplink_mbps: float | None = None,
    downlink_mbps: float | None = None,
    link_sigma: float = 0.0,
    memory_gb: float | None = None,
    compute_watts: float = 0.0,
    radio_watts: float = 0.0,
    spread: float = 0.0,
) -> Devices:
    """Gives clients devices whose speeds are log-normal: half of them are slower than the median.

    A device's step takes exp(sigma z) times the median, z ~ N(0, 1); its links, both of them,
    exp(link_sigma z') times theirs.

    Args:
      num_clients: N.
      seed: Of the draws.
      sigma: Standard deviation of the logarithm of a step's time; 0 makes all devices alike.
      step_seconds: Median seconds of one local step.
      gflops: Instead, median 10^9 floating-point operations a second.
      uplink_mbps: Median megabits a second; None takes no time.
      downlink_mbps: Likewise.
      link_sigma: Standard deviation of the logarithm of the links' speeds.
      memory_gb: Gigabytes of every device that training may take; None is no bound.
      compute_watts: Watts while computing.
      radio_watts: Watts while receiving and sending.
      spread: See `Devices`.

    Raises:
      ValueError: If a deviation is negative, or a device has no speed.

    Example:
      >>> from fljax.systems.profiles import lognormal
      >>> small, large = lognormal(10), lognormal(100_000)
      >>> bool((small.step_seconds == large.step_seconds[:10]).all())
      True
      >>> round(float(np.median(large.step_seconds)), 2)
      1.0
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    sigma = checked("sigma", sigma, _NOT_NEGATIVE)
    slower = np.exp(sigma * random.normal(seed, "systems/compute", np.arange(num_clients)))
    link_sigma = checked("link_sigma", link_sigma, _NOT_NEGATIVE)
    links = np.exp(link_sigma * random.normal(seed, "systems/links", np.arange(num_clients)))
    columns = _columns(
        1,
        step_seconds=step_seconds,
        gflops=gflops,
        uplink_mbps=uplink_mbps,
        downlink_mbps=downlink_mbps,
        memory_gb=memory_gb,
        compute_watts=compute_watts,
        radio_watts=radio_watts,
    )
    return _devices(columns, num_clients, spread, slower, links)


def half_normal(
    num_clients: int,
    seed: int = 0,
    step_seconds: float = 1.0,
    least: float = 0.0,
    uplink_mbps: float | None = None,
    downlink_mbps: float | None = None,
    memory_gb: float | None = None,
    compute_watts: float = 0.0,
    radio_watts: float = 0.0,
    spread: float = 0.0,
) -> Devices:
    """Gives clients devices whose steps take half-normal times: most are quick, a few are slow.

    A device's step takes least + step_seconds |z|, z ~ N(0, 1), the distribution with which
    Nguyen et al. (2022) model how long clients train (arXiv:2106.06639).

    Args:
      num_clients: N.
      seed: Of the draws.
      step_seconds: Standard deviation of the normal distribution; their mean is 0.8 of it.
      least: Seconds that a step takes on any device.
      uplink_mbps, downlink_mbps, memory_gb, compute_watts, radio_watts, spread: As in `lognormal`,
        the same for all.

    Raises:
      ValueError: If steps take no time.

    Example:
      >>> from fljax.systems.profiles import half_normal
      >>> round(float(half_normal(100_000, step_seconds=2.0, least=1.0).step_seconds.mean()), 1)
      2.6
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    step_seconds = checked("step_seconds", step_seconds, _RATE)
    least = checked("least", least, _NOT_NEGATIVE)
    drawn = np.abs(random.normal(seed, "systems/compute", np.arange(num_clients)))
    columns = _columns(
        1,
        step_seconds=step_seconds,
        gflops=None,
        uplink_mbps=uplink_mbps,
        downlink_mbps=downlink_mbps,
        memory_gb=memory_gb,
        compute_watts=compute_watts,
        radio_watts=radio_watts,
    )
    return _devices(columns, num_clients, spread, drawn + least / step_seconds)


def tiers(
    num_clients: int,
    seed: int = 0,
    shares: Sequence[float] = (0.5, 0.3, 0.2),
    speeds: Sequence[float] = (1.0, 2.0, 4.0),
    names: Sequence[str] | None = None,
    step_seconds: float = 1.0,
    gflops: float | None = None,
    uplink_mbps: float | Sequence[float] | None = None,
    downlink_mbps: float | Sequence[float] | None = None,
    memory_gb: float | Sequence[float] | None = None,
    compute_watts: float | Sequence[float] = 0.0,
    radio_watts: float | Sequence[float] = 0.0,
    spread: float = 0.0,
) -> Devices:
    """Gives each client a device of one of K tiers; those of a tier are alike.

    Args:
      num_clients: N.
      seed: Of the draws.
      shares: K chances that a client's device belongs to a tier; their sum is 1.
      speeds: K relative speeds: a step of tier k takes step_seconds / speeds[k].
      names: K names of the tiers. Default: "tier 0", "tier 1", and so on.
      step_seconds: Seconds of a local step at speed 1.
      gflops: Instead, 10^9 floating-point operations a second at speed 1.
      uplink_mbps, downlink_mbps, memory_gb, compute_watts, radio_watts: As in `lognormal`; K
        numbers, or one for all.
      spread: See `Devices`.

    Raises:
      ValueError: If the lists are not of one length, or the shares do not add up to 1.

    Example:
      >>> from fljax.systems.profiles import tiers
      >>> phones = tiers(10_000, shares=[0.9, 0.1], speeds=[1, 10], names=["old", "new"])
      >>> (np.bincount(phones.tier) / 10_000).round(1).tolist(), phones.tiers
      ([0.9, 0.1], ('old', 'new'))
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    shares = [
        checked(f"shares[{tier}]", share, _SHARE)
        for tier, share in enumerate(sequence("shares", shares, "a list of numbers"))
    ]
    count = len(shares)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares = {shares} add up to {sum(shares):g}, and a client has one tier.")
    names = _names(names, count)
    columns = _columns(
        count,
        step_seconds=step_seconds,
        gflops=gflops,
        uplink_mbps=uplink_mbps,
        downlink_mbps=downlink_mbps,
        memory_gb=memory_gb,
        compute_watts=compute_watts,
        radio_watts=radio_watts,
    )
    paces = _column("speeds", speeds, count)
    tier = by_shares(num_clients, seed, shares)
    devices = chosen(_devices(columns, count, spread, 1 / paces), tier)
    return devices._replace(tier=tier.astype(np.int32), tiers=names)


def given(
    num_clients: int,
    seed: int = 0,
    step_seconds: float | Sequence[float] = 1.0,
    gflops: float | Sequence[float] | None = None,
    uplink_mbps: float | Sequence[float] | None = None,
    downlink_mbps: float | Sequence[float] | None = None,
    memory_gb: float | Sequence[float] | None = None,
    compute_watts: float | Sequence[float] = 0.0,
    radio_watts: float | Sequence[float] = 0.0,
    spread: float = 0.0,
    in_turn: bool = True,
) -> Devices:
    """Gives clients the devices of a list.

    Args:
      num_clients: N.
      seed: Of the draws, where there are any.
      step_seconds: L seconds of a local step, or one for all.
      gflops: Instead, 10^9 floating-point operations a second.
      uplink_mbps, downlink_mbps, memory_gb, compute_watts, radio_watts: As in `lognormal`; L
        numbers, or one for all.
      spread: See `Devices`.
      in_turn: Whether client i has the device i of the list, which starts again at its end;
        otherwise each client's is drawn, all with one chance.

    Raises:
      ValueError: If the lists are not of one length.

    Example:
      >>> from fljax.systems.profiles import given
      >>> given(5, step_seconds=[0.1, 0.2], memory_gb=4).step_seconds.tolist()
      [0.1, 0.2, 0.1, 0.2, 0.1]
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    several = {
        "step_seconds": step_seconds,
        "gflops": gflops,
        "uplink_mbps": uplink_mbps,
        "downlink_mbps": downlink_mbps,
        "memory_gb": memory_gb,
        "compute_watts": compute_watts,
        "radio_watts": radio_watts,
    }
    lists = [value for value in several.values() if isinstance(value, Sequence | np.ndarray)]
    count = max(map(len, lists), default=1)
    if not count:
        raise ValueError("the lists of devices are empty: give each at least one number.")
    listed = _devices(_columns(count, **several), count, spread)
    return chosen(listed, entries(num_clients, seed, count, in_turn))


def log_normal_response(
    num_clients: int, seed: int = 0, mean: float = 100.0, variance: float = 10.0
) -> Devices:
    """Gives clients devices that answer after a log-normal time of their own: FLGo's LN.

    How many steps and bytes a job has does not matter; see `fljax.systems.flgo_work`.

    Args:
      num_clients: N.
      seed: Of the draws.
      mean, variance: Of the seconds.

    Example:
      >>> from fljax.systems.profiles import log_normal_response
      >>> bool((log_normal_response(3).response_seconds > 50).all())
      True
    """
    clients = np.arange(checked("num_clients", num_clients, _COUNT))
    return _answering(flgo_work.log_normal_response(clients, seed, mean, variance))


def uniform_response(
    num_clients: int, seed: int = 0, least: float = 0.0, most: float = 1.0
) -> Devices:
    """Gives clients devices that answer after a uniform time of their own: FLGo's UNI.

    Args:
      num_clients: N.
      seed: Of the draws.
      least, most: Seconds.

    Example:
      >>> from fljax.systems.profiles import uniform_response
      >>> bool((uniform_response(3, least=1, most=3).response_seconds < 3).all())
      True
    """
    clients = np.arange(checked("num_clients", num_clients, _COUNT))
    return _answering(flgo_work.uniform_response(clients, seed, least, most))


def _answering(seconds: np.ndarray) -> Devices:
    return equal(len(seconds))._replace(response_seconds=seconds)


def _devices(
    columns: Mapping[str, np.ndarray | None],
    count: int,
    spread: float,
    slower: np.ndarray | float = 1.0,
    links: np.ndarray | float = 1.0,
) -> Devices:
    """Returns `count` devices.

    Args:
      columns: From `_columns`, each of `count` numbers, or of one for all.
      count: Of devices.
      spread: As in `Devices`.
      slower: float64[count], or one for all, factors of a step's time.
      links: Likewise, factors of the links' speeds.
    """

    def whole(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (count,))

    gflops = columns["gflops"]
    return Devices(
        step_seconds=whole(columns["step_seconds"] * slower) if gflops is None else None,
        flops=None if gflops is None else whole(1e9 * gflops / slower),
        uplink_mbps=whole(columns["uplink_mbps"] * links),
        downlink_mbps=whole(columns["downlink_mbps"] * links),
        memory_gb=whole(columns["memory_gb"]),
        compute_watts=whole(columns["compute_watts"]),
        radio_watts=whole(columns["radio_watts"]),
        spread=checked("spread", spread, _NOT_NEGATIVE),
    )


def _columns(count: int, **several: Any) -> dict[str, np.ndarray | None]:
    """Returns {name: float64[count]} of numbers or lists; of what has no bound, inf."""
    columns: dict[str, np.ndarray | None] = {}
    for name, value in several.items():
        if value is None:
            columns[name] = None if name == "gflops" else np.full(count, np.inf)
        else:
            columns[name] = _column(name, value, count)
    return columns


def _column(name: str, value: Any, count: int) -> np.ndarray:
    """Returns float64[count] of one number for all, or of a list of as many."""
    field = _NOT_NEGATIVE if name.endswith("watts") else _RATE
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        return np.full(count, checked(name, value, field))
    if len(value) != count:
        raise ValueError(
            f"{name} = {shown(value)} has {len(value)} entries, and others have {count}."
        )
    return np.array(
        [checked(f"{name}[{place}]", entry, field) for place, entry in enumerate(value)]
    )


def _names(names: Any, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"tier {number}" for number in range(count))
    names = tuple(
        checked(f"names[{place}]", name, Field(None, str))
        for place, name in enumerate(sequence("names", names, "a list of texts"))
    )
    if len(set(names)) != count or len(names) != count:
        raise ValueError(f"names = {shown(names)} must be {count} different names, one a tier.")
    return names
