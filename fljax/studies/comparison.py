"""Compares variants over seeds: what every trial came to, means, gaps, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.core.digits import apart
from fljax.core.metrics import ACCURACY, LOSS, Metric, metric_of, target_of
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
from fljax.studies.space import Trial, described_apart, short
from fljax.studies.study import Study
from fljax.training.privacy_records import EPSILON, EPSILON_PLD

STUDY_TABLE = "study.csv"
# What an axis that a study faces has where there is nothing to face.
NOTHING = "none"
# Of a sweep, the best so many configurations are compared in its report.
_MOST_ROWS = 20


class Outcome(NamedTuple):
    """The outcome of one trial.

    Attributes:
      trial: The trial.
      diverged: The round in which it did, or None; there is no best or final round then.
      rounds: Rounds that it completed.
      seconds: That it took, of which trials side by side share; None where that is not known.
      round_seconds: That a round of it took, without what was compiled or evaluated, shared alike.
      best: The record of the round that was chosen on validation data.
      final: The record of its last round.
      target: What it took to the target, see `fljax.recording.summary.to_target`.
      records: Of all its rounds, in their order.
    """

    trial: Trial
    diverged: int | None
    rounds: int
    seconds: float | None
    round_seconds: float | None
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
      under: The same under each value of the axis that the study faces, the ordinary one first;
        empty where it faces none. What stands above is the first of them.
    """

    label: str
    chosen: Configuration
    outcomes: tuple[Outcome, ...]
    reference: tuple[Outcome, ...] | None = None
    under: tuple[Compared, ...] = ()

    @property
    def diverged(self) -> tuple[int, ...]:
        """Rounds in which trials of some seeds diverged."""
        return tuple(outcome.diverged for outcome in self.outcomes if outcome.diverged is not None)

    @property
    def is_reference(self) -> bool:
        """Says whether the others are measured against it."""
        return self.outcomes is self.reference

    @property
    def calm(self) -> Compared | None:
        """The figure where there is nothing to face; None where that was not tried."""
        return next((cell for cell in self.under if cell.label == NOTHING), None)

    @property
    def faced(self) -> tuple[Compared, ...]:
        """The figure under each value that there is to face."""
        return tuple(cell for cell in self.under if cell.label != NOTHING)

    @property
    def slowdown(self) -> float:
        """The time of a round in those of the reference; NaN where that is not known."""
        own, other = (
            spread(outcome.round_seconds for outcome in outcomes).mean
            for outcomes in (self.outcomes, self.reference or ())
        )
        return own / other if other else math.nan

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

    @property
    def sign(self) -> float:
        """1 where high values of the headline are better, -1 where low ones are."""
        metric = metric_of(self.headline, self.metrics)
        return metric.sign if metric else 1.0 if self.criterion.maximize else -1.0

    def reported(self, outcome: Outcome) -> float | None:
        """Returns the headline of a trial at its chosen round."""
        return outcome.best.get(self.headline)


def compare(
    study: Study,
    config: Mapping[str, Any],
    results: Results,
    seconds: Mapping[int, float] | None = None,
    round_seconds: Mapping[int, float] | None = None,
    metrics: Sequence[Metric] = (ACCURACY, LOSS),
) -> Comparison:
    """Returns what a study compares.

    Args:
      study: The study.
      config: The base configuration; empty where it is not known.
      results: Of the study.
      seconds: {number of the trial: seconds it took}.
      round_seconds: {number of the trial: seconds that its rounds took}.
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
        spent = [(of or {}).get(trial.number) for of in (seconds, round_seconds)]
        status = results.status(trial)
        own = records[trial.number]
        outcomes[trial.number] = _outcome(trial, status, own, criterion, target, spent)
    ranked = rank(results, chosen_by)
    compared = (_over_faced if study.faced_axis else _chosen)(study, ranked, outcomes)
    return Comparison(
        study=study, config=config, results=results, criterion=criterion, headline=headline,
        target=target_of(config), metrics=metrics, ranked=ranked, compared=compared,
        outcomes=list(outcomes.values()),
    )  # fmt: skip


def _chosen(
    study: Study, ranked: Sequence[Configuration], outcomes: Mapping[int, Outcome]
) -> list[Compared]:
    """Returns the variants, each with its best configuration, or the best of all."""
    chosen = ranked[:_MOST_ROWS]
    if study.variants:
        best = {configuration.variant: configuration for configuration in reversed(ranked)}
        chosen = [best[name] for name in study.variants if name in best]
    words = described_apart(configuration.values for configuration in ranked)
    compared = [
        _entry(
            configuration.variant or words(configuration.values) or "all trials",
            configuration,
            outcomes,
        )
        for configuration in chosen
    ]
    return _measured(compared, study.reference)


def _over_faced(
    study: Study, ranked: Sequence[Configuration], outcomes: Mapping[int, Outcome]
) -> list[Compared]:
    """Returns what is compared over the axis that the study faces, in the order of the trials."""
    axis, variants = study.faced_axis, list(study.variants) or [""]
    listed = sorted(ranked, key=lambda one: (variants.index(one.variant), one.trials[0]))
    own = {
        one.trials: {name: value for name, value in one.values.items() if name != axis}
        for one in listed
    }
    words = described_apart(own.values())
    rows: dict[str, dict[str, Configuration]] = {}
    for one in listed:
        values = own[one.trials]
        text = words(values) if study.variants or len(values) != 1 else short(*values.values())
        label = ", ".join(filter(None, (one.variant, text))) or "all trials"
        rows.setdefault(label, {})[_named(one.values[axis])] = one
    # of defences without names, the mean is what they are measured against
    reference = study.reference if study.variants else "mean"
    columns = dict.fromkeys(_named(one.values[axis]) for one in listed)
    found: dict[str, list[Compared]] = {label: [] for label in rows}
    for value in sorted(columns, key=lambda value: value != NOTHING):
        cells = [_entry(label, row[value], outcomes) for label, row in rows.items() if value in row]
        for cell in _measured(cells, reference):
            found[cell.label].append(cell._replace(label=value))
    return [cells[0]._replace(label=label, under=tuple(cells)) for label, cells in found.items()]


def _named(value: Any) -> str:
    """Returns what a value of the axis that a study faces is called."""
    return NOTHING if value is None else short(value)


def _entry(label: str, configuration: Configuration, outcomes: Mapping[int, Outcome]) -> Compared:
    return Compared(
        label, configuration, tuple(outcomes[number] for number in configuration.trials)
    )


def _measured(compared: list[Compared], reference: str | None) -> list[Compared]:
    """Returns what is compared with the outcomes of the one that is the reference."""
    found = next((entry for entry in compared if entry.label == reference), None)
    if found is None:
        return compared
    return [entry._replace(reference=found.outcomes) for entry in compared]


def _outcome(trial, status, records, criterion, target, spent) -> Outcome:
    seconds, of_rounds = spent
    of_round = of_rounds / status.round if of_rounds and status.round else None
    if status.state == "diverged":
        lost = status.round
        return Outcome(trial, lost, lost, seconds, of_round, {}, {}, None, records)
    best, final = chosen_row(records, criterion), records[-1] if records else {}
    reached = to_target(records, *target)
    return Outcome(trial, None, status.round, seconds, of_round, best, final, reached, records)


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
