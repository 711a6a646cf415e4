"""The table of a comparison, column by column, as texts for people."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fljax.core.names import unknown
from fljax.studies.comparison import Compared, Comparison, Outcome, Spread, spread
from fljax.studies.scales import name_of, unit_of
from fljax.studies.space import describe
from fljax.studies.study import Study


class Column(NamedTuple):
    """A column of a comparison's table: its title, and the cell of what is compared."""

    title: str
    cell: Callable[[Compared], str]


def _at(comparison: Comparison, key: str, at: str) -> Column:
    """The metric of a record key: "best" at the chosen round, "final" at the last, or the "gap"."""
    (factor, unit), name = unit_of(key, comparison.metrics), name_of(key, comparison.metrics)

    def shown(found: Spread, sign: str = "") -> str:
        return with_sd(found, _decimals(found) if factor == 1 else 2, factor, sign)

    if at == "gap":

        def gap(entry: Compared) -> str:
            found = entry.gap(lambda outcome: outcome.best.get(key))
            return "0" if entry.is_reference else shown(found, "+")

        return Column(f"{name}: gap{unit if factor == 1 else ' (points)'}", gap)

    def cell(entry: Compared) -> str:
        found = entry.spread(lambda outcome: getattr(outcome, at).get(key))
        return shown(found)

    return Column(f"{name}{', last round' if at == 'final' else ''}{unit}", cell)


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


def _mean_of(title: str, value: Callable[[Outcome], float | None], digits: int | None = None):
    """A column of the mean over seeds; no digits: about three figures."""

    def cell(entry: Compared) -> str:
        found = entry.spread(value)
        return with_sd(found, _digits(found.mean) if digits is None else digits)

    return lambda comparison: Column(title, cell)


def _to_target(title: str, name: str, factor: float = 1.0, digits: int | None = None):
    """A column of what it took to the target, over the seeds that reached it."""

    def cell(entry: Compared) -> str:
        found = spread(outcome.target[name] for outcome in entry.reached)
        found = Spread(factor * found.mean, factor * found.sd)
        some = f" ({len(entry.reached)}/{len(entry.outcomes)})" if entry.reached else ""
        text = with_sd(found, _digits(found.mean) if digits is None else digits)
        return text + some * (name == "rounds" and not entry.reaches)

    return lambda comparison: Column(title, cell)


def _uplink_factor(comparison: Comparison) -> Column:
    def cell(entry: Compared) -> str:
        dense = spread(other.client_bytes for other in entry.reference or ()).mean
        return with_sd(Spread(dense / entry.spread(_CLIENT_BYTES).mean, math.nan), 1)

    return Column("times fewer", cell)


def _client_bytes(comparison: Comparison) -> Column:
    return Column(
        "uplink bytes a client a round",
        lambda entry: with_sd(Spread(entry.spread(_CLIENT_BYTES).mean, math.nan), 0),
    )


_CLIENT_BYTES = lambda outcome: outcome.client_bytes  # noqa: E731

COLUMNS: dict[str, Callable[[Comparison], Column]] = {
    "best": _reported,
    "last": lambda comparison: _at(comparison, comparison.headline, "final"),
    "gap": lambda comparison: _at(comparison, comparison.headline, "gap"),
    "client_uplink_bytes": _client_bytes,
    "uplink_factor": _uplink_factor,
    "rounds_to_target": _to_target("rounds to target", "rounds", digits=0),
    "uplink_to_target": _to_target("uplink MB to target", "uplink_bytes", 1e-6),
    "transfer_to_target": _to_target("transfer s to target", "transfer_seconds"),
    "seconds": _mean_of("seconds", lambda outcome: outcome.seconds),
}


def columns_of(study: Study) -> tuple[str, ...]:
    """Returns the names of a report's columns.

    A name is one of `COLUMNS`, or a record key: "eval/test/loss" at the chosen round,
    "final/eval/test/loss" at the last one, "gap/eval/test/loss" to the reference.

    Raises:
      ValueError: For a name that is neither.
    """
    for name in study.columns:
        if name not in COLUMNS and "/" not in name:
            raise ValueError(f"{unknown('column', name, COLUMNS)} Or a record key.")
    names = study.columns or ("best", "last", "gap")
    return tuple(name for name in names if "gap" not in name or study.reference)


def table(comparison: Comparison) -> list[list[str]]:
    """Returns the table of a comparison as texts, the head first."""
    columns = [_column(name, comparison) for name in columns_of(comparison.study)]
    tuned = bool(comparison.study.variants and comparison.study.axes)
    kind = "variant" if comparison.study.variants else "configuration"
    rows = [[kind, *["chosen values"] * tuned, *(column.title for column in columns)]]
    for entry in comparison.compared:
        chosen = [describe(entry.chosen.values)] * tuned
        rows.append([f"`{entry.label}`", *chosen, *(column.cell(entry) for column in columns)])
    return rows


def _column(name: str, comparison: Comparison) -> Column:
    if name in COLUMNS:
        return COLUMNS[name](comparison)
    at, _, key = name.partition("/")
    if at in ("best", "final", "gap"):
        return _at(comparison, key, at)
    return _at(comparison, name, "best")


def with_sd(value: Spread, digits: int, factor: float = 1.0, sign: str = "") -> str:
    """Returns "mean ± sd", the mean alone of a single value, and a dash of none."""
    if math.isnan(value.mean):
        return "–"
    text = f"{factor * value.mean:{sign},.{digits}f}"
    return text if math.isnan(value.sd) else f"{text} ± {factor * value.sd:,.{digits}f}"


def _decimals(value: Spread) -> int:
    """Returns four decimals, or as many as leave three figures of a small number."""
    sizes = [abs(number) for number in value if math.isfinite(number) and number]
    return max(4, 2 - math.floor(math.log10(max(sizes)))) if sizes else 4


def _digits(value: float) -> int:
    """Returns the decimals that leave about three figures of a number."""
    return 0 if math.isnan(value) or value >= 100 else 1 if value >= 10 else 2
