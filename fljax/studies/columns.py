"""Writes the table of a comparison: its columns, by name or by record key."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from fljax.core.digits import decimals
from fljax.core.metrics import name_of, unit_of
from fljax.core.names import unknown
from fljax.recording.summary import SIMULATED
from fljax.robustness.names import opens_backdoor
from fljax.studies.comparison import NOTHING, Compared, Comparison, Outcome
from fljax.studies.selection import Spread, is_known, spread
from fljax.studies.space import describe
from fljax.studies.study import Study

# The counts of a record that make up all jobs that a server heard of in a round, or gave up.
_JOBS = (
    "train/clients", "train/clients_nonfinite", "train/clients_without_rows",
    "systems/clients_late", "systems/clients_lost",
)  # fmt: skip
# Before the name of a variant that the others are measured against beside the reference.
_GAP_TO = "gap to "
# From here on, numbers are written without decimals.
_WHOLE = 10_000


class Column(NamedTuple):
    """A column of a comparison's table: its title, and the cell of what is compared."""

    title: str
    cell: Callable[[Compared], str]


def _at(comparison: Comparison, key: str, at: str) -> Column:
    """The metric of a record key: "best" at the chosen round, "final" at the last, or the "gap"."""
    (factor, unit), name = unit_of(key, comparison.metrics), name_of(key, comparison.metrics)

    def shown(found: Spread, sign: str = "") -> str:
        return with_sd(found, None if factor == 1 else 2, factor, sign)

    if at == "gap":

        def gap(entry: Compared) -> str:
            found = entry.gap(lambda outcome: outcome.best.get(key))
            return "0" if entry.is_reference else shown(found, "+")

        return Column(f"{name}: gap{unit if factor == 1 else ' (points)'}", gap)

    def cell(entry: Compared) -> str:
        found = entry.spread(lambda outcome: getattr(outcome, at).get(key))
        return shown(found)

    return Column(f"{name}{', last round' if at == 'final' else ''}{unit}", cell)


def _gap_to(comparison: Comparison, name: str) -> Column:
    """The headline's differences to a variant, seed by seed."""
    other = next((entry for entry in comparison.compared if entry.label == name), None)
    outcomes = None if other is None else other.outcomes
    plain = _at(comparison, comparison.headline, "gap")

    def cell(entry: Compared) -> str:
        return plain.cell(entry._replace(reference=outcomes))

    # after the colon: the name of a metric may hold the word as well
    return Column(plain.title.replace(": gap", f": {_GAP_TO}{name}"), cell)


def _reported(comparison: Comparison) -> Column:
    plain = _at(comparison, comparison.headline, "best")

    def cell(entry: Compared) -> str:
        if not entry.diverged:
            return plain.cell(entry)
        when = f"in round{'s' * (len(entry.diverged) > 1)} {', '.join(map(str, entry.diverged))}"
        if len(entry.diverged) == len(entry.outcomes):
            return f"diverged {when}"
        return f"{plain.cell(entry)} ({len(entry.diverged)}/{len(entry.outcomes)} diverged {when})"

    return Column(plain.title, cell)


def _seconds(comparison: Comparison) -> Column:
    def cell(entry: Compared) -> str:
        found = entry.spread(lambda outcome: outcome.seconds)
        return with_sd(found, decimals(found.mean, 3))

    return Column("seconds", cell)


def _epsilon(comparison: Comparison) -> Column:
    return Column(
        "epsilon", lambda entry: with_sd(entry.spread(lambda outcome: outcome.epsilon), 2)
    )


def _to_target(title: str, name: str, factor: float = 1.0):
    """A column of what it took to the target, over the seeds that reached it."""

    def cell(entry: Compared) -> str:
        found = spread(outcome.target[name] for outcome in entry.reached)
        found = Spread(factor * found.mean, factor * found.sd)
        some = f" ({len(entry.reached)}/{len(entry.outcomes)})" if entry.reached else ""
        text = with_sd(found, 0 if name == "rounds" else decimals(found.mean, 3))
        return text + some * (name == "rounds" and not entry.reaches)

    return lambda comparison: Column(title, cell)


def _simulated(comparison: Comparison) -> Column:
    def cell(entry: Compared) -> str:
        found = entry.spread(lambda outcome: outcome.final.get(SIMULATED))
        return with_sd(found, decimals(found.mean, 3))

    return Column("simulated s", cell)


def _staleness(comparison: Comparison) -> Column:
    """The mean over rounds of how many steps of the server lie behind what an update starts from.

    A synchronous trial has none.
    """

    def mean(outcome: Outcome) -> float:
        return spread(record.get("systems/staleness_mean") for record in outcome.records).mean

    return Column("mean staleness", lambda entry: with_sd(entry.spread(mean), 2))


def _share_of_jobs(title: str, key: str):
    """A column of the share of all jobs that came to such an end, of trials that have a clock."""

    def share(outcome: Outcome) -> float | None:
        timed = [record for record in outcome.records if key in record]
        jobs = sum(record.get(name, 0) for record in timed for name in _JOBS)
        return sum(record[key] for record in timed) / jobs if jobs else None

    def cell(entry: Compared) -> str:
        return with_sd(entry.spread(share), 1, 100.0)

    return lambda comparison: Column(f"{title} (%)", cell)


def _clean(comparison: Comparison) -> Column:
    """The headline where there is nothing to face."""
    plain = _reported(comparison)

    def cell(entry: Compared) -> str:
        return "–" if entry.calm is None else plain.cell(entry.calm)

    return Column(_titled(comparison, f"{comparison.study.faced} {NOTHING}"), cell)


def _worst(comparison: Comparison) -> Column:
    """The headline under what is worst to face, and which that is."""
    plain = _reported(comparison)

    def cell(entry: Compared) -> str:
        worst = worst_of(comparison, entry)
        return "–" if worst is None else f"{plain.cell(worst)}: {worst.label}"

    return Column(_titled(comparison, f"worst {comparison.study.faced}"), cell)


def worst_of(comparison: Comparison, entry: Compared) -> Compared | None:
    """Returns the cell of what a row faced that is worst: one that diverged, or the lowest mean."""

    def order(cell: Compared) -> float:
        mean = cell.spread(comparison.reported).mean
        return -math.inf if math.isnan(mean) else comparison.sign * mean

    return min(entry.faced, key=order, default=None)


def _over_faced(comparison: Comparison) -> Column:
    """The mean over all that is faced, each seed's own; of what diverged there is none."""
    factor, _ = unit_of(comparison.headline, comparison.metrics)

    def cell(entry: Compared) -> str:
        lost = sum(len(one.diverged) == len(one.outcomes) for one in entry.faced)
        means = _mean_by_seed(entry.faced, comparison.reported)
        text = with_sd(means, None if factor == 1 else 2, factor)
        return text + f" (without {lost} that diverged)" * bool(lost)

    return Column(_titled(comparison, f"mean over {comparison.study.faced}s"), cell)


def _titled(comparison: Comparison, of: str) -> str:
    _, unit = unit_of(comparison.headline, comparison.metrics)
    return f"{name_of(comparison.headline, comparison.metrics)}, {of}{unit}"


def _mean_by_seed(cells: Sequence[Compared], value: Callable[[Outcome], float | None]) -> Spread:
    """Returns mean and deviation over seeds of each seed's mean over cells."""
    found: dict[int, list[float]] = {}
    for outcome in (outcome for cell in cells for outcome in cell.outcomes):
        if is_known(known := value(outcome)):
            found.setdefault(outcome.trial.seed, []).append(known)
    return spread(spread(values).mean for values in found.values())


def _success(comparison: Comparison) -> Column:
    """The share of rows with a trigger that the model takes for the attacker's class, at most."""

    def cell(entry: Compared) -> str:
        # trials that share a program are all judged by its trigger, whether they place it or not
        placed = [one for one in entry.faced if opens_backdoor(one.label)] or entry.faced
        found = [(one.spread(lambda each: each.best.get(SUCCESS)), one) for one in placed]
        known = [pair for pair in found if is_known(pair[0].mean)]
        if not known:
            return "–"
        highest, which = max(known, key=lambda pair: pair[0].mean)
        return f"{with_sd(highest, 2, 100.0)}: {which.label}"

    return Column("success of backdoors (%), highest", cell)


def _rejections(title: str, key: str):
    """A column of what a rule rejected wrongly: the mean over rounds, seeds and attacks."""

    def cell(entry: Compared) -> str:
        def mean(outcome: Outcome) -> float | None:
            return spread(record.get(key) for record in outcome.records).mean

        return with_sd(_mean_by_seed(entry.faced, mean), 1, 100.0)

    return lambda comparison: Column(f"{title} (%)", cell)


def _cost(comparison: Comparison) -> Column:
    """The seconds of a round against those of the reference, where there is nothing to face."""

    def cell(entry: Compared) -> str:
        return "–" if math.isnan(entry.slowdown) else f"{entry.slowdown:.2f}"

    return Column("times the reference's round", cell)


def _sent(outcomes: Sequence[Outcome] | None) -> float:
    return spread(outcome.client_bytes for outcome in outcomes or ()).mean


def _uplink_factor(comparison: Comparison) -> Column:
    def cell(entry: Compared) -> str:
        before, after = _sent(entry.reference), _sent(entry.outcomes)
        if before == 0:
            return "–"  # nothing is fewer than nothing
        if after == 0:
            return "∞"
        return with_sd(Spread(before / after, math.nan), 1)

    return Column("times fewer", cell)


def _client_bytes(comparison: Comparison) -> Column:
    def cell(entry: Compared) -> str:
        return with_sd(Spread(_sent(entry.outcomes), math.nan), 0)

    return Column("uplink bytes a client a round", cell)


COLUMNS: dict[str, Callable[[Comparison], Column]] = {
    "best": _reported,
    "last": lambda comparison: _at(comparison, comparison.headline, "final"),
    "gap": lambda comparison: _at(comparison, comparison.headline, "gap"),
    "client_uplink_bytes": _client_bytes,
    "uplink_factor": _uplink_factor,
    "rounds_to_target": _to_target("rounds to target", "rounds"),
    "uplink_to_target": _to_target("uplink MB to target", "uplink_bytes", 1e-6),
    "transfer_to_target": _to_target("transfer s to target", "transfer_seconds"),
    "simulated_to_target": _to_target("simulated s to target", "simulated_seconds"),
    "simulated_seconds": _simulated,
    "staleness": _staleness,
    "late": _share_of_jobs("late", "systems/clients_late"),
    "lost": _share_of_jobs("lost", "systems/clients_lost"),
    "epsilon": _epsilon,
    "seconds": _seconds,
    # of a study with an axis that is faced
    "clean": _clean,
    "worst": _worst,
    "mean_over_faced": _over_faced,
    "success": _success,
    "false_positives": _rejections("honest clients rejected", "robustness/false_positives"),
    "false_negatives": _rejections("attackers kept", "robustness/false_negatives"),
    "cost": _cost,
}
_FACING = ("clean", "worst", "mean_over_faced", "cost")
# How often a backdoor opens, in records.
SUCCESS = "eval/triggered/accuracy"


def columns_of(study: Study, known: Collection[str] | None = None) -> tuple[str, ...]:
    """Returns the names of a report's columns.

    A name is one of `COLUMNS`, "gap to " and a variant, or a record key: "eval/test/loss" at the
    chosen round, "final/eval/test/loss" at the last one, "gap/eval/test/loss" to the reference.

    Args:
      study: The study.
      known: Record keys that there will be; None where that is not known yet.

    Raises:
      ValueError: For a name that is neither.
    """
    for name in study.columns:
        if name.startswith(_GAP_TO):
            if name.removeprefix(_GAP_TO) not in study.variants:
                raise ValueError(unknown("variant", name.removeprefix(_GAP_TO), study.variants))
            continue
        if name not in COLUMNS and "/" not in name:
            raise ValueError(f"{unknown('column', name, COLUMNS)} Or a record key.")
        if name not in COLUMNS and known is not None and _place_of(name)[1] not in known:
            raise ValueError(unknown("record key of a column", _place_of(name)[1], known))
    names = study.columns or (_FACING if study.faced_axis else ("best", "last", "gap"))
    return tuple(
        name for name in names if study.reference or name != "gap" and not name.startswith("gap/")
    )


def columns_among(names: Sequence[str], variants: Collection[str]) -> tuple[str, ...]:
    """Returns the names of columns without gaps to variants that are not among some.

    Example:
      >>> columns_among(("best", "gap to local", "gap to none"), {"none": {}, "fast": {}})
      ('best', 'gap to none')
    """
    return tuple(
        name
        for name in names
        if not name.startswith(_GAP_TO) or name.removeprefix(_GAP_TO) in variants
    )


def table(comparison: Comparison) -> list[list[str]]:
    """Returns the table of a comparison as texts, the head first."""
    columns = [_column(name, comparison) for name in columns_of(comparison.study)]
    study = comparison.study
    tuned = bool(study.variants and study.axes) and not study.faced_axis
    kind = "variant" if comparison.study.variants else "configuration"
    rows = [[kind, *["chosen values"] * tuned, *(column.title for column in columns)]]
    for entry in comparison.compared:
        chosen = [describe(entry.chosen.values)] * tuned
        rows.append([f"`{entry.label}`", *chosen, *(column.cell(entry) for column in columns)])
    return rows


def _column(name: str, comparison: Comparison) -> Column:
    if name in COLUMNS:
        return COLUMNS[name](comparison)
    if name.startswith(_GAP_TO):
        return _gap_to(comparison, name.removeprefix(_GAP_TO))
    at, key = _place_of(name)
    return _at(comparison, key, at)


def _place_of(name: str) -> tuple[str, str]:
    """Returns ("best", "final" or "gap", record key) of a column that is no name of `COLUMNS`."""
    at, _, key = name.partition("/")
    return (at, key) if at in ("best", "final", "gap") else ("best", name)


def with_sd(value: Spread, places: int | None = None, factor: float = 1.0, sign: str = "") -> str:
    """Returns "mean ± sd", the mean alone of a single value, and a dash of none.

    Args:
      value: What is written.
      places: Decimals; None: four, or as many as leave three digits of a small number, and none
        of a large one.
      factor: Of both.
      sign: "+" writes that of the mean, whatever it is.
    """
    if math.isnan(value.mean):
        return "–"
    if places is None:
        largest = max((abs(number) for number in value if math.isfinite(number)), default=0.0)
        places = 0 if largest >= _WHOLE else max(4, decimals(largest, 3))
    text = f"{factor * value.mean:{sign},.{places}f}"
    return text if math.isnan(value.sd) else f"{text} ± {factor * value.sd:,.{places}f}"
