"""Puts together the page of a study: its report, and curves of its variants that can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fljax.core import metrics
from fljax.recording.page import Block, Contents, Heading, Text
from fljax.recording.runs import Run, to_curves
from fljax.reports.curves import metric_charts
from fljax.reports.layout import Charts
from fljax.reports.privacy import privacy_blocks
from fljax.reports.run_page import MOST_SUBJECTS, communication_blocks, number_blocks
from fljax.reports.subjects import Subject, prepared
from fljax.reports.systems import system_blocks
from fljax.studies.comparison import Compared, Comparison, Outcome
from fljax.studies.launch import StudyRun
from fljax.studies.study_report import blocks, command_of, pictures_of


def study_page(run: StudyRun) -> list[Block | Charts]:
    """Returns the content of the page of a study.

    Args:
      run: The study, from `fljax.studies.load_study_run`; finished or not.
    """
    title = run.directory.resolve().name
    if not run.results.rows:
        return [Heading(title, 1), Text("No round of this study has been recorded yet.")]
    comparison = run.compare()
    page: list[Block | Charts] = _report(run, comparison)
    if run.missing:
        states = [run.results.status(trial).state for trial in run.results.trials]
        over = sum(state not in ("waiting", "running") for state in states)
        of_all = f"{over} of {len(run.results.trials)} trials are over"
        page.insert(1, Text(f"*Not complete*: {of_all}, and figures are those so far."))
    subjects = _subjects(comparison)
    shown = subjects[:MOST_SUBJECTS]
    page.insert(1, Contents())
    page += [Heading("Curves by variant"), Text(_reading(len(shown), len(subjects)))]
    page.append(Charts(metric_charts(shown)))
    page += communication_blocks(shown)
    page += privacy_blocks(shown)
    page += system_blocks(shown)
    return page + number_blocks(shown)


def _report(run: StudyRun, comparison: Comparison) -> list[Block | Charts]:
    """Returns the report that a study writes itself, with the pictures that it has drawn."""
    pictures = pictures_of(run.directory) or run.plot()
    return list(blocks(run, comparison, pictures, command_of(run.directory)))


def _subjects(comparison: Comparison) -> list[Subject]:
    """Returns what is compared, each with the curves of its trials."""
    cells = [
        (entry.label if cell is entry else f"{entry.label}, {cell.label}", cell)
        for entry in comparison.compared
        for cell in (entry.under or (entry,))
    ]
    found = [(label, cell) for label, cell in cells if any(o.records for o in cell.outcomes)]
    return [
        Subject(label, _runs(cell, comparison), style) for style, (label, cell) in enumerate(found)
    ]


def _runs(cell: Compared, comparison: Comparison) -> tuple[Run, ...]:
    return tuple(
        prepared(_as_run(outcome, comparison)) for outcome in cell.outcomes if outcome.records
    )


def _as_run(outcome: Outcome, comparison: Comparison) -> Run:
    """Returns a trial as a run that was kept in memory."""
    place = {"trial", "seed", *outcome.trial.point}
    records = [_without(record, place) for record in outcome.records]
    curves = to_curves(records)
    config = {**comparison.config, **outcome.trial.overrides(comparison.study.variants)}
    config |= {"seed": outcome.trial.seed, "metrics": metrics.plain(comparison.metrics)}
    return Run(
        directory=None, config=config, summary=None, rounds=curves["round"].astype(int),
        curves=curves, client_metrics=None, baselines={},
    )  # fmt: skip


def _without(record: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def _reading(shown: int, there: int) -> str:
    some = f" The first {shown} of {there} are drawn." if shown < there else ""
    return (
        "Names below a chart hide and show lines, with Shift alone; the pointer or the arrow keys "
        "show values; dragging looks closer. Lines of several seeds are their means, bands one "
        f"standard deviation (n - 1).{some}"
    )
