"""Writes the page of runs or of a study: one file of HTML that needs no other one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from fljax.core.files import atomic_file, check_kind
from fljax.core.values import Field, checked, checked_path
from fljax.recording.page import as_html
from fljax.reports import drawing
from fljax.reports.found import find
from fljax.reports.layout import laid_out
from fljax.reports.run_page import run_page
from fljax.reports.study_page import study_page
from fljax.studies.loading import load_study_run

REPORT = "report.html"


def write_report(
    directories: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    partition: bool = True,
) -> Path:
    """Writes the report of a run, of several runs beside each other, or of a study.

    The page has curves that can be hidden, asked and looked at closer, and is complete without
    scripts. It loads nothing, so that it can be sent to others as it is. Runs that differ in their
    seed alone are shown as mean and standard deviation. What cannot be read is named, in the page
    and by a warning, and the others are shown.

    Args:
      directories: Workdirs of runs, or of one study; one of many runs stands for all of them.
      out: The file; `report.html` in the directory, or in the one that holds all of them, if None.
      partition: Whether the data are loaded again, to show which labels clients hold.

    Returns:
      The file.

    Raises:
      FileNotFoundError: A directory is not there, or none holds a run, a study or an audit.
      ValueError: Something else was given.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:  # as `fljax.simulate` does
      ...     recorder.write({"round": 1, "train/loss": 0.75, "eval/test/accuracy": 0.9})
      >>> fljax.reports.write_report("runs/first").name
      'report.html'
    """
    partition = checked("partition", partition, Field(True, bool))
    given = [directories] if isinstance(directories, str | Path) else directories
    found = find(given)
    for label, why in found.problems.items():
        warnings.warn(f"{label} is not shown: {why}", stacklevel=2)
    path = found.directory / REPORT if out is None else checked_path("out", out)
    check_kind(path)
    alone = len(found.studies) == 1 and not (found.runs or found.audits or found.problems)
    if alone:
        page = study_page(load_study_run(found.studies[0]))
    else:
        page = run_page(found, path.parent, partition=partition)
    text = as_html(laid_out(page), drawing.STYLE, drawing.SCRIPT)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.encode())
    return path
