"""Reads a run back: `load_run(directory)`, while it runs or after."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.core.digits import counted
from fljax.core.metrics import Metric, from_plain, spread_metric, target_of
from fljax.core.values import checked_path
from fljax.recording import jsonio
from fljax.recording.checksums import Extent
from fljax.recording.client_plots import plot_clients
from fljax.recording.export import export_weights
from fljax.recording.models import BEST, FINAL, model_path, read_model
from fljax.recording.npz import load_arrays
from fljax.recording.participation_plots import plot_participation
from fljax.recording.plots import plot_curves
from fljax.recording.timeline_plots import plot_timeline

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CLIENTS = "client_metrics.npz"
TIMELINE = "timeline.npz"
BASELINES = "baselines"


class Run(NamedTuple):
    """A run that is over, as it was recorded.

    Attributes:
      directory: Where it lies; None for a run that was kept in memory, or that another process
        wrote.
      config: Contents of config.json; empty if the run has not written it.
      summary: Contents of summary.json; None while the run is unfinished.
      rounds: int64 array, the round of each record.
      curves: {key: float64 array as long as `rounds`}, NaN where a round has no such value;
        `curves["round"]` equals `rounds`.
      client_metrics: {name: array} of per-client evaluation, see `recording.client_results`; or
        None.
      baselines: {name: Run} found under `baselines/`.
      variables: The final model, `Variables`; None where files have none, as of an unfinished run.
      interrupted: Whether the run was stopped before its last round, and can be gone on with.
      stopped: Why the run ended before its last round: a target, patience, a hook; else None.
      best_variables: The model of the best evaluation on validation data, or None.
      frozen: Constants of the model.
      about_model: What `fljax.predictor` needs to know of the model.
      timeline: {name: array} of who worked when, see `recording.timeline`; None without a clock.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:
      ...     recorder.write({"round": 1, "train/loss": 0.75})
      ...     recorder.write({"round": 2, "train/loss": 0.5})
      >>> run = fljax.load_run("runs/first")
      >>> run
      Run(runs/first, unfinished, 2 rounds)
      >>> run.rounds[run.curves["train/loss"] < 0.6]
      array([2])
    """

    directory: Path | None
    config: dict[str, Any]
    summary: dict[str, Any] | None
    rounds: np.ndarray
    curves: dict[str, np.ndarray]
    client_metrics: dict[str, np.ndarray] | None
    baselines: dict[str, Run]
    variables: Any = None
    interrupted: bool = False
    stopped: str | None = None
    best_variables: Any = None
    frozen: Any = None
    about_model: Mapping[str, Any] | None = None
    timeline: dict[str, np.ndarray] | None = None

    def __repr__(self) -> str:
        final = (self.summary or {}).get("final") or {}
        found = [
            f"{split} {metric} {final[key]:.4g}"
            for split in ("val", "test")
            for metric in dict.fromkeys((self.metrics[0].name, "loss"))
            if final.get(key := f"eval/{split}/{metric}") is not None
        ]
        where = "in memory" if self.directory is None else str(self.directory)
        state = "interrupted, " if self.interrupted else "" if self.summary else "unfinished, "
        last = self.rounds[-1] if len(self.rounds) else 0
        return f"Run({', '.join([where, state + counted(last, 'round'), *found])})"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the run's task; the first one chose the best round."""
        return from_plain(self.config.get("metrics"))

    def plot(self, directory: str | Path | None = None, label: str = "federated") -> list[Path]:
        """Draws loss, first metric and bytes over the baselines; returns the PNG files.

        Where single clients were evaluated, also how the metric is spread over them; in simulated
        time also the metric over it, who worked when, and how evenly clients were chosen.

        Args:
          directory: Where to write them; `plots/` of the run if None.
          label: How the legend calls this run.
        """
        if directory is None and self.directory is None:
            raise ValueError("this run was kept in memory; say where to draw: plot(directory)")
        curves = {label: self.curves}
        curves |= {name: baseline.curves for name, baseline in self.baselines.items()}
        directory = self.directory / "plots" if directory is None else directory
        target, metric = target_of(self.config), spread_metric(self.metrics)
        clients = (self.client_metrics or {}).get(metric.name, ())
        pictures = [
            *plot_curves(curves, directory, metric=self.metrics[0], target=target),
            *plot_clients({label: clients}, directory, metric=metric),
        ]
        if self.timeline is not None:
            pictures += plot_timeline(self.timeline, self.curves, directory)
            pictures += plot_participation(self.timeline, self.summary or self.config, directory)
        return pictures

    def export(self, path: str | Path, which: str = FINAL, names: str = "fljax") -> Path:
        """Writes the trained weights to a safetensors file; returns its path.

        What adapters have learned is added to the weights, so that the file is one of the model
        that was adapted.

        Args:
          path: The file.
          which: "final", or "best" by validation.
          names: Whose names and order of axes: "fljax", "torch" or "gpt2".

        Raises:
          ValueError: If the run has no such model.

        Example:
          >>> run.export("trained.safetensors", which="best")  # doctest: +SKIP
        """
        model_path("", which)  # is `which` one of them?
        variables = self.variables if which == FINAL else self.best_variables
        if variables is None:
            why = (self.about_model or {}).get("no_best") or "it has not ended"
            raise ValueError(f"This run has no {which} model: {why}.")
        return export_weights(path, variables, self.frozen, names)


def to_curves(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Turns records into {key: float64 array [records]}, NaN where a record lacks the key."""
    curves: dict[str, np.ndarray] = {}
    for index, record in enumerate(records):
        for key, value in record.items():
            if value is None or isinstance(value, str):
                continue
            if key not in curves:
                curves[key] = np.full(len(records), np.nan)
            curves[key][index] = value
    return curves


def load_run(directory: str | Path) -> Run:
    """Reads a run, finished or not, and the baselines beneath it.

    Args:
      directory: The run's workdir.

    Raises:
      FileNotFoundError: there is no such directory, or it holds no run.
      ValueError: a file of the run is damaged, changed since it was written, or was written by two
        processes; the message names it.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:  # as `fljax.simulate` does
      ...     recorder.write({"round": 1, "eval/test/accuracy": 0.9})
      >>> fljax.load_run("runs/first").curves["eval/test/accuracy"][-1]
      np.float64(0.9)
    """
    directory = checked_path("directory", directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"no run at {directory}: there is no such directory")
    if not any((directory / name).exists() for name in (CONFIG, METRICS, SUMMARY)):
        raise FileNotFoundError(
            f"{directory} holds no run: it has neither {CONFIG} nor {METRICS}. "
            "Give the directory that was passed as workdir."
        )
    records = [record for _, record in read_records(directory / METRICS)]
    summary = _optional_json(directory / SUMMARY)
    if summary is not None and not (directory / METRICS).exists():
        warnings.warn(
            f"{directory} has lost its {METRICS}: its curves are empty, though the run has ended.",
            stacklevel=2,
        )
    models = {
        which: read_model(path) if (path := model_path(directory, which)).exists() else None
        for which in (FINAL, BEST)
    }
    final, best = models[FINAL], models[BEST]
    return Run(
        directory=directory,
        config=_optional_json(directory / CONFIG) or {},
        summary=summary,
        rounds=np.array([record["round"] for record in records], np.int64),
        curves=to_curves(records),
        client_metrics=load_arrays(directory / CLIENTS),
        baselines=_load_baselines(directory / BASELINES),
        variables=final and final.variables,
        stopped=(summary or {}).get("stopped"),
        best_variables=best and best.variables,
        frozen=final and final.frozen,
        about_model=final and final.about,
        timeline=load_arrays(directory / TIMELINE),
    )


def holds_study(directory: Path) -> bool:
    """Returns whether a directory holds a study or a sweep, however far it came."""
    try:
        return jsonio.read_object(directory / CONFIG).keys() >= {"config", "sweep"}
    except (OSError, ValueError):
        return False


def read_records(
    path: Path, last_round: float = math.inf, extent: Extent | None = None
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields (line, record) of a file of records up to a round; nothing if it is not there.

    Args:
      path: Of the file.
      last_round: Of the records.
      extent: What of the file is read; None for all.

    Raises:
      ValueError: The file is damaged, or its rounds do not increase; the message names it.
    """
    before = None
    lines = jsonio.read_lines(path, extent) if path.exists() else ()
    for number, (line, record) in enumerate(lines, start=1):
        round = record.get("round")
        if not isinstance(round, int):
            raise ValueError(f"{path}, line {number} is no record: its round is {round!r}.")
        if before is not None and round <= before:
            raise ValueError(
                f"{path}, line {number} records round {round} after round {before}: two processes "
                "have written this file, and neither is to be believed. Start again in another "
                "--workdir."
            )
        before = round
        if round <= last_round:
            yield line, record


def _optional_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, None where there is no file."""
    return jsonio.read_object(path) if path.exists() else None


def _load_baselines(directory: Path) -> dict[str, Run]:
    if not directory.is_dir():
        return {}
    holds_run = (path for path in sorted(directory.iterdir()) if (path / METRICS).exists())
    return {path.name: load_run(path) for path in holds_run}
