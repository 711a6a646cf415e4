"""A sweep on Weights & Biases: one run a trial, all in one group, or one run with a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fljax.recording import wandb_sink
from fljax.studies.results import Results, Row
from fljax.studies.trials import Trial


def log_nothing(trial: Trial, rows: Sequence[Row], state: str) -> None:
    """Does nothing with a trial that is over."""


def trial_logger(
    config: Mapping[str, Any], directory: Path, group: str
) -> Callable[[Trial, Sequence[Row], str], None]:
    """Returns what logs a trial that is over as a run of its own.

    Args:
      config: The configuration as a plain dict; its `wandb` says where to.
      directory: Of this process's part of the sweep.
      group: Of the runs, where the configuration names none; the same for all processes.
    """
    wandb = dict(config["wandb"])
    if wandb["mode"] == "disabled":
        return log_nothing
    wandb["group"] = wandb["group"] or group

    def ended(trial: Trial, rows: Sequence[Row], state: str) -> None:
        own = {**config, **trial.values, "seed": trial.seed}
        place = directory / "wandb_runs" / trial.name
        sink = wandb_sink(**wandb | {"name": trial.name}, config=own, workdir=place)
        for row in rows:
            sink.write(_metrics(row, trial))
        sink.summary({"state": state})
        sink.close(state != "diverged")

    return ended


def log_table(config: Mapping[str, Any], directory: Path, results: Results) -> None:
    """Logs a finished sweep as one run: a table of every trial's last evaluated row."""
    if config["wandb"]["mode"] == "disabled":
        return
    import wandb

    sink = wandb_sink(**config["wandb"], config=config, workdir=directory)
    columns = sorted({name for row in results.rows for name in row if name.startswith("eval/")})
    axes = list(dict.fromkeys(name for trial in results.trials for name in trial.values))
    last = {row["trial"]: row for row in results.rows if columns and columns[0] in row}
    table = wandb.Table(["trial", *axes, "seed", "state", "round", *columns])
    for trial in results.trials:
        row = last.get(trial.number, {})
        values = [trial.values.get(axis) for axis in axes]
        found = [row.get(name) for name in ("round", *columns)]
        table.add_data(trial.number, *values, trial.seed, results.status(trial).state, *found)
    sink.write({"round": 0, "trials": table})
    sink.close(True)


def _metrics(row: Row, trial: Trial) -> dict[str, Any]:
    return {
        name: value for name, value in row.items() if name not in {*trial.values, "trial", "seed"}
    }
