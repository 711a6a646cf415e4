"""Says what a run came to: what its summary says, or the same of the records so far."""

from __future__ import annotations

import math
from typing import Any

from fljax.core.metrics import target_of
from fljax.recording.runs import Run
from fljax.recording.summary import SIMULATED, best, final, no_best, to_target

# What an outcome says beside evaluations.
_SPENT = (
    *("train/loss", "time/elapsed_seconds", "comm/transfer_seconds"),
    *("comm/uplink_bytes", "comm/downlink_bytes", SIMULATED),
)


def outcome(run: Run) -> dict[str, Any]:
    """Returns `final`, `best`, `no_best` and `to_target` of a run: its summary's, or so far.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:
      ...     recorder.write({"round": 1, "eval/test/accuracy": 0.9})
      >>> outcome(fljax.load_run("runs/first"))["final"]
      {'round': 1, 'eval/test/accuracy': 0.9}
    """
    if run.summary:
        return dict.fromkeys(("final", "best", "no_best", "to_target")) | run.summary
    keys = [key for key in run.curves if key.startswith("eval/") or key in _SPENT]
    records = []
    for place, round in enumerate(run.rounds.tolist()):
        values = ((key, float(run.curves[key][place])) for key in keys)
        records.append({"round": round} | {key: v for key, v in values if not math.isnan(v)})
    metric = run.metrics[0]
    return {
        "final": final(records),
        "best": best(records, metric),
        "no_best": no_best(records, metric),
        "to_target": to_target(records, target_of(run.config), metric),
    }
