"""Results of a study: a row for each trial and round, in files and on W&B.

results.jsonl     a row a line, appended while the study runs
trials.json       every trial with its values, its seed, its state and the round of that state
results.csv       the rows again as a table, at the end; results.parquet too, where pyarrow is
sweep.json        what it took, see `fljax.studies.launch`
best.json         the chosen configuration, see `fljax.studies.selection`
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.core.digits import counted
from fljax.core.files import atomic_file
from fljax.core.values import brief
from fljax.recording import jsonio, wandb_sink
from fljax.recording.checksums import Extent
from fljax.recording.line_file import LineFile
from fljax.recording.mlflow_sink import DATABASE
from fljax.recording.sinks import sinks_of
from fljax.studies.space import Trial, with_tuples

ROWS = "results.jsonl"
TRIALS = "trials.json"
TABLE = "results.csv"
PARQUET = "results.parquet"
SUMMARY = "sweep.json"
# What sinks keep of each trial, such as the id of its W&B run.
LOGGED = "logged"

STATES = ("waiting", "running", "finished", "stopped", "diverged")

Row = dict[str, Any]


class Status(NamedTuple):
    """The state of a trial.

    Attributes:
      state: "waiting", "running", "finished", "stopped" by the search, or "diverged".
      round: Rounds it has completed.
    """

    state: str
    round: int = 0


class Results(NamedTuple):
    """The results of a study so far.

    Attributes:
      trials: All trials of the study.
      rows: One for each trial and recorded round, see `row`.
      statuses: {number of the trial: Status}; a trial that is not there is waiting.
    """

    trials: Sequence[Trial]
    rows: Sequence[Row]
    statuses: Mapping[int, Status]

    def __repr__(self) -> str:
        return f"Results({counted(len(self.trials), 'trial')}, {counted(len(self.rows), 'row')})"

    def status(self, trial: Trial) -> Status:
        """Returns where a trial stands."""
        return self.statuses.get(trial.number, Status("waiting"))


def row(trial: Trial, record: Mapping[str, Any]) -> Row:
    """Returns the row of a trial's record: trial, variant, its values, seed, round, metrics.

    Args:
      trial: Whose record it is.
      record: As in `metrics.jsonl`: `round`, `train/loss`, `eval/val/accuracy`, ...

    Raises:
      ValueError: If the record has no round, or a metric the name of another column.
    """
    if "round" not in record:
        raise ValueError(f"a record needs a 'round'; this one has {sorted(record)}")
    if taken := sorted({"trial", "seed", *trial.point} & record.keys()):
        raise ValueError(f"the metric {taken[0]!r} has the name of another column of the results")
    metrics = {key: record[key] for key in sorted(record.keys() - {"round"})}
    place = {"trial": trial.number, **trial.point, "seed": trial.seed, "round": record["round"]}
    return place | metrics


def append_rows(file: LineFile, rows: Iterable[Row]) -> None:
    """Appends rows to a JSONL file and hands them to the operating system.

    NaN and the infinities become `null`, as in `metrics.jsonl`, and read back as NaN.
    """
    file.append(json.dumps(jsonio.plain(row), allow_nan=False).encode() for row in rows)


def read_rows(path: str | Path) -> list[Row]:
    """Returns the rows of a JSONL file; none if it is not there.

    A hyperparameter that is None reads back as NaN like any other `null`; `load` puts it right.

    Raises:
      ValueError: If a line is damaged, or the rounds of a trial do not increase; the message gives
        file and line number.
    """
    return [_with_nan(record) for _, record in _lines(Path(path))]


def rows_until(
    path: str | Path, rounds: Mapping[int, int], extent: Extent | None = None
) -> tuple[list[bytes], list[Row]]:
    """Returns the lines that stay where a resumed study writes the others again, and their rows.

    Args:
      path: JSONL file; none stay if it is not there.
      rounds: {number of the trial: its last round that stays}; a trial that is not there loses all
        its rows.
      extent: What of the file is read; None for all.
    """
    kept = [
        (line, record)
        for line, record in _lines(Path(path), extent)
        if record["round"] <= rounds.get(record["trial"], -1)
    ]
    return [line for line, _ in kept], [_with_nan(record) for _, record in kept]


def _lines(path: Path, extent: Extent | None = None) -> Iterator[tuple[bytes, dict[str, Any]]]:
    newest: dict[int, int] = {}
    lines = jsonio.read_lines(path, extent) if path.exists() else ()
    for number, (line, record) in enumerate(lines, start=1):
        if not {"trial", "round"} <= record.keys():
            raise ValueError(f"{path}, line {number} is no row of a study: {line[:80]!r}")
        trial, round = record["trial"], record["round"]
        if round <= newest.get(trial, -1):
            raise ValueError(
                f"{path}, line {number} has round {round} of trial {trial} after round "
                f"{newest[trial]}: two processes have written this file, and neither is to be "
                "believed. Start again in another --workdir."
            )
        newest[trial] = round
        yield line, record


def write_trials(
    directory: str | Path, trials: Sequence[Trial], statuses: Mapping[int, Status]
) -> None:
    """Writes `trials.json` atomically: name, values, seed, state and round of every trial."""
    results = Results(trials, (), statuses)
    entries = [
        {"trial": trial.number, "name": trial.name, "seed": trial.seed, "values": trial.values}
        | ({"variant": trial.variant} if trial.variant else {})
        | results.status(trial)._asdict()
        for trial in trials
    ]
    jsonio.write_json(Path(directory) / TRIALS, entries)


def load_trials(directory: str | Path) -> tuple[list[Trial], dict[int, Status]]:
    """Reads the trials of a study, and {number: Status}.

    Raises:
      FileNotFoundError: If the directory holds no study.
      ValueError: If its file is damaged; the message names it.
    """
    directory = Path(directory)
    if not (directory / TRIALS).exists():
        raise FileNotFoundError(f"{directory} holds no study: it has no {TRIALS}.")
    entries = jsonio.read_json(directory / TRIALS)
    try:
        trials = [
            Trial(
                entry["trial"], with_tuples(entry["values"]), entry["seed"],
                entry.get("variant", ""),
            )
            for entry in entries
        ]  # fmt: skip
        statuses = {entry["trial"]: Status(entry["state"], entry["round"]) for entry in entries}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{directory / TRIALS} holds no list of trials ({brief(error)})."
        ) from error
    return trials, statuses


def load(directory: str | Path) -> Results:
    """Reads the results of a study, finished or not.

    Raises:
      FileNotFoundError: If the directory holds no study.
      ValueError: If a file is damaged; the message names it.
    """
    trials, statuses = load_trials(directory)
    values = {trial.number: trial.values for trial in trials}
    rows = [{**row, **values.get(row["trial"], {})} for row in read_rows(Path(directory) / ROWS)]
    return Results(trials, rows, statuses)


def joined(parts: Iterable[Results]) -> Results:
    """Returns the results of several processes as those of one study, trials by their numbers."""
    parts = list(parts)
    return Results(
        sorted((trial for part in parts for trial in part.trials), key=lambda trial: trial.number),
        [row for part in parts for row in part.rows],
        {number: status for part in parts for number, status in part.statuses.items()},
    )


def write_table(directory: str | Path, results: Results) -> list[Path]:
    """Writes all rows, by trial and round, as `results.csv`, and as `results.parquet` if possible.

    The columns are trial, variant, hyperparameters, seed, round and the metrics in alphabetical
    order. A value that is not there is an empty cell; in the CSV file, so is one that is not
    finite.

    Returns:
      The files written; Parquet needs pyarrow and is left out without it.
    """
    directory = Path(directory)
    rows = sorted(results.rows, key=lambda row: (row["trial"], row["round"]))
    axes = list(dict.fromkeys(name for trial in results.trials for name in trial.point))
    first = ["trial", *axes, "seed", "round"]
    columns = {key: None for key in (*first, *sorted({key for row in rows for key in row}))}
    table = {key: _column([row.get(key) for row in rows]) for key in columns}

    write_csv(directory / TABLE, table, zip(*table.values(), strict=True))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return [directory / TABLE]
    with atomic_file(directory / PARQUET) as file:
        pyarrow.parquet.write_table(pyarrow.table(table), file)
    return [directory / TABLE, directory / PARQUET]


def write_csv(path: Path, head: Iterable[str], lines: Iterable[Iterable[Any]]) -> Path:
    """Writes a table atomically and returns its path; None and NaN are empty cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(map(_cells, lines))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def axes_of(trials: Iterable[Trial]) -> dict[str, list[Any]]:
    """Returns {axis: its different values}, numbers ascending, others as they come.

    Variants are an axis as well. Axes that have one value throughout are left out.
    """
    found: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.point.items():
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return {
        name: sorted(values) if all(map(is_number, values)) else values
        for name, values in found.items()
        if len(values) > 1
    }


def is_number(value: Any) -> bool:
    """Returns whether a hyperparameter's value is a number; True and False are none."""
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


def log_nothing(trial: Trial, rows: Sequence[Row], state: str) -> None:
    """Does nothing with a trial that is over."""


def trial_logger(
    config: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    directory: Path,
    group: str,
) -> Callable[[Trial, Sequence[Row], str], None]:
    """Returns what logs a trial that is over to the sinks of a configuration, as a run of its own.

    Args:
      config: The base configuration as a plain dict; its `wandb`, `mlflow` and `tensorboard` say
        where to. An offline database of MLflow is the study's.
      variants: What they change in it.
      directory: Of this process's part of the study.
      group: Of the runs, where the configuration names none; the same for all processes.
    """
    mlflow, wandb = dict(config["mlflow"]), dict(config["wandb"])
    wandb["group"] = wandb["group"] or group
    if mlflow["mode"] == "offline" and mlflow["uri"] is None:
        mlflow["uri"] = f"sqlite:///{(directory / DATABASE).resolve()}"
    if not sinks_of(config, directory):
        return log_nothing

    def ended(trial: Trial, rows: Sequence[Row], state: str) -> None:
        own = {**config, **trial.overrides(variants), "seed": trial.seed}
        own |= {"wandb": wandb | {"name": trial.name}, "mlflow": mlflow | {"name": trial.name}}
        for open_sink in sinks_of(own, directory / LOGGED / trial.name):
            sink = open_sink()
            for row in rows:
                sink.write(_metrics(row, trial))
            sink.summary({"state": state})
            sink.close(state != "diverged")

    return ended


def log_table(config: Mapping[str, Any], directory: Path, results: Results) -> None:
    """Logs a finished study to W&B as one run: a table of every trial's last evaluated row."""
    if config["wandb"]["mode"] == "disabled":
        return
    import wandb

    sink = wandb_sink(**config["wandb"], config=config, workdir=directory)
    columns = sorted({name for row in results.rows for name in row if name.startswith("eval/")})
    axes = list(dict.fromkeys(name for trial in results.trials for name in trial.point))
    last = {row["trial"]: row for row in results.rows if columns and columns[0] in row}
    table = wandb.Table(["trial", *axes, "seed", "state", "round", *columns])
    for trial in results.trials:
        row = last.get(trial.number, {})
        values = [trial.point.get(axis) for axis in axes]
        found = [row.get(name) for name in ("round", *columns)]
        table.add_data(trial.number, *values, trial.seed, results.status(trial).state, *found)
    sink.write({"round": 0, "trials": table})
    sink.close(True)


def _metrics(row: Row, trial: Trial) -> dict[str, Any]:
    return {
        name: value for name, value in row.items() if name not in {*trial.point, "trial", "seed"}
    }
