"""The table of a ladder: as Markdown for people, as CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from fljax.core.files import atomic_file
from fljax.studies.ladder import UNCOMPRESSED, Rung
from fljax.studies.outcomes import Row, Spread, spread

_COLUMNS = (
    "rung", "seeds", "seeds_diverged", "client_bytes", "ratio", "accuracy_mean", "accuracy_sd",
    "final_mean", "final_sd", "gap_mean", "gap_sd", "seeds_at_target", "rounds_to_target_mean",
    "rounds_to_target_sd", "uplink_bytes_to_target_mean", "uplink_bytes_to_target_sd",
    "transfer_seconds_to_target_mean", "transfer_seconds_to_target_sd",
)  # fmt: skip


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes one line a rung: accuracies as shares of 1, sizes in bytes, times in seconds.

    Figures to the target are over the seeds that reached it; empty where none did.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for row in rows:
        figures = (row.client_bytes, row.ratio, *row.accuracy, *row.final, *row.gap)
        ways = (figure for one in _ways(row) for figure in one)
        writer.writerow(
            [
                row.rung.text,
                len(row.outcomes),
                len(row.diverged),
                *map(_cell, figures),
                len(row.reached),
            ]
            + [_cell(figure) for figure in ways]
        )
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table for people: mean ± standard deviation over seeds."""
    timed = any(one.seconds is not None for row in rows for one in row.reached)
    head = [
        "compressor",
        "uplink bytes a client a round",
        "times fewer",
        "test accuracy, %",
        "last round, %",
        "gap, points",
        "rounds to target",
        "uplink MB to target",
        *(["transfer s to target"] if timed else []),
    ]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(_line(row, timed) for row in rows)])


def with_sd(value: Spread, digits: int, scale: float = 1.0, sign: str = "") -> str:
    """Returns "mean ± sd", the mean alone of a single value, and a dash of none."""
    if math.isnan(value.mean):
        return "–"
    text = f"{scale * value.mean:{sign},.{digits}f}"
    return text if math.isnan(value.sd) else f"{text} ± {scale * value.sd:,.{digits}f}"


def _line(row: Row, timed: bool) -> str:
    rounds, sent, seconds = _ways(row)
    some = "" if row.reaches or not row.reached else f" ({len(row.reached)}/{len(row.outcomes)})"
    cells = [
        f"`{row.rung.text}`",
        with_sd(Spread(row.client_bytes, math.nan), 0),
        with_sd(Spread(row.ratio, math.nan), 1),
        _accuracy(row),
        with_sd(row.final, 2, 100),
        "0" if row.rung == Rung(UNCOMPRESSED) else with_sd(row.gap, 2, 100, "+"),
        with_sd(rounds, 0) + some,
        with_sd(sent, _digits(1e-6 * sent.mean), 1e-6),
        *([with_sd(seconds, _digits(seconds.mean))] if timed else []),
    ]
    return f"| {' | '.join(cells)} |"


def _accuracy(row: Row) -> str:
    """Returns the mean of the runs that came to their end, and when the others diverged."""
    if not row.diverged:
        return with_sd(row.accuracy, 2, 100)
    when = f"in round{'s' * (len(row.diverged) > 1)} {', '.join(map(str, row.diverged))}"
    if len(row.diverged) == len(row.outcomes):
        return f"diverged {when}"
    count = f"{len(row.diverged)}/{len(row.outcomes)}"
    return f"{with_sd(row.accuracy, 2, 100)} ({count} diverged {when})"


def _ways(row: Row) -> tuple[Spread, Spread, Spread]:
    """Returns rounds, uplink bytes and seconds of transfer to the target."""
    return (
        spread(one.rounds for one in row.reached),
        spread(one.uplink_bytes for one in row.reached),
        spread(one.seconds for one in row.reached),
    )


def _digits(value: float) -> int:
    """Decimals that leave about three figures of a number."""
    return 0 if math.isnan(value) or value >= 100 else 1 if value >= 10 else 2


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
