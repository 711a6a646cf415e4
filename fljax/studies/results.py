"""What the trials of a sweep reached: one row for each trial and round, in files and in memory.

results.jsonl     a row a line, appended while the sweep runs
trials.json       every trial with its values, its seed, its state and the round of that state
results.csv       the rows again as a table, at the end; results.parquet too, where pyarrow is
sweep.json        what it took, see `fljax.studies.sweep`
best.json         the chosen configuration, see `fljax.studies.selection`
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.core.files import atomic_file
from fljax.recording import jsonio
from fljax.recording.checksums import Extent
from fljax.recording.line_file import LineFile
from fljax.studies.trials import Trial, with_tuples

ROWS = "results.jsonl"
TRIALS = "trials.json"
TABLE = "results.csv"
PARQUET = "results.parquet"
SUMMARY = "sweep.json"

STATES = ("waiting", "running", "finished", "stopped", "diverged")

Row = dict[str, Any]


class Status(NamedTuple):
    """Where a trial stands.

    Attributes:
      state: "waiting", "running", "finished", "stopped" by the search, or "diverged".
      round: Rounds it has completed.
    """

    state: str
    round: int = 0


class Results(NamedTuple):
    """What a sweep has found so far.

    Attributes:
      trials: All trials of the sweep.
      rows: One for each trial and recorded round, see `row`.
      statuses: {number of the trial: Status}; a trial that is not there is waiting.
    """

    trials: Sequence[Trial]
    rows: Sequence[Row]
    statuses: Mapping[int, Status]

    def __repr__(self) -> str:
        return f"Results({len(self.trials)} trials, {len(self.rows)} rows)"

    def status(self, trial: Trial) -> Status:
        """Returns where a trial stands."""
        return self.statuses.get(trial.number, Status("waiting"))


def row(trial: Trial, record: Mapping[str, Any]) -> Row:
    """Returns the row of a trial's record: trial, the values it varies, seed, round, metrics.

    Args:
      trial: Whose record it is.
      record: As in `metrics.jsonl`: `round`, `train/loss`, `eval/val/accuracy`, ...

    Raises:
      ValueError: If the record has no round, or a metric the name of another column.
    """
    if "round" not in record:
        raise ValueError(f"a record needs a 'round'; this one has {sorted(record)}")
    if taken := sorted({"trial", "seed", *trial.values} & record.keys()):
        raise ValueError(f"the metric {taken[0]!r} has the name of another column of the results")
    metrics = {key: record[key] for key in sorted(record.keys() - {"round"})}
    place = {"trial": trial.number, **trial.values, "seed": trial.seed, "round": record["round"]}
    return place | metrics


def append_rows(file: LineFile, rows: Iterable[Row]) -> None:
    """Appends rows to a JSONL file and hands them to the operating system.

    NaN and the infinities become `null`, as in `metrics.jsonl`, and read back as NaN.
    """
    file.append(json.dumps(jsonio.plain(one), allow_nan=False).encode() for one in rows)


def read_rows(path: str | Path) -> list[Row]:
    """Returns the rows of a JSONL file; none if it is not there.

    A hyperparameter that is None reads back as NaN like any other `null`; `load` puts it right.

    Raises:
      ValueError: If a line is damaged, or the rounds of a trial do not increase; the message gives
        file and line number.
    """
    return [_with_nan(one) for _, one in _lines(Path(path))]


def rows_until(
    path: str | Path, rounds: Mapping[int, int], extent: Extent | None = None
) -> tuple[list[bytes], list[Row]]:
    """Returns the lines that stay where a resumed sweep writes the others again, and their rows.

    Args:
      path: JSONL file; none stay if it is not there.
      rounds: {number of the trial: its last round that stays}; a trial that is not there loses all
        its rows.
      extent: What of the file is read; None for all.
    """
    kept = [
        (line, one)
        for line, one in _lines(Path(path), extent)
        if one["round"] <= rounds.get(one["trial"], -1)
    ]
    return [line for line, _ in kept], [_with_nan(one) for _, one in kept]


def _lines(path: Path, extent: Extent | None = None) -> Iterator[tuple[bytes, dict[str, Any]]]:
    newest: dict[int, int] = {}
    lines = jsonio.read_lines(path, extent) if path.exists() else ()
    for number, (line, one) in enumerate(lines, start=1):
        if not {"trial", "round"} <= one.keys():
            raise ValueError(f"{path}, line {number} is no row of a sweep: {line[:80]!r}")
        trial, round = one["trial"], one["round"]
        if round <= newest.get(trial, -1):
            raise ValueError(
                f"{path}, line {number} has round {round} of trial {trial} after round "
                f"{newest[trial]}: two processes have written this file, and neither is to be "
                "believed. Start again in another --workdir."
            )
        newest[trial] = round
        yield line, one


def write_trials(
    directory: str | Path, trials: Sequence[Trial], statuses: Mapping[int, Status]
) -> None:
    """Writes `trials.json` atomically: name, values, seed, state and round of every trial."""
    results = Results(trials, (), statuses)
    entries = [
        {"trial": t.number, "name": t.name, "values": t.values, "seed": t.seed}
        | results.status(t)._asdict()
        for t in trials
    ]
    jsonio.write_json(Path(directory) / TRIALS, entries)


def load(directory: str | Path) -> Results:
    """Reads the results of a sweep, finished or not.

    Raises:
      FileNotFoundError: If the directory holds no sweep.
      ValueError: If a file is damaged; the message names it.
    """
    directory = Path(directory)
    if not (directory / TRIALS).exists():
        raise FileNotFoundError(f"{directory} holds no sweep: it has no {TRIALS}.")
    entries = jsonio.read_json(directory / TRIALS)
    trials = [Trial(one["trial"], with_tuples(one["values"]), one["seed"]) for one in entries]
    statuses = {one["trial"]: Status(one["state"], one["round"]) for one in entries}
    values = {trial.number: trial.values for trial in trials}
    rows = [one | values.get(one["trial"], {}) for one in read_rows(directory / ROWS)]
    return Results(trials, rows, statuses)


def write_table(directory: str | Path, results: Results) -> list[Path]:
    """Writes all rows, by trial and round, as `results.csv`, and as `results.parquet` if possible.

    The columns are trial, hyperparameters, seed, round and the metrics in alphabetical order. A
    value that is not there is an empty cell; in the CSV file, so is one that is not finite.

    Returns:
      The files written; Parquet needs pyarrow and is left out without it.
    """
    directory = Path(directory)
    rows = sorted(results.rows, key=lambda one: (one["trial"], one["round"]))
    axes = list(dict.fromkeys(name for trial in results.trials for name in trial.values))
    first = ["trial", *axes, "seed", "round"]
    columns = {key: None for key in (*first, *sorted({key for one in rows for key in one}))}
    table = {key: _column([one.get(key) for one in rows]) for key in columns}

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(table)
    writer.writerows(map(_cells, zip(*table.values(), strict=True)))
    with atomic_file(directory / TABLE) as file:
        file.write(text.getvalue().encode())
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return [directory / TABLE]
    with atomic_file(directory / PARQUET) as file:
        pyarrow.parquet.write_table(pyarrow.table(table), file)
    return [directory / TABLE, directory / PARQUET]


def axes_of(trials: Iterable[Trial]) -> dict[str, list[Any]]:
    """Returns {hyperparameter: its different values}, numbers ascending, others as they come.

    Hyperparameters that have one value throughout are left out.
    """
    found: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.values.items():
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return {
        name: sorted(values) if all(map(is_number, values)) else values
        for name, values in found.items()
        if len(values) > 1
    }


def is_number(value: Any) -> bool:
    """Whether a hyperparameter's value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _with_nan(record: Mapping[str, Any]) -> Row:
    return {key: math.nan if value is None else value for key, value in record.items()}


def _column(values: list[Any]) -> list[Any]:
    """Returns values of one kind as they are and others as texts, since a column has one type."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds <= {bool} or kinds <= {str}:
        return values
    return [None if value is None else json.dumps(jsonio.plain(value)) for value in values]


def _cells(values: Iterable[Any]) -> list[Any]:
    return [
        "" if isinstance(value, float) and not math.isfinite(value) else value for value in values
    ]
