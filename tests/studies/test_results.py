"""Tables of a sweep: what is written is what is read, whatever kinds of values there are."""

import contextlib
import csv
import math
import sys

import pytest

from fljax.recording.line_file import LineFile
from fljax.studies import Trial, grid, repeat
from fljax.studies import results as results_

TRIALS = repeat(grid({"client_lr": (0.1, 1.0), "server_optimizer": ("sgd", "adam")}), (0, 1))


def rows_of(trials, rounds=(0, 10)):
    for trial in trials:
        for round in rounds:
            record = {"round": round, "eval/val/accuracy": 0.01 * trial.number + 1e-4 * round}
            if round:
                record["train/loss"] = math.nan if trial.number == 3 else 1.0 / round
            yield results_.row(trial, record)


def same(one, two):
    """Returns whether rows are equal where NaN equals NaN."""
    return len(one) == len(two) and all(
        a.keys() == b.keys() and all(a[k] == b[k] or (a[k] != a[k] and b[k] != b[k]) for k in a)
        for a, b in zip(one, two, strict=True)
    )


def append(path, rows):
    with contextlib.closing(LineFile(path)) as file:
        results_.append_rows(file, rows)


def test_rows_read_back_as_they_were_appended(tmp_path):
    rows = list(rows_of(TRIALS))
    path = tmp_path / results_.ROWS
    assert results_.read_rows(path) == []
    append(path, rows[:5])
    append(path, rows[5:])
    with open(path, "a") as file:
        file.write('{"trial": 3, "round"')  # a writer that was killed
    assert same(results_.read_rows(path), rows)


def test_a_resumed_sweep_loses_the_rows_it_writes_again(tmp_path):
    rows = list(rows_of(TRIALS, rounds=(0, 10, 20)))
    path = tmp_path / results_.ROWS
    assert results_.rows_until(path, {0: 10}) == ([], [])
    append(path, rows)
    lines, kept = results_.rows_until(path, {0: 10, 1: 25, 2: 0})
    assert [(one["trial"], one["round"]) for one in kept] == [
        *((0, 0), (0, 10)),
        *((1, 0), (1, 10), (1, 20)),
        (2, 0),
    ]
    LineFile(path, lines).close()
    assert same(results_.read_rows(path), kept)


def test_a_sweep_reads_back_whole(tmp_path):
    trials = [*TRIALS[:2], Trial(2, {"client_lr": None, "sizes": (64, 10)}, 0)]
    statuses = {0: results_.Status("finished", 10), 1: results_.Status("stopped", 10)}
    rows = list(rows_of(trials))
    append(tmp_path / results_.ROWS, rows)
    results_.write_trials(tmp_path, trials, statuses)
    found = results_.load(tmp_path)
    assert found.trials == trials
    assert [tuple(found.status(t)) for t in trials] == [
        ("finished", 10),
        ("stopped", 10),
        ("waiting", 0),
    ]
    assert same(found.rows, rows), "None is a value of a hyperparameter, not a NaN"
    with pytest.raises(FileNotFoundError, match="holds no study"):
        results_.load(tmp_path / "elsewhere")


def test_the_table_has_a_line_for_each_trial_and_round(tmp_path):
    found = results_.Results(TRIALS, list(rows_of(TRIALS))[::-1], {})
    results_.write_table(tmp_path, found)
    with open(tmp_path / results_.TABLE, newline="") as file:
        header, *lines = csv.reader(file)
    assert header == [
        *("trial", "client_lr", "server_optimizer", "seed", "round"),
        *("eval/val/accuracy", "train/loss"),
    ]
    assert lines[1] == ["0", "0.1", "sgd", "0", "10", "0.001", "0.1"]
    assert [line[-1] for line in lines[6:8]] == ["", ""], "no value, and one that is not finite"
    assert [(int(line[0]), int(line[4])) for line in lines] == [
        (trial.number, round) for trial in TRIALS for round in (0, 10)
    ]


def test_parquet_holds_what_the_rows_hold(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    trials = [Trial(0, {"width": 8, "kind": "a"}, 0), Trial(1, {"width": 1.5, "kind": (1, 2)}, 0)]
    found = results_.Results(trials, list(rows_of(trials)), {})
    assert results_.PARQUET in [path.name for path in results_.write_table(tmp_path, found)]
    table = parquet.read_table(tmp_path / results_.PARQUET).to_pydict()
    assert table["width"] == [8.0, 8.0, 1.5, 1.5]
    assert table["kind"] == ['"a"', '"a"', "[1, 2]", "[1, 2]"], "values of several kinds as texts"
    assert table["train/loss"] == [None, 0.1, None, 0.1]


def test_without_pyarrow_there_is_the_csv_file_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    found = results_.Results(TRIALS, list(rows_of(TRIALS)), {})
    assert results_.write_table(tmp_path, found) == [tmp_path / results_.TABLE]


def test_axes_are_what_differs_between_trials():
    trials = repeat(
        [
            {"client_lr": 1.0, "batch_size": 20, "model": "mlp"},
            {"client_lr": 0.1, "batch_size": 20, "model": "lenet"},
            {"client_lr": 1.0, "batch_size": 20, "model": "lenet"},
        ]
    )
    assert results_.axes_of(trials) == {"client_lr": [0.1, 1.0], "model": ["mlp", "lenet"]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"train/loss": 1.0}, "needs a 'round'"),
        ({"round": 1, "client_lr": 1.0}, "'client_lr' has the name of another column"),
    ],
)
def test_records_that_fit_no_row(record, message):
    with pytest.raises(ValueError, match=message):
        results_.row(TRIALS[0], record)
