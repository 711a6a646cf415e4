"""Estimates how long a computation takes on a device of the edge, and what it draws.

The roofline of Williams et al. (2009): arithmetic and memory work side by side, and the slower one
decides. With what programs reach of a device's peaks, and what each call of a program costs,

    seconds = overhead + max(operations / (share x peak), bytes / (share x bandwidth))
    joules  = watts x seconds

The shares are estimates, and programs differ: the interval of an estimate is the whole of it,
divided and multiplied by a factor. docs/deployment.md compares it with measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fljax.core.values import NON_NEGATIVE, Field, checked
from fljax.systems.hardware import Hardware

_NOT_NEGATIVE = Field(None, float, NON_NEGATIVE)
INFERENCE, TRAINING = "inference", "training"


class Reached(NamedTuple):
    """The share of a device's peaks that programs reach; all of it estimated.

    Attributes:
      peak: {"inference", "training": share of the peak}.
      bandwidth: Share of the bandwidth.
      overhead: Seconds that each call of a program takes beside its work.
      factor: An estimate is this many times too long or too short at most.
    """

    peak: Mapping[str, float]
    bandwidth: float
    overhead: float
    factor: float


# kind of device -> what programs reach of it
REACHED: dict[str, Reached] = {
    "cpu": Reached({INFERENCE: 0.2, TRAINING: 0.06}, 0.6, 1e-4, 6.0),
    "gpu": Reached({INFERENCE: 0.25, TRAINING: 0.25}, 0.6, 1e-3, 4.0),
    "accelerator": Reached({INFERENCE: 0.3}, 0.6, 5e-4, 4.0),
    "microcontroller": Reached({INFERENCE: 0.3, TRAINING: 0.1}, 0.6, 0.0, 5.0),
}


class Estimate(NamedTuple):
    """The duration of a computation, and the energy that it draws.

    Attributes:
      seconds: Of one call.
      least, most: Seconds that it takes at least and at most.
      joules: Of one call, at `seconds`.
      bound: "arithmetic", "memory" or "overhead": what decides.
    """

    seconds: float
    least: float
    most: float
    joules: float
    bound: str


def estimate(
    device: Hardware, flops: float, moved: float, *, work: str = INFERENCE, dtype: str = "float32"
) -> Estimate | None:
    """Returns how long a computation takes on a device; None where the device cannot do it.

    Args:
      device: The device.
      flops: Operations, a multiplication and an addition each.
      moved: Bytes that are read from memory and written to it.
      work: "inference" or "training".
      dtype: What is computed with.

    Raises:
      ValueError: If a number is negative.

    Example:
      >>> from fljax.systems.hardware import hardware
      >>> from fljax.systems.roofline import estimate
      >>> found = estimate(hardware("raspberry_pi_5"), flops=3.08e9, moved=1e6)
      >>> round(found.seconds, 4), found.bound, round(found.joules, 3)
      (0.1001, 'arithmetic', 0.981)
      >>> estimate(hardware("edge_tpu"), 1e9, 1e6, work="training") is None
      True
    """
    flops = checked("flops", flops, _NOT_NEGATIVE)
    moved = checked("moved", moved, _NOT_NEGATIVE)
    reached = REACHED[device.kind]
    if dtype not in device.peak or work not in reached.peak:
        return None
    parts = {
        "arithmetic": flops / (reached.peak[work] * device.peak[dtype]),
        "memory": moved / (reached.bandwidth * device.bandwidth),
        "overhead": reached.overhead,
    }
    seconds = parts["overhead"] + max(parts["arithmetic"], parts["memory"])
    return Estimate(
        seconds,
        seconds / reached.factor,
        seconds * reached.factor,
        device.watts * seconds,
        max(parts, key=lambda name: parts[name]),
    )
