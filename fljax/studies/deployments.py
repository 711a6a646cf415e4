"""Deployments side by side: streams that drift, each watched by several detectors, with seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fljax.config import ConfigError, call_in_file, to_plain, with_keys
from fljax.config.experiment import make_experiment
from fljax.core.files import naming
from fljax.core.values import shown
from fljax.recording import load_run
from fljax.recording.plots import COLOURS, STYLE, save_figure
from fljax.recording.runs import SUMMARY
from fljax.training.monitoring import monitor
from fljax.training.options import round_options_among

# The name of no detector, under which nobody trains again.
NONE = "none"
_COLUMNS = ("delay", "missed", "false_alarms", "recovered", "error", "trained_rounds")


class Deployments(NamedTuple):
    """The deployments that are watched, as `get_deployments()` of a config file gives them.

    Attributes:
      streams: {name: `concept_drift` of the configuration}.
      detectors: Texts of `fljax.systems.detectors`, or "none".
      deploy_after, retrain_rounds, watch_clients, watch_rows: As for
        `fljax.training.monitoring.monitor`.
      seeds: Of the runs; data are divided by them too.
    """

    streams: Mapping[str, str]
    detectors: Sequence[str]
    deploy_after: int
    retrain_rounds: int
    watch_clients: int = -1
    watch_rows: int = 1
    seeds: Sequence[int] = (0,)


class Outcome(NamedTuple):
    """One run: its stream, detector and seed, its summary, and the error of each round."""

    stream: str
    detector: str
    seed: int
    summary: Mapping[str, Any]
    errors: np.ndarray


def load_deployments(path: str) -> Deployments:
    """Returns what a config file names in `get_deployments()`.

    Raises:
      ConfigError: If the file has no such function, or it returns something else.
    """
    found = call_in_file(path, "get_deployments")
    if found is None:
        raise ConfigError(
            f"{path} defines no function get_deployments(). Add one that returns a dict of "
            f"{', '.join(Deployments._fields)}."
        )
    try:
        return Deployments(**found)
    except TypeError as error:
        raise ConfigError(
            f"{path} returns {shown(found)} as its deployments: {error}. It must return a dict of "
            f"{', '.join(Deployments._fields)}."
        ) from None


def run_deployments(config, settings: Deployments, workdir: str | Path) -> list[Outcome]:
    """Runs each stream with each detector and seed; what has been run before is read.

    Args:
      config: What all have in common.
      settings: What they differ in.
      workdir: Receives a folder for each run, a table and a picture.
    """
    workdir, outcomes = Path(workdir), []
    for stream, drift in settings.streams.items():
        for seed in settings.seeds:
            own = {"concept_drift": drift, "seed": seed, "data_seed": seed}
            made = with_keys(config.copy_and_resolve_references(), own)
            experiment = None
            for detector in settings.detectors:
                place = workdir / _folder(stream) / _folder(detector) / str(seed)
                if not (place / SUMMARY).exists():
                    experiment = experiment or make_experiment(made)
                    _run(experiment, settings, detector, place, to_plain(made))
                run = load_run(place)
                errors = run.curves["monitor/error"]
                outcomes.append(Outcome(stream, detector, seed, run.summary, errors))
    with naming(workdir / "deployments.json"):
        (workdir / "deployments.json").write_text(json.dumps(rows_of(outcomes), indent=2))
    draw_deployments(outcomes, workdir / "deployments.png")
    return outcomes


def rows_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns a dict for each stream and detector: means over seeds, None where there is none."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.stream, outcome.detector), []).append(outcome)
    rows = []
    for (stream, detector), several in groups.items():
        row = {"stream": stream, "detector": detector, "seeds": len(several)}
        for name in _COLUMNS:
            known = [each.summary[name] for each in several if each.summary[name] is not None]
            row[name] = float(np.mean(known)) if known else None
        rows.append(row)
    return rows


def table_of(outcomes: Sequence[Outcome]) -> str:
    """Returns a table of means over seeds, as text."""
    rows = rows_of(outcomes)
    wide = [max(len(str(row[name])) for row in rows) for name in ("stream", "detector")]
    lines = [f"{'stream':<{wide[0]}}  {'detector':<{wide[1]}}" + _cells(dict.fromkeys(_COLUMNS))]
    for row in rows:
        lines.append(f"{row['stream']:<{wide[0]}}  {row['detector']:<{wide[1]}}" + _cells(row))
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> str:
    """Returns the numbers of a line, or its heading where all are None."""
    heads = all(row[name] is None for name in _COLUMNS)
    texts = [
        name if heads else "-" if row[name] is None else f"{row[name]:.3g}" for name in _COLUMNS
    ]
    return "".join(f"  {text:>{len(name)}}" for name, text in zip(_COLUMNS, texts, strict=True))


def draw_deployments(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draws the error of the serving model over rounds, one panel a stream, means over seeds."""
    import matplotlib
    from matplotlib.figure import Figure

    streams = list(dict.fromkeys(outcome.stream for outcome in outcomes))
    detectors = list(dict.fromkeys(outcome.detector for outcome in outcomes))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 2.4 * len(streams) + 0.8), layout="constrained")
        panels = np.atleast_1d(figure.subplots(len(streams), sharex=True))
        for panel, stream in zip(panels, streams, strict=True):
            for number, detector in enumerate(detectors):
                asked = (stream, detector)
                errors = [each.errors for each in outcomes if each[:2] == asked]
                mean = np.mean(errors, axis=0)
                colour = COLOURS[number % len(COLOURS)]
                panel.plot(np.arange(len(mean)), mean, color=colour, label=detector, linewidth=1.2)
            panel.set(title=stream, ylabel="error", ylim=(0, None))
        panels[-1].set_xlabel("round")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        save_figure(figure, path, dpi=150)


def _run(experiment, settings: Deployments, detector: str, place: Path, config) -> None:
    monitor(
        experiment.dataset,
        experiment.task,
        experiment.algorithm,
        detector=None if detector == NONE else detector,
        deploy_after=settings.deploy_after,
        retrain_rounds=settings.retrain_rounds,
        watch_clients=settings.watch_clients,
        watch_rows=settings.watch_rows,
        workdir=place,
        config=config | {"detector": detector},
        **round_options_among(experiment.options),
    )


def _folder(detector: str) -> str:
    """Returns the name of a stream or the text of a detector as a folder's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in detector).strip("_")
