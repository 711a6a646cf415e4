"""From a round's raw statistics to its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.engine.plan import PlanFacts


@dataclasses.dataclass
class RoundTotals:
    """What accumulates over a run, in Python numbers; checkpoints keep it.

    Attributes:
      uplink_bits: Bits sent by all clients so far.
      downlink_bits: Bits sent to all clients so far.
      elapsed: Seconds of rounds and evaluations so far.
    """

    uplink_bits: int = 0
    downlink_bits: int = 0
    elapsed: float = 0.0


def round_record(
    facts: PlanFacts,
    stats: Sequence[Mapping[str, np.ndarray]],
    totals: RoundTotals,
    seconds: float,
) -> dict[str, Any]:
    """Returns the record of one round, and adds to the totals.

    Args:
      facts: What the host knows of the plan.
      stats: Per-job statistics [D, J] of each pass.
      totals: Running totals, updated in place.
      seconds: Wall-clock time of the round.
    """
    last = stats[-1]
    totals.uplink_bits += sum(_exact_sum(one["uplink_bits"]) for one in stats)
    totals.downlink_bits += sum(_exact_sum(one["downlink_bits"]) for one in stats)
    totals.elapsed += seconds
    record = {
        "round": facts.round + 1,
        "train/clients": _exact_sum(last["jobs"]),
        "train/clients_nonfinite": _exact_sum(last["nonfinite"]),
        "train/clients_lost": _exact_sum(last["lost"]),
        "train/clients_without_rows": int(facts.without_rows.sum()),
        "train/local_steps": int(facts.steps.sum()),
        "comm/uplink_bytes": -(-totals.uplink_bits // 8),
        "comm/downlink_bytes": -(-totals.downlink_bits // 8),
        "time/round_seconds": seconds,
        "time/elapsed_seconds": totals.elapsed,
        "time/plan_seconds": facts.seconds,
        "throughput/clients_per_second": facts.num_jobs / seconds,
        "throughput/examples_per_second": facts.rows_real / seconds,
    }
    if facts.rows_computed:
        record["utilization"] = facts.rows_real / facts.rows_computed
    weight = float(np.sum(last["weight"], dtype=np.float64)) if "weight" in last else 0.0
    if weight:
        record["train/loss"] = float(np.sum(last["loss"], dtype=np.float64)) / weight
    known = {"jobs", "nonfinite", "lost", "uplink_bits", "downlink_bits", "loss", "weight"}
    for name in sorted(last.keys() - known):
        record[f"train/{name}"] = float(np.sum(last[name], dtype=np.float64))
    return record


def _exact_sum(values: np.ndarray) -> int:
    return int(np.sum(values, dtype=np.int64))
