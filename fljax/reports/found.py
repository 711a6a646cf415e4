"""Finds out what directories hold: runs, studies, audits, or something that cannot be shown."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fljax.core.values import brief, checked_path, sequence
from fljax.recording.recorder import holds_run
from fljax.recording.runs import CONFIG, Run, holds_study, load_run
from fljax.reports.kinds import sieved
from fljax.studies.results import TRIALS

AUDIT = "audit.json"


class FoundRun(NamedTuple):
    """A run that was read.

    Attributes:
      label: What the page calls it.
      run: The run.
      warnings: What was said as it was read.
    """

    label: str
    run: Run
    warnings: tuple[str, ...] = ()


class Found(NamedTuple):
    """The runs and studies of directories.

    Attributes:
      directory: The one that holds them all.
      runs, studies, audits: In the order in which they were given.
      problems: {label: why it is not shown}.
    """

    directory: Path
    runs: list[FoundRun]
    studies: list[Path]
    audits: list[Path]
    problems: dict[str, str]


def find(directories: Sequence[str | Path]) -> Found:
    """Reads what directories hold; one of many runs stands for all of them.

    What is damaged is named, and the others are read.

    Args:
      directories: Of runs, studies or audits, or of directories of these.

    Raises:
      ValueError: If there is no directory.
      FileNotFoundError: If one of them does not exist, or none holds anything.

    Example:
      >>> with recording.Recorder("runs/first") as recorder:  # as `fljax.simulate` does
      ...     recorder.write({"round": 1, "train/loss": 0.5})
      >>> [one.label for one in find(["runs"]).runs]
      ['first']
    """
    what = "a list of directories, such as ['runs/first', 'runs/second']"
    given = [
        checked_path("directories", path) for path in sequence("directories", directories, what)
    ]
    if not given:
        raise ValueError("directories is empty. Name at least one, such as runs/first.")
    for path in given:
        if not path.is_dir():
            raise FileNotFoundError(f"There is no directory {path}. Give the workdir of a run.")
    # a directory that is named twice, or has two names, is one
    paths = list({each.resolve(): each for path in given for each in _below(path)}.values())
    if not paths:
        raise FileNotFoundError(
            f"{', '.join(map(str, given))}: no run, study or audit there. Give the directory that "
            "was passed as workdir."
        )
    # of many in one directory, the page belongs beside them
    directory = paths[0] if len(paths) == 1 else _common(paths)
    found = Found(directory, [], [], [], {})
    labels = _labels(paths)
    for path, label in zip(paths, labels, strict=True):
        if (path / AUDIT).exists():
            found.audits.append(path)
        elif is_study(path):
            found.studies.append(path)
        else:
            try:
                found.runs.append(_read(path, label))
            except (OSError, TypeError, ValueError) as error:
                found.problems[label] = str(error)
    return found


def is_study(directory: Path) -> bool:
    """Returns whether a directory holds a study or a sweep, however far it came."""
    return (directory / TRIALS).exists() or holds_study(directory)


def _holds(directory: Path) -> bool:
    return (
        (directory / AUDIT).exists()
        or (directory / TRIALS).exists()
        or (directory.is_dir() and holds_run(directory))
    )


def _below(directory: Path) -> list[Path]:
    """Returns a directory that holds something, else those in it that do."""
    if _holds(directory):
        return [directory]
    return [path for path in sorted(directory.iterdir()) if path.is_dir() and _holds(path)]


def _read(directory: Path, label: str) -> FoundRun:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = load_run(directory)
    if not len(run.rounds):
        raise ValueError("no round of it has been recorded yet")
    try:
        _ = run.metrics
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the metrics in its {CONFIG} are none ({brief(error)})") from error
    run, left_out = sieved(run)
    said = tuple(str(warning.message) for warning in caught)
    return FoundRun(label, run, (*said, *left_out))


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.resolve() for path in paths]))


def _labels(paths: Sequence[Path]) -> list[str]:
    """Returns names of directories, as long as it takes to tell them apart."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = _common(paths)
    return [path.resolve().relative_to(common).as_posix() for path in paths]
