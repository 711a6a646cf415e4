"""Joins runs that differ in their seed alone to one subject of a report: a mean, a deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.core.metrics import Metric, metric_of
from fljax.core.settings import affecting
from fljax.core.values import FILES, SPEED
from fljax.recording.runs import Run
from fljax.recording.summary import SIMULATED
from fljax.reports.charts import Line, line_of
from fljax.reports.found import FoundRun
from fljax.reports.outcomes import outcome
from fljax.studies.selection import Spread, spread
from fljax.studies.space import identity

UPLINK, DOWNLINK, BYTES = "comm/uplink_bytes", "comm/downlink_bytes", "comm/bytes"
# Running totals, which are 0 at a record of round 0, where there is one.
_TOTALS = (UPLINK, DOWNLINK, SIMULATED, "time/elapsed_seconds")
# What may differ between runs of one setting, beside what changes their speed or their files.
_FREE = (
    *("seed", "versions", "execution", "processes", "replaced_layers", "configured_clients"),
    *affecting(SPEED, FILES),
)


class Subject(NamedTuple):
    """A subject of a report: a run, or several that differ in their seed alone.

    Attributes:
      label: What the page calls it.
      runs: Of each seed.
      style: Number of the colour and the dashes of its lines.
      outcomes: What each run came to, see `fljax.reports.outcomes`; empty where nobody asks.
    """

    label: str
    runs: tuple[Run, ...]
    style: int = 0
    outcomes: tuple[Mapping[str, Any], ...] = ()

    @property
    def run(self) -> Run:
        """The first run, for what all of them share."""
        return self.runs[0]

    def values(self, key: str) -> list[float]:
        """Returns a record's key in the last round of each run that has it."""
        return [value for run in self.runs if (value := last(run.curves, key)) is not None]

    def spread(self, key: str) -> Spread:
        """Returns mean and deviation of a record's key in the last round that has it."""
        return spread(self.values(key))


def subjects_of(found: Sequence[FoundRun]) -> list[Subject]:
    """Returns runs in their order, those of one setting and several seeds joined.

    Example:
      >>> runs = []
      >>> for seed in (0, 1):
      ...     with recording.Recorder(f"runs/{seed}") as recorder:
      ...         recorder.write_config({"seed": seed, "client_lr": 0.1})
      ...         recorder.write({"round": 1, "train/loss": 0.5 + seed})
      ...     runs.append(FoundRun(f"seed{seed}", fljax.load_run(f"runs/{seed}")))
      >>> [subject] = subjects_of(runs)
      >>> subject.label, subject.spread("train/loss").mean
      ('seed0, seed1 (2 seeds)', 1.0)
    """
    groups: dict[str, list[FoundRun]] = {}
    for number, one in enumerate(found):
        config, seed = settings_of(one.run.config), one.run.config.get("seed")
        key = identity(config)
        taken = [other.run.config.get("seed") for other in groups.get(key, ())]
        # two runs of one seed are two runs, and so are those of which nothing is known
        if not config or seed is None or seed in taken:
            key = str(number)
        groups.setdefault(key, []).append(one)
    subjects = []
    for style, group in enumerate(groups.values()):
        runs = tuple(prepared(one.run) for one in group)
        label = _label([one.label for one in group])
        subjects.append(Subject(label, runs, style, tuple(map(outcome, runs))))
    return subjects


def prepared(run: Run) -> Run:
    """Returns a run with curves that charts need besides: bytes both ways, totals that begin at 0.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:
      ...     recorder.write({"round": 0, "eval/test/loss": 2.0})
      ...     recorder.write({"round": 1, "comm/uplink_bytes": 8, "comm/downlink_bytes": 4})
      >>> prepared(fljax.load_run("runs/first")).curves["comm/bytes"].tolist()
      [0.0, 12.0]
    """
    curves, at_start = dict(run.curves), run.rounds == 0
    for key in _TOTALS:
        if key in curves:
            curves[key] = np.where(at_start, 0.0, curves[key])
    ways = [curves[key] for key in (UPLINK, DOWNLINK) if key in curves]
    if ways:
        curves[BYTES] = np.sum(ways, axis=0)
    return run._replace(curves=curves)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what makes a run's setting: all of its configuration that its results depend on.

    Example:
      >>> settings_of({"client_lr": 0.1, "seed": 3, "lanes": 8})
      {'client_lr': 0.1}
    """
    return {name: value for name, value in config.items() if name not in _FREE}


def all_metrics(subjects: Sequence[Subject]) -> tuple[Metric, ...]:
    """Returns the metrics of all subjects, those of the first one first."""
    found: dict[str, Metric] = {}
    for subject in subjects:
        for metric in subject.run.metrics:
            found.setdefault(metric.name, metric)
    return tuple(found.values())


def alike(subjects: Sequence[Subject], key: str) -> list[list[Subject]]:
    """Returns subjects by the metric that a key of records holds, which tasks have of their own.

    Args:
      subjects: Of any tasks.
      key: Of records, such as "eval/clients/mean", which is of the task's first metric.
    """
    groups: dict[str | None, list[Subject]] = {}
    for subject in subjects:
        metric = metric_of(key, subject.run.metrics)
        groups.setdefault(metric and metric.name, []).append(subject)
    return list(groups.values())


def last(curves: Mapping[str, np.ndarray], key: str) -> float | None:
    """Returns the newest finite value of a curve; None where there is none.

    Example:
      >>> last({"train/loss": np.array([2.0, 1.0, np.nan])}, "train/loss")
      1.0
    """
    curve = curves.get(key, np.zeros(0))
    known = np.flatnonzero(np.isfinite(curve))
    return float(curve[known[-1]]) if known.size else None


def subject_line(
    subject: Subject, key: str, x_key: str = "round", factor: float = 1.0, x_factor: float = 1.0
) -> Line | None:
    """Returns the line of a record's key: of several runs their mean, with a band of one deviation.

    The mean is taken where every run has a value; of one run, all that it has is drawn.

    Args:
      subject: Whose line it is.
      key: Of records.
      x_key: Of records too.
      factor, x_factor: What values are multiplied by.
    """
    drawn = [curves for curves in (run.curves for run in subject.runs) if key in curves]
    drawn = [curves for curves in drawn if x_key in curves]
    if not drawn:
        return None
    if len(drawn) == 1:
        x, y = x_factor * drawn[0][x_key], factor * drawn[0][key]
        return line_of(subject.label, x, y, subject.style)
    by_round = [
        {
            round: (x, y)
            for round, x, y in zip(curves["round"], curves[x_key], curves[key], strict=True)
            if np.isfinite(x) and np.isfinite(y)
        }
        for curves in drawn
    ]
    shared = sorted(set.intersection(*(set(found) for found in by_round)))
    if not shared:
        return None
    points = np.array([[found[round] for round in shared] for found in by_round])
    x, y = points[:, :, 0].mean(0) * x_factor, points[:, :, 1].mean(0) * factor
    sd = points[:, :, 1].std(0, ddof=1) * abs(factor)
    return Line(subject.label, x, y, y - sd, y + sd, subject.style)


def _label(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    listed = ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
    return f"{listed} ({len(names)} seeds)"
