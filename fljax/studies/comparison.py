"""Compares variants over seeds: what every trial came to, means, gaps, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.core.digits import apart
from fljax.core.metrics import ACCURACY, LOSS, Metric, target_of
from fljax.recording.summary import to_target
from fljax.studies.criterion import Criterion, filled, resolve
from fljax.studies.results import Results, Row, write_csv
from fljax.studies.selection import (
    Configuration,
    Spread,
    chosen_row,
    is_known,
    rank,
    spread,
)
from fljax.studies.space import Trial, described_apart
from fljax.studies.study import Study
from fljax.training.privacy_records import EPSILON, EPSILON_PLD

STUDY_TABLE = "study.csv"
# Of a sweep, the best so many configurations are compared in its report.
_MOST_ROWS = 20


class Outcome(NamedTuple):
    """The outcome of one trial.

    Attributes:
      trial: The trial.
      diverged: The round in which it did, or None; there is no best or final round then.
      rounds: Rounds that it completed.
      seconds: That it took, of which trials side by side share; None where that is not known.
      best: The record of the round that was chosen on validation data.
      final: The record of its last round.
      target: What it took to the target, see `fljax.recording.summary.to_target`.
      records: Of all its rounds, in their order.
    """

    trial: Trial
    diverged: int | None
    rounds: int
    seconds: float | None
    best: Row
    final: Row
    target: Mapping[str, Any] | None
    records: Sequence[Row]

    @property
    def client_bytes(self) -> float | None:
        """Bytes that a client sends in a round, on average."""
        known = (record.get("comm/uplink_bytes") for record in reversed(self.records))
        sent = next((total for total in known if total is not None), None)
        clients = sum(record.get("train/clients", 0) for record in self.records)
        return sent / clients if sent is not None and clients else None

    @property
    def epsilon(self) -> float | None:
        """Tells what all rounds have spent, by the best accountant; None if nothing is private."""
        return self.final.get(EPSILON_PLD, self.final.get(EPSILON))

    @property
    def uplink_bytes(self) -> float | None:
        """Bytes that all clients sent in all rounds."""
        return self.final.get("comm/uplink_bytes")


class Compared(NamedTuple):
    """A variant or a configuration beside others.

    Attributes:
      label: What tables and pictures call it.
      chosen: The configuration; of a variant with axes, the best one by validation data.
      outcomes: Of each seed.
      reference: Outcomes of the reference, or None without one.
    """

    label: str
    chosen: Configuration
    outcomes: tuple[Outcome, ...]
    reference: tuple[Outcome, ...] | None = None

    @property
    def diverged(self) -> tuple[int, ...]:
        """Rounds in which trials of some seeds diverged."""
        return tuple(outcome.diverged for outcome in self.outcomes if outcome.diverged is not None)

    @property
    def is_reference(self) -> bool:
        """Says whether the others are measured against it."""
        return self.outcomes is self.reference

    @property
    def reached(self) -> tuple[Outcome, ...]:
        """The outcomes that reached the target."""
        return tuple(outcome for outcome in self.outcomes if outcome.target is not None)

    @property
    def is_private(self) -> bool:
        """Says whether an accountant counts what its trials spend."""
        return any(outcome.epsilon is not None for outcome in self.outcomes)

    @property
    def reaches(self) -> bool:
        """Says whether every seed reached the target."""
        return len(self.reached) == len(self.outcomes)

    def spread(self, value: Callable[[Outcome], float | None]) -> Spread:
        """Returns mean and standard deviation of a value over the seeds that have it."""
        return spread(map(value, self.outcomes))

    def gap(self, value: Callable[[Outcome], float | None]) -> Spread:
        """Returns mean and standard deviation of the differences to the reference, seed by seed."""
        others = {outcome.trial.seed: value(outcome) for outcome in self.reference or ()}
        pairs = [(value(outcome), others.get(outcome.trial.seed)) for outcome in self.outcomes]
        return spread(own - other for own, other in pairs if is_known(own) and is_known(other))


class Comparison(NamedTuple):
    """All that a study compares.

    Attributes:
      study: The study.
      config: The base configuration; empty where it is not known.
      results: Trials and rows.
      criterion: As `resolve` found it.
      headline: The key that is reported: `criterion.report`, or what decides where it is not there.
      target: The value of the task's first metric that is to be reached, or None.
      metrics: Of the task.
      ranked: All configurations, best first.
      compared: Variants in their order, or the best configurations of a sweep.
      outcomes: Of all trials.
    """

    study: Study
    config: Mapping[str, Any]
    results: Results
    criterion: Criterion
    headline: str
    target: float | None
    metrics: Sequence[Metric]
    ranked: Sequence[Configuration]
    compared: Sequence[Compared]
    outcomes: Sequence[Outcome]

    @property
    def target_key(self) -> str:
        """The key of the first metric on test data."""
        return f"eval/test/{self.metrics[0].name}"

    def reported(self, outcome: Outcome) -> float | None:
        """Returns the headline of a trial at its chosen round."""
        return outcome.best.get(self.headline)


def compare(
    study: Study,
    config: Mapping[str, Any],
    results: Results,
    seconds: Mapping[int, float] | None = None,
    metrics: Sequence[Metric] = (ACCURACY, LOSS),
) -> Comparison:
    """Returns what a study compares.

    Args:
      study: The study.
      config: The base configuration; empty where it is not known.
      results: Of the study.
      seconds: {number of the trial: seconds it took}.
      metrics: Of the task; the first one is what a target is about.

    Raises:
      ValueError: From `fljax.studies.selection.rank`.
    """
    chosen_by = filled(study.criterion or Criterion(), metrics)
    criterion = resolve(results, chosen_by)
    keys = {key for row in results.rows for key in row}
    headline = criterion.report if criterion.report in keys else criterion.metric
    records: dict[int, list[Row]] = {trial.number: [] for trial in results.trials}
    for row in sorted(results.rows, key=lambda row: row["round"]):
        records[row["trial"]].append(row)
    outcomes = {}
    for trial in results.trials:
        target = target_of({**config, **trial.overrides(study.variants)}), metrics[0]
        spent, status = (seconds or {}).get(trial.number), results.status(trial)
        own = records[trial.number]
        outcomes[trial.number] = _outcome(trial, status, own, criterion, target, spent)
    ranked = rank(results, chosen_by)
    chosen = ranked[:_MOST_ROWS]
    if study.variants:
        best = {configuration.variant: configuration for configuration in reversed(ranked)}
        chosen = [best[name] for name in study.variants if name in best]
    words = described_apart(configuration.values for configuration in ranked)
    compared = [
        Compared(
            configuration.variant or words(configuration.values) or "all trials",
            configuration,
            tuple(outcomes[number] for number in configuration.trials),
        )
        for configuration in chosen
    ]
    reference = next((entry for entry in compared if entry.label == study.reference), None)
    if reference is not None:
        compared = [entry._replace(reference=reference.outcomes) for entry in compared]
    return Comparison(
        study=study, config=config, results=results, criterion=criterion, headline=headline,
        target=target_of(config), metrics=metrics, ranked=ranked, compared=compared,
        outcomes=list(outcomes.values()),
    )  # fmt: skip


def _outcome(trial, status, records, criterion, target, seconds) -> Outcome:
    if status.state == "diverged":
        return Outcome(trial, status.round, status.round, seconds, {}, {}, None, records)
    best, final = chosen_row(records, criterion), records[-1] if records else {}
    reached = to_target(records, *target)
    return Outcome(trial, None, status.round, seconds, best, final, reached, records)


def write_study_table(directory: Path, outcomes: Sequence[Outcome]) -> Path:
    """Writes `study.csv`: a line for each variant and seed, and returns its path.

    The columns are variant (with the values of the axes), seed, diverged, rounds, seconds, and all
    metrics by record key, of the chosen round (`best/...`) and of the last one (`final/...`). What
    is not there or not finite is an empty cell; a trial that diverged has neither round.
    """
    metrics = sorted(
        {key for outcome in outcomes for key in (*outcome.best, *outcome.final)}
        - {"trial", "seed"}
        - {key for outcome in outcomes for key in outcome.trial.point}
    )
    head = ["variant", "seed", "diverged", "rounds", "seconds"]
    head += [f"{at}/{key}" for at in ("best", "final") for key in metrics]
    trials = [outcome.trial for outcome in outcomes]
    label = apart(trials, 4, 17, lambda trial, digits: trial.label(digits=digits))
    lines = (
        [
            label(outcome.trial),
            outcome.trial.seed,
            outcome.diverged is not None,
            outcome.rounds,
            outcome.seconds,
            *(row.get(key) for row in (outcome.best, outcome.final) for key in metrics),
        ]
        for outcome in outcomes
    )
    return write_csv(directory / STUDY_TABLE, head, lines)
