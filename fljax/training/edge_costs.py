"""Estimates what a round asks of a client's device: seconds, joules, memory, transfer."""

from __future__ import annotations

from typing import NamedTuple

from fljax.core.digits import amount
from fljax.core.durations import duration
from fljax.systems.hardware import Hardware
from fljax.systems.roofline import TRAINING, Estimate, estimate

# Links of phones, in megabits a second, where nothing is said: as `fljax.systems.presets`.
LINK_MBPS = 5.0


class RoundWork(NamedTuple):
    """The work of one client in a round.

    Attributes:
      steps: Local steps.
      flops: Operations of a step.
      moved: Bytes that a step moves between memory and processor.
      memory: Bytes that training takes at its worst moment.
      downlink_bytes, uplink_bytes: That the client receives and sends.
    """

    steps: float
    flops: float
    moved: float
    memory: float
    downlink_bytes: float
    uplink_bytes: float


class RoundCost(NamedTuple):
    """The cost of a round for a device.

    Attributes:
      training: Of all steps; None where the device does not train.
      transfer_seconds: Until the model is there and the update is sent.
      joules: Of both, the whole device; None where it does not train.
      fits: Whether training fits into its memory.
    """

    training: Estimate | None
    transfer_seconds: float
    joules: float | None
    fits: bool


def round_cost(
    device: Hardware,
    work: RoundWork,
    uplink_mbps: float | None = None,
    downlink_mbps: float | None = None,
) -> RoundCost:
    """Returns what a round of one client takes of a device.

    Args:
      device: One of `fljax.systems.hardware.HARDWARE`.
      work: Of the client.
      uplink_mbps: Megabits a second that the client sends with; unset: 5.
      downlink_mbps: Likewise, that it receives with.

    Example:
      >>> from fljax.systems.hardware import hardware
      >>> from fljax.training.edge_costs import RoundWork, round_cost
      >>> work = RoundWork(10, 1e9, 1e6, 2e6, downlink_bytes=1e6, uplink_bytes=1e6)
      >>> cost = round_cost(hardware("mcu_cortex_m7"), work, uplink_mbps=8, downlink_mbps=8)
      >>> round(cost.training.seconds), cost.transfer_seconds, cost.fits
      (104, 2.0, False)
    """
    transfer = 8e-6 * work.downlink_bytes / (downlink_mbps or LINK_MBPS)
    transfer += 8e-6 * work.uplink_bytes / (uplink_mbps or LINK_MBPS)
    step = estimate(device, work.flops, work.moved, work=TRAINING)
    fits = work.memory <= device.memory
    if step is None:
        return RoundCost(None, transfer, None, fits)
    seconds, least, most, joules = (
        work.steps * number for number in (step.seconds, step.least, step.most, step.joules)
    )
    whole = Estimate(seconds, least, most, joules, step.bound)
    return RoundCost(whole, transfer, joules + device.radio_watts * transfer, fits)


def described(device: Hardware, work: RoundWork, cost: RoundCost) -> str:
    """Returns what a round takes of a device, in words.

    Example:
      >>> from fljax.systems.hardware import hardware
      >>> from fljax.training.edge_costs import RoundWork, described, round_cost
      >>> work, board = RoundWork(10, 1e9, 1e6, 2e6, 1e6, 1e6), hardware("raspberry_pi_5")
      >>> described(board, work, round_cost(board, work))
      'trains 1.08 s a round (0.181 s to 6.50 s), transfers 3.20 s, 13.82 J; 2.00 MB of 4.00 GB'
    """
    memory = f"{amount(work.memory, 'B')} of {amount(device.memory, 'B')}"
    if cost.training is None:
        return "does not train: it computes with 8-bit integers alone"
    if not cost.fits:
        return f"does not fit: training takes {memory}"
    times = [duration(each) for each in (cost.training.least, cost.training.most)]
    return (
        f"trains {duration(cost.training.seconds)} a round ({' to '.join(times)}), transfers "
        f"{duration(cost.transfer_seconds)}, {amount(cost.joules, 'J')}; {memory}"
    )
