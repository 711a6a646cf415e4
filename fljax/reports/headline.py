"""Writes what runs came to: one table, mean ± deviation where there are several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fljax.core.digits import figures
from fljax.core.durations import duration
from fljax.core.metrics import LOSS, Metric, name_of, target_of, unit_of
from fljax.recording.page import Table
from fljax.recording.runs import Run
from fljax.recording.summary import SIMULATED
from fljax.reports.subjects import BYTES, Subject, all_metrics, last
from fljax.studies.columns import with_sd
from fljax.studies.selection import is_known, spread
from fljax.training.privacy_records import EPSILON, EPSILON_PLD

_NONE = "–"
# Of more subjects, figures are columns.
_MOST_COLUMNS = 4
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def headline(subjects: Sequence[Subject]) -> Table:
    """Returns the table of what runs came to: a line a figure, or of many runs a line each.

    A figure that none of them has is left out.
    """
    columns = {
        title: [cell(subject) for subject in subjects] for title, cell in _columns(subjects).items()
    }
    columns = {title: cells for title, cells in columns.items() if set(cells) != {_NONE}}
    if len(subjects) <= _MOST_COLUMNS:
        facts = [[title, *cells] for title, cells in columns.items()]
        return Table([["", *(subject.label for subject in subjects)], *facts], facts=True)
    rows = zip(*columns.values(), strict=True)
    return Table(
        [["", *columns]]
        + [[subject.label, *row] for subject, row in zip(subjects, rows, strict=True)]
    )


def state(run: Run) -> str:
    """Says how far a run came."""
    if run.stopped:
        return f"ended early: {run.stopped}"
    if run.summary is None:
        return "unfinished"
    return "interrupted" if run.summary.get("interrupted") else "finished"


def in_bytes(count: float) -> str:
    """Returns a number of bytes as a text.

    Example:
      >>> in_bytes(1_500_000), in_bytes(12)
      ('1.50 MB', '12 bytes')
    """
    scale, unit = byte_unit(count)
    return f"{count / scale:,.3g} {unit}" if scale == 1 else f"{count / scale:,.2f} {unit}"


def byte_unit(most: float) -> tuple[float, str]:
    """Returns the unit of bytes, as a factor and as a text.

    Example:
      >>> byte_unit(2e6)
      (1000000.0, 'MB')
    """
    found = ((scale, unit) for scale, unit in _UNITS if most >= scale)
    return next(found, (1.0, "bytes"))


def _columns(subjects: Sequence[Subject]) -> dict[str, Callable[[Subject], str]]:
    """Returns {title: what writes the cell of a subject}."""
    metrics = all_metrics(subjects)
    firsts = dict.fromkeys(subject.run.metrics[0].name for subject in subjects)
    columns: dict[str, Callable[[Subject], str]] = {
        "state": lambda subject: "; ".join(dict.fromkeys(map(state, subject.runs))),
        "rounds": lambda subject: in_range([int(run.rounds[-1]) for run in subject.runs]),
    }
    for split in ("test", "val", "held_out", "personal"):
        for name in dict.fromkeys((*firsts, LOSS.name)):
            key = f"eval/{split}/{name}"
            text, (_, unit) = name_of(key, metrics), unit_of(key, metrics)
            columns[f"{text}, last{unit}"] = _at("final", key, metrics)
            if name in firsts and split != "val":
                columns[f"{text}, chosen round{unit}"] = _at("best", key, metrics)
    columns["round chosen"] = _chosen
    for subject in subjects:
        metric, target = subject.run.metrics[0], target_of(subject.run.config)
        if target is not None:
            columns[f"round of {metric.words} {target:g}"] = _reached(metric, target)
    columns["epsilon spent"] = lambda subject: _each(subject.runs, _epsilon, figures)
    columns["sent, both ways"] = _of_curve(BYTES, in_bytes)
    columns["simulated time"] = _of_curve(SIMULATED, duration)
    columns["wall time of rounds"] = _of_curve("time/elapsed_seconds", duration)
    return columns


def _at(when: str, key: str, metrics: Sequence[Metric]) -> Callable[[Subject], str]:
    factor, _ = unit_of(key, metrics)

    def cell(subject: Subject) -> str:
        found = [(known[when] or {}).get(key) for known in subject.outcomes]
        return _over_seeds(found, 2 if factor == 100 else None, factor)

    return cell


def _chosen(subject: Subject) -> str:
    chosen = [found for known in subject.outcomes if (found := known["best"])]
    if not chosen:
        return _NONE
    text = in_range([found["round"] for found in chosen])
    rows = {"val": "validation", "test": "test"}[chosen[0]["selected_by"]]
    return f"{text}, on {rows} data"


def _reached(metric: Metric, target: float) -> Callable[[Subject], str]:
    """Returns what writes the round in which a target was reached, of those seeds that did."""

    def cell(subject: Subject) -> str:
        run = subject.run
        if (run.metrics[0].name, target_of(run.config)) != (metric.name, target):
            return _NONE
        reached = [(known["to_target"] or {}).get("rounds") for known in subject.outcomes]
        return _over_seeds(reached, 0) if any(map(is_known, reached)) else "never"

    return cell


def _over_seeds(values: Sequence[float | None], places: int | None, factor: float = 1.0) -> str:
    """Returns mean and deviation as a text, which says where some seeds have no finite value."""
    known = sum(map(is_known, values))
    some = f" ({known}/{len(values)} seeds)" if 0 < known < len(values) else ""
    return with_sd(spread(values), places, factor) + some


def _epsilon(run: Run) -> float | None:
    return last(run.curves, EPSILON_PLD if EPSILON_PLD in run.curves else EPSILON)


def _of_curve(key: str, write: Callable[[float], str]) -> Callable[[Subject], str]:
    return lambda subject: _each(subject.runs, lambda run: last(run.curves, key), write)


def _each(
    runs: Sequence[Run], value: Callable[[Run], float | None], write: Callable[[float], str]
) -> str:
    """Returns the mean of a value over runs as a text."""
    known = [found for run in runs if (found := value(run)) is not None]
    return write(float(np.mean(known))) if known else _NONE


def in_range(numbers: Sequence[int]) -> str:
    """Returns one number, or the least and the greatest of several.

    Example:
      >>> in_range([4, 4]), in_range([1200, 3])
      ('4', '3 to 1,200')
    """
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def settings_line(config: Mapping[str, Any]) -> str:
    """Says in a sentence what was trained on what; empty where no configuration tells.

    Example:
      >>> settings_line({"algorithm": "fedavg", "dataset": "digits", "num_clients": 100})
      '`fedavg` on `digits` with 100 clients.'
    """
    if not config.get("algorithm"):
        return ""
    text = f"`{config['algorithm']}`"
    if config.get("model"):
        text += f" trains `{config['model']}`"
    if config.get("dataset"):
        text += f" on `{config['dataset']}`"
    if config.get("num_clients"):
        text += f" with {config['num_clients']:,} clients"
    if config.get("clients_per_round"):
        text += f", {config['clients_per_round']:,} a round"
    return text + "."
