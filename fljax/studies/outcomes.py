"""What the runs of a ladder came to: accuracies, bytes, and the way to a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fljax.recording import Run
from fljax.studies.ladder import UNCOMPRESSED, Rung


class Spread(NamedTuple):
    """Mean and standard deviation over seeds; NaN where there is nothing to say."""

    mean: float
    sd: float


class Target(NamedTuple):
    """What it took a run to reach the target accuracy.

    Attributes:
      rounds: Until the first evaluation that had it.
      uplink_bytes: Sent by all clients together until then.
      seconds: Of transfer, both ways, by the links' speeds; None without them.
    """

    rounds: int
    uplink_bytes: float
    seconds: float | None


class Outcome(NamedTuple):
    """One run.

    Attributes:
      accuracy: On the test set, at the round chosen on validation data.
      final: On the test set, after the last round.
      client_bytes: Sent by one client in one round, on average.
      uplink_bytes: Sent by all clients in all rounds.
      target: None if it was never reached.
    """

    accuracy: float
    final: float
    client_bytes: float
    uplink_bytes: float
    target: Target | None


class Row(NamedTuple):
    """One rung, over all seeds.

    Attributes:
      rung: The compressor.
      outcomes: Of each seed.
      ratio: Bytes of the uncompressed rung ÷ bytes of this one, a client a round.
      gap: Accuracy minus that of the uncompressed run of the same seed.
    """

    rung: Rung
    outcomes: tuple[Outcome, ...]
    ratio: float
    gap: Spread

    @property
    def accuracy(self) -> Spread:
        """At the round chosen on validation data."""
        return spread(one.accuracy for one in self.outcomes)

    @property
    def final(self) -> Spread:
        """After the last round."""
        return spread(one.final for one in self.outcomes)

    @property
    def client_bytes(self) -> float:
        """Bytes of a client in a round."""
        return spread(one.client_bytes for one in self.outcomes).mean

    @property
    def reached(self) -> tuple[Target, ...]:
        """Of the seeds that reached the target."""
        return tuple(one.target for one in self.outcomes if one.target)

    @property
    def reaches(self) -> bool:
        """Whether every seed reached the target."""
        return len(self.reached) == len(self.outcomes)


def spread(values: Iterable[float | None]) -> Spread:
    """Returns mean and standard deviation (n - 1) of the values, without those that are None."""
    known = np.array([value for value in values if value is not None], np.float64)
    return Spread(
        float(known.mean()) if known.size else math.nan,
        float(known.std(ddof=1)) if known.size > 1 else math.nan,
    )


def outcome(run: Run) -> Outcome:
    """Returns what one finished run came to.

    Raises:
      ValueError: If the run has no accuracy on a test set.
    """
    summary, curves = run.summary, run.curves
    best, final = summary["best"] or {}, summary["final"] or {}
    key = "eval/test/accuracy"
    if key not in best or key not in final:
        raise ValueError(
            f"{run.directory} has no test accuracy. A study needs data with a test set, and "
            "eval_every other than never."
        )
    reached = summary["to_target"]
    return Outcome(
        accuracy=best[key],
        final=final[key],
        client_bytes=summary["uplink_bytes"] / np.nansum(curves["train/clients"]),
        uplink_bytes=summary["uplink_bytes"],
        target=Target(reached["rounds"], reached["uplink_bytes"], reached["transfer_seconds"])
        if reached
        else None,
    )


def rows(runs: Mapping[Rung, Sequence[Run]]) -> list[Row]:
    """Returns one row a rung, in the ladder's order.

    Args:
      runs: {rung: [run of each seed]}, as from `run_ladder`.
    """
    outcomes = {rung: tuple(map(outcome, ones)) for rung, ones in runs.items()}
    baseline = outcomes[Rung(UNCOMPRESSED)]
    dense = spread(one.client_bytes for one in baseline).mean
    return [
        Row(
            rung,
            ones,
            ratio=dense / spread(one.client_bytes for one in ones).mean,
            gap=spread(
                one.accuracy - other.accuracy for one, other in zip(ones, baseline, strict=True)
            ),
        )
        for rung, ones in outcomes.items()
    ]
