"""Gives clients devices of the edge by name: the profile `edge`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fljax.core.values import (
    COUNT,
    FACTOR,
    NON_NEGATIVE,
    POSITIVE,
    Field,
    checked,
    sequence,
)
from fljax.systems.devices import Devices
from fljax.systems.drawn import by_shares, chosen
from fljax.systems.hardware import hardware
from fljax.systems.roofline import REACHED, TRAINING

_COUNT = Field(None, int, COUNT)
_RATE = Field(None, float, POSITIVE)
_SHARE = Field(None, float, FACTOR)
_SPREAD = Field(None, float, NON_NEGATIVE)


def edge(
    num_clients: int,
    seed: int = 0,
    devices: str | Sequence[str] = ("phone_high", "phone_mid", "phone_low"),
    shares: Sequence[float] | None = None,
    uplink_mbps: float = 5.0,
    downlink_mbps: float = 5.0,
    spread: float = 0.0,
) -> Devices:
    """Gives each client one of several devices of the edge, which train at the speed of a roofline.

    A local step takes what `fljax.systems.roofline` estimates from the model's operations and the
    bytes that it moves. A device whose memory is too small has no part in the run.

    Args:
      num_clients: N.
      seed: Of the draws.
      devices: K names of `fljax.systems.hardware.HARDWARE`, or one.
      shares: K chances that a client has the device; unset: all alike.
      uplink_mbps: Megabits a second of all links.
      downlink_mbps: Likewise.
      spread: See `Devices`.

    Returns:
      Devices whose tiers are the names.

    Raises:
      ValueError: For an unknown device, one that does not train, or shares that are not K numbers
        with the sum 1.

    Example:
      >>> from fljax.systems.edge import edge
      >>> found = edge(4, devices=["raspberry_pi_5"])
      >>> found.tiers, found.compute_watts.tolist()
      (('raspberry_pi_5',), [9.8, 9.8, 9.8, 9.8])
    """
    num_clients = checked("num_clients", num_clients, _COUNT)
    names = (devices,) if isinstance(devices, str) else tuple(sequence("devices", devices, "names"))
    found = [hardware(name) for name in names]
    if not found or len(set(names)) < len(names):
        raise ValueError(f"devices = {list(names)!r} must be different names, one at least.")
    for name, each in zip(names, found, strict=True):
        if not each.trains:
            raise ValueError(
                f"devices: {name} ({each.about}) does not train. Name devices with float32."
            )
    count = len(names)
    given = [1 / count] * count if shares is None else sequence("shares", shares, "numbers")
    chances = [checked(f"shares[{n}]", share, _SHARE) for n, share in enumerate(given)]
    if len(chances) != count or abs(sum(chances) - 1) > 1e-6:
        raise ValueError(f"shares = {chances} must be {count} numbers with the sum 1.")
    uplink = checked("uplink_mbps", uplink_mbps, _RATE)
    downlink = checked("downlink_mbps", downlink_mbps, _RATE)
    reached = [REACHED[each.kind] for each in found]
    listed = Devices(
        step_seconds=None,
        flops=np.array(
            [part.peak[TRAINING] * each.peak["float32"]
             for part, each in zip(reached, found, strict=True)]
        ),
        uplink_mbps=np.full(count, uplink),
        downlink_mbps=np.full(count, downlink),
        memory_gb=np.array([each.memory / 1e9 for each in found]),
        compute_watts=np.array([each.watts for each in found]),
        radio_watts=np.array([each.radio_watts for each in found]),
        spread=checked("spread", spread, _SPREAD),
        bandwidth=np.array(
            [part.bandwidth * each.bandwidth for part, each in zip(reached, found, strict=True)]
        ),
        overhead_seconds=np.array([part.overhead for part in reached]),
    )  # fmt: skip
    tier = by_shares(num_clients, seed, chances)
    return chosen(listed, tier)._replace(tier=tier.astype(np.int32), tiers=names)
