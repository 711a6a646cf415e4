"""Shows how a metric is spread over clients: each of them, the worst tenth, and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fljax.core.metrics import Metric, spread_metric, unit_of
from fljax.core.spread import SPREAD, spread
from fljax.recording.page import Block, Fold, Heading, Table, Text
from fljax.recording.runs import Run
from fljax.reports.charts import Chart, Line, shares, steps
from fljax.reports.curves import lines_of
from fljax.reports.headline import in_range
from fljax.reports.layout import Charts
from fljax.reports.subjects import Subject, alike
from fljax.studies.columns import with_sd
from fljax.studies.selection import spread as over_seeds

_MOST_BINS, _MOST_WORST, _MOST_GROUPS = 20, 10, 60
# Populations of `client_metrics.npz` by the prefix of their columns, and of records.
_WHOSE = {"": "", "personal/": "own models"}
_WORDS = {"worst": "worst tenth", "best": "best tenth", "std": "deviation"}


def client_blocks(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns the part of a page about single clients; nothing where none was evaluated."""
    groups = alike(subjects, "eval/clients/mean")
    blocks = [block for group in groups for block in _of_one_metric(group)]
    return [Heading("Clients"), *blocks] if blocks else []


def _of_one_metric(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns what is shown of subjects that are judged by the same metric."""
    metric = spread_metric(subjects[0].run.metrics)
    found = [
        one
        for subject in subjects
        for prefix in _WHOSE
        if (one := _values(subject, prefix, metric)) is not None
    ]
    if not found:
        return []
    factor, unit = unit_of(f"eval/test/{metric.name}", subjects[0].run.metrics)
    blocks: list[Block | Charts] = [
        Text(f"Each client's {metric.words} at the last evaluation, every client counting once."),
        _table(found, metric, factor, unit),
        Charts(_charts(found, metric, factor, unit) + _over_rounds(subjects)),
    ]
    blocks += _groups(subjects)
    if len(subjects) == 1 and len(subjects[0].runs) == 1:
        blocks += _worst(subjects[0].run, metric, factor, unit)
    return blocks


class _Spread(NamedTuple):
    """The metric of each client of a subject: of all its seeds together, and of each by itself."""

    label: str
    style: int
    values: np.ndarray
    by_seed: list[np.ndarray]


def _values(subject: Subject, prefix: str, metric: Metric) -> _Spread | None:
    columns = [
        np.asarray((run.client_metrics or {}).get(prefix + metric.name, ()), np.float64)
        for run in subject.runs
    ]
    columns = [column for column in columns if np.isfinite(column).any()]
    if not columns:
        return None
    label = ", ".join(filter(None, (subject.label, _WHOSE[prefix])))
    style = subject.style + 7 * bool(prefix)
    return _Spread(label, style, np.concatenate(columns), columns)


def _table(found: Sequence[_Spread], metric: Metric, factor: float, unit: str) -> Table:
    """Returns mean, quantiles and indices of each; over seeds their mean ± deviation."""
    rows = []
    for one in found:
        numbers = [spread(values[np.isfinite(values)], metric.sign > 0) for values in one.by_seed]
        cells = []
        for name in SPREAD:
            scale = {"jain": 1.0, "gini": 1.0, "entropy": 1.0, "variance": factor**2}
            written = over_seeds(each[name] for each in numbers)
            own = scale.get(name, factor)
            cells.append(with_sd(written, 2 if own >= 100 else None, own))
        judged = [int(np.isfinite(values).sum()) for values in one.by_seed]
        rows.append([one.label, in_range(judged), *cells])
    head = [_WORDS.get(name, name) for name in SPREAD]
    return Table([[f"{metric.words}{unit}", "clients", *head], *rows])


def _charts(found: Sequence[_Spread], metric: Metric, factor: float, unit: str) -> list[Chart]:
    x_label = f"{metric.title}{unit if unit not in metric.title else ''}"
    lines = [shares(one.label, factor * one.values, one.style) for one in found]
    charts = [
        Chart(
            f"Share of clients with at most this {metric.words}", x_label, "Share of clients",
            [line for line in lines if line is not None], from_zero=True,
        )
    ]  # fmt: skip
    if len(found) <= 2:
        charts.append(
            Chart("Clients by their value", x_label, "Share of clients", _histogram(found, factor),
                  from_zero=True)
        )  # fmt: skip
    return charts


def _histogram(found: Sequence[_Spread], factor: float) -> list[Line]:
    """Returns the share of clients in each bin; of several seeds, of all their clients."""
    columns = [factor * one.values[np.isfinite(one.values)] for one in found]
    together = np.concatenate(columns)
    bins = int(np.clip(np.sqrt(together.size) + 2, 5, _MOST_BINS))
    edges = np.histogram_bin_edges(together, bins)
    return [
        steps(one.label, edges, np.histogram(column, edges)[0] / column.size, one.style)
        for one, column in zip(found, columns, strict=True)
    ]


def _over_rounds(subjects: Sequence[Subject]) -> list[Chart]:
    """Returns the spread by round: of one subject several quantiles, of several the worst tenth."""
    metrics = subjects[0].run.metrics
    factor_unit = unit_of("eval/clients/mean", metrics)[1]
    label = f"{spread_metric(metrics).title}{factor_unit}"
    if len(subjects) > 1:
        lines = lines_of(subjects, "eval/clients/worst")
        title = "Mean over the worst tenth of clients"
        return [Chart(title, "Round", label, lines)] if lines else []
    lines = []
    for style, name in enumerate(("best", "p90", "p50", "mean", "p10", "worst")):
        own = lines_of(subjects, f"eval/clients/{name}")
        lines += [line._replace(label=_WORDS.get(name, name), style=style) for line in own]
    return [Chart("Spread over clients", "Round", label, lines)] if lines else []


def _groups(subjects: Sequence[Subject]) -> list[Block | Charts]:
    """Returns a table of what groups of clients or of rows came to, by their names."""
    metrics = subjects[0].run.metrics
    names = list(dict.fromkeys((metrics[0].name, "loss")))
    keys = [
        key
        for key in sorted({key for s in subjects for key in s.run.curves})
        if key.startswith(("eval/groups/", "eval/fairness/"))
    ]
    groups = dict.fromkeys(
        key.rpartition("/")[0] for key in keys if key.rpartition("/")[2] in names
    )
    if not groups:
        return []
    rows = []
    for group in list(groups)[:_MOST_GROUPS]:
        cells = [
            with_sd(over_seeds(factor * v for v in subject.values(f"{group}/{name}")), 2)
            for name in names
            for factor in [unit_of(f"{group}/{name}", metrics)[0]]
            for subject in subjects
        ]
        rows.append([group.removeprefix("eval/").removeprefix("groups/"), *cells])
    units = [unit_of(f"eval/test/{name}", metrics)[1] for name in names]
    head = [
        f"{name}{unit}" + (f", {subject.label}" if len(subjects) > 1 else "")
        for name, unit in zip(names, units, strict=True)
        for subject in subjects
    ]
    blocks: list[Block | Charts] = [Heading("By group", 3), Table([["group", *head], *rows])]
    if len(groups) > _MOST_GROUPS:
        blocks.append(Text(f"The first {_MOST_GROUPS} of {len(groups)} groups are listed."))
    return blocks


def _worst(run: Run, metric: Metric, factor: float, unit: str) -> list[Block | Charts]:
    """Returns the clients that fare worst, by name."""
    table = run.client_metrics or {}
    values = np.asarray(table.get(metric.name, ()), np.float64)
    order = np.argsort(metric.sign * np.where(np.isfinite(values), values, metric.sign * np.inf))
    order = order[np.isfinite(values[order])][:_MOST_WORST]
    if not order.size:
        return []
    groups = [name for name in table if name.startswith("groups/")]
    ids = table.get("id", table["client"])
    rows = [
        [str(ids[place]), f"{int(table['examples'][place]):,}", f"{factor * values[place]:.4g}"]
        + [str(table[name][place]) for name in groups]
        for place in order
    ]
    head = [
        "client",
        "examples",
        f"{metric.words}{unit}",
        *(n.removeprefix("groups/") for n in groups),
    ]
    return [Fold(f"The {len(rows)} clients that fare worst", [Table([head, *rows])])]
