"""Totals that a run carries from round to round for its records."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class RoundTotals:
    """Totals over a run, in Python numbers; checkpoints keep them.

    Attributes:
      uplink_bits: Bits sent by all clients so far.
      downlink_bits: Bits sent to all clients so far.
      elapsed: Seconds of rounds and evaluations so far.
      transfer: Seconds of simulated transfers so far.
      first_loss: Training loss of the first round that had one.
      least_norm: Smallest mean norm of a round's updates so far, zeros apart.
      alarmed: Whether it has been said that training diverges.
    """

    uplink_bits: int = 0
    downlink_bits: int = 0
    elapsed: float = 0.0
    transfer: float = 0.0
    first_loss: float | None = None
    least_norm: float | None = None
    alarmed: bool = False
