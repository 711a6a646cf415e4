"""Says what a reader of figures should know: clients that were lost, choices that flatter, ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.digits import counted
from fljax.recording.runs import Run
from fljax.reports.headline import state
from fljax.reports.subjects import Subject

# Counts of a round, and what they say where their sum is not 0.
_COUNTS = {
    "train/clients_nonfinite": "ended with a NaN or an infinity, and were left out",
    "systems/clients_lost": "were lost",
    "train/clients_lost": "were lost",
    "train/clients_refused": "were refused by secure aggregation",
    "train/clients_without_rows": "had no rows to train on",
    "systems/clients_late": "came too late",
}


def remarks(subject: Subject, warnings: Sequence[str] = ()) -> list[str]:
    """Returns sentences on a subject, the same one of several seeds once.

    Args:
      subject: Whose figures are shown.
      warnings: What was said as its runs were read.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:
      ...     recorder.write({"round": 1, "train/loss": 0.5, "train/clients_nonfinite": 2})
      >>> from fljax.reports.found import find
      >>> from fljax.reports.subjects import subjects_of
      >>> remarks(*subjects_of(find(["runs/first"]).runs))[-1]
      '2 updates of clients ended with a NaN or an infinity, and were left out.'
    """
    found = [*warnings]
    for run, known in zip(subject.runs, subject.outcomes, strict=True):
        found += _of_run(run, known)
    found += _of_counts(subject.runs)
    return list(dict.fromkeys(found))


def _of_run(run: Run, so_far: Mapping[str, Any]) -> list[str]:
    found = []
    if state(run) == "unfinished":
        rounds = run.config.get("num_rounds")
        of_all = f" of {rounds:,}" if isinstance(rounds, int) else ""
        found.append(f"The run is not over: it has come to round {run.rounds[-1]:,}{of_all}.")
    elif state(run) == "interrupted":
        found.append("The run was interrupted and can be gone on with: --resume.")
    elif run.stopped:
        found.append(f"The run ended early: {run.stopped}.")
    if so_far["no_best"]:
        found.append(f"No round is the best, since {so_far['no_best']}.")
    best = so_far["best"]
    if best and best["selected_by"] == "test":
        found.append("The best round was chosen by test data, which flatters its figures.")
    elif best and run.summary and best["round"] == (so_far["final"] or {}).get("round"):
        found.append("The last evaluation is the best one: more rounds may do better.")
    return found


def _of_counts(runs: Sequence[Run]) -> list[str]:
    """Returns what rounds of all seeds together have counted."""
    found, several = [], f" in {len(runs)} runs" if len(runs) > 1 else ""
    if diverging := _sum(runs, "drift/diverging"):
        found.append(f"Training diverged in {counted(diverging, 'round')}{several}.")
    for key, text in _COUNTS.items():
        # with a clock, those that came too late are among the lost of training
        if key == "train/clients_lost" and "systems/clients_lost" in runs[0].curves:
            continue
        if count := _sum(runs, key):
            found.append(f"{counted(count, 'update')} of clients{several} {text}.")
    return found


def _sum(runs: Sequence[Run], key: str) -> int:
    return int(sum(np.nansum(run.curves.get(key, np.zeros(1))) for run in runs))
