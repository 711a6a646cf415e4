"""Makes charts of what records hold: metrics, bytes, simulated time, and all else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fljax.core.durations import time_unit
from fljax.core.metrics import LOSS, Metric, name_of, target_of, unit_of
from fljax.recording.summary import SIMULATED
from fljax.reports.charts import Chart, Line
from fljax.reports.headline import byte_unit
from fljax.reports.subjects import (
    BYTES,
    DOWNLINK,
    UPLINK,
    Subject,
    alike,
    all_metrics,
    last,
    prepared,
    subject_line,
)

# Rows of evaluations as legends call them.
SPLITS = {
    "test": "test",
    "val": "validation",
    "held_out": "held-out clients",
    "personal": "clients' own models",
}
_ROUND = "Round"


def metric_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Returns charts of the tasks' first metrics and of the loss by round.

    Of one subject, all rows and its baselines share a chart; of several, each kind of rows has one.
    """
    first = subjects[0].run.metrics[0].name
    names = dict.fromkeys((*(subject.run.metrics[0].name for subject in subjects), LOSS.name))
    charts = []
    for name in names:
        keys = [f"eval/{split}/{name}" for split in SPLITS]
        keys += ["train/loss"] * (name == LOSS.name)
        # one key for all tasks, of whose first metrics it is
        keys += ["eval/clients/mean"] * (name == first != LOSS.name)
        if len(subjects) == 1:
            lines = [*_rows_of(subjects[0], keys), *_of_baselines(subjects[0], name)]
            charts += _chart(_title(name, subjects[0].run.metrics), keys[0], lines, subjects)
            continue
        for key, group in _in_groups(subjects, keys):
            title = name_of(key, group[0].run.metrics)
            charts += _chart(title[0].upper() + title[1:], key, lines_of(group, key), group)
    return charts


def spent_charts(subjects: Sequence[Subject], x_key: str) -> list[Chart]:
    """Returns a chart of the first metric over bytes or simulated seconds; none without them.

    Args:
      subjects: What is compared.
      x_key: `BYTES` or `SIMULATED`.
    """
    metrics = subjects[0].run.metrics
    most = max((value for subject in subjects for value in subject.values(x_key)), default=0.0)
    if most <= 0:
        return []
    unit = byte_unit if x_key == BYTES else time_unit
    scale, text = unit(most)
    keys = [f"eval/{split}/{metrics[0].name}" for split in SPLITS]
    key = next((key for key in keys if any(key in s.run.curves for s in subjects)), None)
    if key is None:
        return []
    factor, _ = unit_of(key, metrics)
    lines = [subject_line(subject, key, x_key, factor, 1 / scale) for subject in subjects]
    what = "bytes sent, both ways" if x_key == BYTES else "simulated time"
    title = f"{name_of(key, metrics)} over {what}"
    x_label = f"Sent, both ways ({text})" if x_key == BYTES else f"Simulated time ({text})"
    return _chart(title[0].upper() + title[1:], key, _known(lines), subjects, x_label)


def byte_charts(subjects: Sequence[Subject]) -> list[Chart]:
    """Returns charts of what was sent so far: both ways of one subject, else each way of all."""
    most = max(
        (v for s in subjects for key in (UPLINK, DOWNLINK) for v in s.values(key)), default=0
    )
    if most <= 0:
        return []
    scale, unit = byte_unit(most)
    ways = {UPLINK: "from clients", DOWNLINK: "to clients"}
    charts = []
    for place, (key, text) in enumerate(ways.items()):
        lines = _known(subject_line(subject, key, factor=1 / scale) for subject in subjects)
        if len(subjects) == 1:
            lines = [line._replace(label=text, style=place) for line in lines]
        if lines:
            charts.append(
                Chart(f"Sent so far {text}", _ROUND, f"Bytes ({unit})", lines, from_zero=True)
            )
    if len(subjects) == 1 and len(charts) == 2:
        both = [line for chart in charts for line in chart.lines]
        return [charts[0]._replace(title="Sent so far", lines=both)]
    return charts


def key_charts(subjects: Sequence[Subject], keys: Iterable[str]) -> list[Chart]:
    """Returns a chart for each key of records, by round; of tasks that mean others by it, each."""
    charts = []
    for key, group in _in_groups(subjects, keys):
        _, unit = unit_of(key, group[0].run.metrics)
        found = _chart(key, key, lines_of(group, key), group)
        # a target is of the first metric, which has charts of its own
        charts += [chart._replace(target=None, y_label=f"{key}{unit}") for chart in found]
    return charts


def other_keys(subjects: Sequence[Subject], shown: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns the keys of records that are not shown: those that change, and those that do not."""
    keys = dict.fromkeys(key for subject in subjects for run in subject.runs for key in run.curves)
    changing, constant = [], []
    for key in sorted(keys.keys() - {"round", *shown}):
        curves = [run.curves[key] for s in subjects for run in s.runs if key in run.curves]
        values = np.concatenate(curves)
        values = values[np.isfinite(values)]
        if values.size:
            (changing if values.min() < values.max() else constant).append(key)
    return changing, constant


def lines_of(subjects: Sequence[Subject], key: str) -> list[Line]:
    """Returns the line of a record's key for each subject that has it, in the units of the key.

    Args:
      subjects: Those in which the key holds one metric, see `alike`.
      key: Of records.
    """
    factor, _ = unit_of(key, subjects[0].run.metrics)
    return _known(subject_line(subject, key, factor=factor) for subject in subjects)


def shown_keys(subjects: Sequence[Subject]) -> set[str]:
    """Returns the keys of records that the charts above show."""
    names = {*(subject.run.metrics[0].name for subject in subjects), LOSS.name}
    keys = {f"eval/{split}/{name}" for split in SPLITS for name in names}
    return keys | {"train/loss", "eval/clients/mean", UPLINK, DOWNLINK, BYTES, SIMULATED}


def _in_groups(
    subjects: Sequence[Subject], keys: Iterable[str]
) -> Iterator[tuple[str, list[Subject]]]:
    """Yields each key with those subjects in which it holds one metric, for all of these groups."""
    return ((key, group) for key in keys for group in alike(subjects, key))


def _rows_of(subject: Subject, keys: Sequence[str]) -> list[Line]:
    """Returns the lines of one subject, one for each kind of rows."""
    texts = {**SPLITS, "train": "training", "clients": "mean over clients"}
    lines = [(key, line) for key in keys for line in lines_of([subject], key)]
    return [
        line._replace(label=texts[_rows(key)], style=place)
        for place, (key, line) in enumerate(lines)
    ]


def _rows(key: str) -> str:
    parts = key.split("/")
    return parts[1] if parts[0] == "eval" else parts[0]


def _of_baselines(subject: Subject, name: str) -> list[Line]:
    """Returns the test curves of a subject's baselines, in dashes."""
    lines = []
    for place, label in enumerate(subject.run.baselines):
        runs = [run.baselines[label] for run in subject.runs if label in run.baselines]
        own = Subject(label, tuple(map(prepared, runs)), style=7 + place)
        keys = [f"eval/{split}/{name}" for split in SPLITS]
        key = next((key for key in keys if last(own.run.curves, key) is not None), None)
        if key is not None:
            found = lines_of([own], key)
            lines += [line._replace(label=f"{label}, {SPLITS[_rows(key)]}") for line in found]
    return lines


def _chart(
    title: str, key: str, lines: Sequence[Line], subjects: Sequence[Subject], x_label: str = _ROUND
) -> list[Chart]:
    """Returns a chart of a metric, with the target if it is the first one; none without lines."""
    if not lines:
        return []
    metrics = all_metrics(subjects)
    factor, unit = unit_of(key, metrics)
    name = next((metric.title for metric in metrics if metric.name == key.rpartition("/")[2]), None)
    label = f"{name or title}{unit if unit not in (name or '') else ''}"
    target = _target(key, subjects)
    return [Chart(title, x_label, label, lines, None if target is None else factor * target)]


def _target(key: str, subjects: Sequence[Subject]) -> float | None:
    """Returns the target that all who are judged by a metric share; None where there is none."""
    name = key.rpartition("/")[2]
    runs = [subject.run for subject in subjects if subject.run.metrics[0].name == name]
    targets = {target_of(run.config) for run in runs}
    return targets.pop() if key.startswith("eval/") and len(targets) == 1 else None


def _title(name: str, metrics: Sequence[Metric]) -> str:
    found = next((metric for metric in metrics if metric.name == name), LOSS)
    return found.label or found.name


def _known(lines: Iterable[Line | None]) -> list[Line]:
    return [line for line in lines if line is not None]
