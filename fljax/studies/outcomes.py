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
      diverged: Round in which all clients ended with updates that are not finite, and the run with
        them; all figures but `client_bytes` are None then. None of a run that came to its end.
    """

    accuracy: float | None
    final: float | None
    client_bytes: float | None
    uplink_bytes: float | None
    target: Target | None
    diverged: int | None = None


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
    def diverged(self) -> tuple[int, ...]:
        """Rounds in which the runs of some seeds diverged."""
        return tuple(one.diverged for one in self.outcomes if one.diverged is not None)

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


def diverged_in(run: Run) -> int | None:
    """Returns the round in which a run ended since all its clients diverged, or None."""
    lost, trained = (run.curves.get(f"train/{name}") for name in ("clients_nonfinite", "clients"))
    if run.summary is not None or lost is None or not (lost[-1] > 0 and trained[-1] == 0):
        return None
    return int(run.rounds[-1])


def outcome(run: Run) -> Outcome:
    """Returns what one run came to, which was finished or diverged.

    Raises:
      ValueError: If the run has no accuracy on a test set.
    """
    if run.summary is None:
        clients = np.nansum(run.curves["train/clients"])
        sent = run.curves["comm/uplink_bytes"][-1] / clients if clients else None
        return Outcome(None, None, sent, None, None, diverged_in(run))
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

    Raises:
      ValueError: If the uncompressed run diverged with every seed.
    """
    outcomes = {rung: tuple(map(outcome, ones)) for rung, ones in runs.items()}
    baseline = outcomes[Rung(UNCOMPRESSED)]
    if all(one.diverged is not None for one in baseline):
        raise ValueError(
            "The runs without compression diverged, so that the others cannot be measured against "
            "them. Lower client_lr, and give another --workdir."
        )
    dense = spread(one.client_bytes for one in baseline).mean
    return [
        Row(
            rung,
            ones,
            ratio=dense / spread(one.client_bytes for one in ones).mean,
            gap=spread(
                one.accuracy - other.accuracy
                for one, other in zip(ones, baseline, strict=True)
                if one.diverged is None and other.diverged is None
            ),
        )
        for rung, ones in outcomes.items()
    ]
