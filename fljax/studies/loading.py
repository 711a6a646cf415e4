"""Reads a study back from its directory, finished or not, for those who report on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fljax.core.metrics import from_plain
from fljax.core.settings import OPTIONS
from fljax.core.values import Field, brief, checked, checked_path
from fljax.recording import jsonio
from fljax.recording.runs import CONFIG
from fljax.studies import results as tables
from fljax.studies.criterion import Criterion
from fljax.studies.journal import Place, Share
from fljax.studies.launch import StudyRun
from fljax.studies.selection import BEST
from fljax.studies.space import Trial
from fljax.studies.study import Study

_KINDS = {
    **dict.fromkeys(("sweep", "config", "versions"), Field({}, dict)),
    "processes": Field(1, int),
}
_SPENT = dict.fromkeys(("versions", "trial_seconds", "round_seconds"), Field({}, dict))
# JSON has no infinity, of which null is written
_OF_RUNS = {
    name: Field(None, field.kind, optional=field.optional or field.kind is float)
    for name, field in OPTIONS.items()
}
# Of a study, what says how it is shown; how it was searched is over.
_SHOWN = ("seeds", "variants", "reference", "columns", "pictures")


def load_study_run(directory: str | Path) -> StudyRun:
    """Reads a study as `fljax.sweep` returned it; what an unfinished one has not written is empty.

    Axes that were drawn from are the values that trials had.

    Args:
      directory: The study's workdir.

    Raises:
      FileNotFoundError: There is no study.
      ValueError: A file is damaged; the message names it.

    Example:
      >>> studies.load_study_run("runs/rates").compare()  # doctest: +SKIP
    """
    directory = checked_path("directory", directory)
    if not (directory / CONFIG).exists():
        raise FileNotFoundError(f"{directory} holds no study: it has no {CONFIG}.")
    said = jsonio.read_object(directory / CONFIG)
    if "sweep" not in said:
        raise FileNotFoundError(f"{directory} holds no study: its {CONFIG} is that of a run.")
    _check(said, _KINDS, directory / CONFIG)
    config = said.get("config") or {}
    _check(config, _OF_RUNS, f"{directory / CONFIG}, config")
    place = Place(directory, Share(0, said.get("processes", 1)))
    begun = [part for part in place.directories if (part / tables.TRIALS).exists()]
    results = tables.joined(map(tables.load, begun))
    try:
        study, metrics = _study(said["sweep"], results.trials), from_plain(said.get("metrics"))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{directory / CONFIG} describes no study ({brief(error)}).") from error
    summaries = [_json(part / tables.SUMMARY) for part in place.directories]
    for part, summary in zip(place.directories, summaries, strict=True):
        _check(summary, _SPENT, part / tables.SUMMARY)
    seconds, of_rounds = (
        {int(number): spent for part in summaries for number, spent in part.get(of, {}).items()}
        for of in ("trial_seconds", "round_seconds")
    )
    return StudyRun(
        directory=directory,
        study=study,
        metrics=metrics,
        config=config,
        results=results,
        best=_json(directory / BEST) or None,
        summary={"device": "device not known", "versions": said.get("versions", {})} | summaries[0],
        seconds=seconds,
        round_seconds=of_rounds,
        missing=tuple(n for n, part in enumerate(summaries) if not part.get("complete")),
    )


def _check(values: Mapping[str, Any], fields: Mapping[str, Field], where: str | Path) -> None:
    """Raises ValueError for a value of another kind than studies write."""
    for name, value in values.items():
        if name in fields:
            checked(f"{where}: {name}", value, fields[name])


def _study(said: Mapping[str, Any], trials: Sequence[Trial]) -> Study:
    axes: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.values.items():
            if value not in axes.setdefault(name, []):
                axes[name].append(value)
    criterion = said.get("criterion")
    return Study(
        axes={name: tuple(values) for name, values in axes.items()},
        criterion=None if criterion is None else Criterion(**criterion),
        faced=said["faced"] if said.get("faced") in axes else "attack",
        **{name: said[name] for name in _SHOWN if name in said},
    )


def _json(path: Path) -> dict[str, Any]:
    return jsonio.read_object(path) if path.exists() else {}
