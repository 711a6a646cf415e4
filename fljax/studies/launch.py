"""Runs a study, from its settings to its tables."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.config import default_config, to_plain, with_keys
from fljax.core import signals
from fljax.core.digits import counted
from fljax.core.metrics import ACCURACY, LOSS, Metric, plain
from fljax.core.settings import OPTIONS, affecting
from fljax.core.values import FILES, SPEED, checked, checked_path, wrong
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.distributed import num_processes
from fljax.engine.devices.execution import use_all_cores
from fljax.recording import device, jsonio, peak_memory_bytes, say, versions
from fljax.recording.lock import locked
from fljax.recording.runs import CONFIG, METRICS
from fljax.studies import results as tables
from fljax.studies.columns import columns_of
from fljax.studies.comparison import Comparison, compare, write_study_table
from fljax.studies.costs import Costs
from fljax.studies.criterion import for_groups, keys_of
from fljax.studies.groups import (
    Group,
    Groups,
    Make,
    check_keys,
    from_config,
    from_function,
    grouped,
    part_of,
    resolved,
)
from fljax.studies.journal import Journal, Place, Share, keep_share, kept_share, share_of
from fljax.studies.pictures import check_kinds, plot_study
from fljax.studies.results import Results
from fljax.studies.runner import Runner, make_bar
from fljax.studies.selection import write_best
from fljax.studies.slots import check_group
from fljax.studies.space import Trial, identity
from fljax.studies.study import (
    Study,
    check_reference,
    judged_late,
    listed_trials,
    search_of,
    study_of,
)
from fljax.training.options import check_workdir, split_options
from fljax.training.simulation import numerics


class StudyRun(NamedTuple):
    """A study that has run, or one process's part of it.

    Attributes:
      directory: Where everything lies.
      study: What was compared.
      metrics: Of the task, the first one first.
      config: The base configuration as JSON holds it; empty where a function made the experiments.
      results: Trials, their rows and how they ended, of all processes so far.
      best: What `best.json` says; None while trials are missing.
      summary: What `sweep.json` says of this process: trials, groups, seconds.
      seconds: {number of the trial: seconds it took}, of all processes.
      round_seconds: The same of its rounds alone, in which nothing was compiled.
      missing: Ranks of the processes whose trials are not all over.

    Example:
      >>> found = fljax.sweep(config, "runs/rates", axes={"mu": (0.1, 1)})  # doctest: +SKIP
      >>> found.plot()  # doctest: +SKIP
    """

    directory: Path
    study: Study
    metrics: Sequence[Metric]
    config: Mapping[str, Any]
    results: Results
    best: dict[str, Any] | None
    summary: dict[str, Any]
    seconds: Mapping[int, float]
    round_seconds: Mapping[int, float]
    missing: tuple[int, ...]

    def __repr__(self) -> str:
        state = "" if self.complete else ", not complete"
        return f"StudyRun({self.directory}: {counted(len(self.results.trials), 'trial')}{state})"

    @property
    def complete(self) -> bool:
        """Says whether all trials of all processes are over."""
        return not self.missing

    def compare(self) -> Comparison:
        """Returns what was compared, over seeds and against the reference."""
        spent = self.seconds, self.round_seconds
        return compare(self.study, self.config, self.results, *spent, metrics=self.metrics)

    def plot(self) -> list[Path]:
        """Draws the study into `plots/`; returns the files."""
        return plot_study(self.compare(), self.directory / "plots")


def sweep(
    config: Any,
    workdir: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    share: Share | None = None,
    **settings: Any,
) -> StudyRun:
    """Runs a study: trials that share shapes train side by side under one compilation.

    A trial's numbers are those of the trial run alone. Files in the workdir: `results.jsonl` with a
    row a trial and round, `trials.json`, and at the end `results.csv` (`.parquet`), `best.json` and
    `sweep.json`. Of several processes each has a directory of its own below `parts/`, and the last
    one to end writes the tables of all.

    Args:
      config: The base configuration, from `fljax.config`; or a function from a
        `fljax.studies.Trial` to a `fljax.config.experiment.Experiment`, for models and data that no
        configuration names.
      workdir: Directory of the study.
      resume: Go on with the study of the workdir; no finished trial runs again. The study may have
        more variants, values and seeds than before, where a single process runs it.
      progress: Show progress on standard error.
      share: This process's share; None asks the environment, see `fljax.studies.journal`.
      **settings: The fields of `fljax.studies.Study`; `axes` is needed, or `variants`, or a
        `search` object that proposes trials as it goes.

    Example:
      >>> study = {"axes": {"client_lr": (0.1, 1.0)}, "seeds": (0, 1)}
      >>> found = fljax.sweep({"num_rounds": 20}, "runs/rates", **study)  # doctest: +SKIP
      >>> found.best["values"], found.best["edges"]  # doctest: +SKIP

    Raises:
      TypeError: For a setting that does not exist.
      ValueError: For settings, values or memory that no trial can run with.
      FileExistsError: If the workdir holds a study already, and `resume` is not set; one of another
        number of processes; or a run.
      BlockingIOError: If another process runs the same share.
      SystemExit: After SIGTERM or SIGHUP, which end the study as Ctrl-C does, saved, and then the
        program, unless it handles them.
    """
    check_workdir(workdir)
    study = study_of(settings)
    trials = listed_trials(study)
    columns_of(study)
    check_kinds(study.pictures)
    workdir = checked_path("workdir", workdir)
    if (workdir / METRICS).exists():  # whose config.json would be written over
        raise FileExistsError(f"{workdir} holds a run, and no study. Give another --workdir.")
    for name, switch in (("resume", resume), ("progress", progress)):
        checked(name, switch, OPTIONS[name])
    if not isinstance(share, Share | None):
        raise wrong("share", share, "a fljax.studies.Share, or None")
    if not (callable(config) or isinstance(config, Mapping) or hasattr(config, "to_dict")):
        raise wrong("config", config, "a configuration, or a function (trial) -> Experiment")
    if isinstance(config, Mapping):
        config = with_keys(default_config(), config)
    if not callable(config):
        check_keys(config, study.variants)
    check_reference(study)
    place = Place(workdir, share or share_of(kept=kept_share(workdir)))
    if num_processes() > 1:
        raise ValueError(
            "The processes of a study share its trials and compute alone: start them without "
            "initialize_distributed, see docs/studies.md."
        )
    use_all_cores()
    use_compilation_cache()
    if study.is_open and place.share.count > 1:
        raise ValueError(
            f"This is process {place.share.rank} of {place.share.count}, but a search object "
            "proposes trials to one process: start it with --share=0/1. Several processes can have "
            "a workdir and a search each; what they share lies in the search."
        )
    if callable(config):
        if study.together:
            raise ValueError(
                "together is for attacks that a configuration names, and a function makes the "
                "experiments here. Leave it out; see fljax.robustness.alternatives for them."
            )
        make = from_function(config, study.variants)
    else:
        make = from_config(config, study.variants, study.together)
    if resume:
        trials = _numbered(trials, study, place)
    shared = _shared(config, study, trials)
    groups = grouped(trials, make)
    metrics = groups[0].experiment.task.metrics if groups else (ACCURACY, LOSS)
    study = dataclasses.replace(study, criterion=for_groups(study.criterion, groups))
    if study.columns and groups:
        columns_of(study, {key for group in groups for key in keys_of(group, study.columns)})
    groups = part_of(groups, place.share.rank, place.share.count)
    keep_share(place)
    if progress and place.share.count > 1:
        part = sum(len(group.trials) for group in groups)
        rank, count, _ = place.share
        say(f"process {rank} of {count}: {part} of {len(trials)} trials")
    costs = Costs()
    over, ran = True, 0
    with locked(place.directory):
        if groups or study.is_open:
            over, ran = _run(
                shared, make, groups, study, place, costs, resume=resume, progress=progress
            )
        found = _found(place, shared, study, metrics, costs, over, ran)
    where = f"go on in {workdir} by resume=True" if found.missing else f"all in {workdir}"
    signals.conclude(f"{ran} trials, {where}.")
    return found


def _shared(config: Any, study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns the base configuration as JSON can hold it; nothing where a function replaces it.

    The values of the first trial are in place: what trials share need not be valid without them.
    """
    if callable(config):
        return {}
    return to_plain(resolved(config, trials[0], study.variants) if trials else config)


def _numbered(trials: Sequence[Trial], study: Study, place: Place) -> Sequence[Trial]:
    """Returns the trials of a study that goes on: those of before keep their numbers.

    Raises:
      ValueError: If the study of before had trials that are not there any more.
    """
    path = place.directory / tables.TRIALS
    if study.is_open or place.share.count > 1 or not path.exists():
        return trials
    if (place.workdir / CONFIG).exists():
        _check_variants(study, jsonio.read_object(place.workdir / CONFIG)["sweep"], place)
    before = tables.load_trials(place.directory)[0]
    known = {_identity(trial): trial.number for trial in before}
    listed = {_identity(trial): trial for trial in trials}
    if lost := [trial for trial in before if _identity(trial) not in listed]:
        raise ValueError(
            f"{place.workdir} holds a study with {len(lost)} trials that are not listed any more, "
            f"such as {lost[0].name}. List them as well, or give another --workdir."
        )
    fresh = itertools.count(1 + max(known.values(), default=-1))
    numbered = (
        trial._replace(number=known[key] if key in known else next(fresh))
        for key, trial in listed.items()
    )
    return sorted(numbered, key=lambda trial: trial.number)


def _check_variants(study: Study, before: Mapping[str, Any], place: Place) -> None:
    now = study.as_plain()["variants"]
    for name, values in before.get("variants", {}).items():
        if name in now and now[name] != values:
            raise ValueError(
                f"{place.workdir} holds a study whose variant {name!r} was {values} and is "
                f"{now[name]}. Give another --workdir, or the variant another name."
            )


def _identity(trial: Trial) -> str:
    return identity({"point": trial.point, "seed": trial.seed})


def _run(
    config: dict[str, Any],
    make: Make,
    groups: Sequence[Group],
    study: Study,
    place: Place,
    costs: Costs,
    *,
    resume: bool,
    progress: bool,
) -> tuple[bool, int]:
    """Runs this process's trials; returns whether all are over, and how many there are."""
    trials = [trial for group in groups for trial in group.trials]
    num_rounds = max((group.num_rounds for group in groups), default=0)
    search = search_of(study, trials, num_rounds)
    show, unread = say if progress else lambda line: None, set()
    for group in groups:
        check_group(group)
        _, run_options = split_options(group.experiment.options)
        unread |= set(run_options.baselines)
        if note := judged_late(study, num_rounds, run_options.eval_every):
            show(note)
    if unread:
        show(f"trials run no baselines ({', '.join(sorted(unread))}); a single run does")
    said = study.as_plain()
    ended = tables.log_nothing
    if config:
        of_trials = config
        if study.wandb == "table":
            of_trials = config | {"wandb": config["wandb"] | {"mode": "disabled"}}
        ended = tables.trial_logger(of_trials, study.variants, place.directory, place.name)
    with contextlib.ExitStack() as stack:
        own = _decisive(config, study, place, trials)
        journal = stack.enter_context(contextlib.closing(Journal(place.directory, trials, own)))
        bar = make_bar(groups, progress and not study.is_open)
        stack.callback(bar.close)
        saved = None
        if resume:
            saved = journal.go_on(search)
        else:
            journal.start_anew()
        _write_config(place, config, said, groups)
        runner = Runner(
            study, search, Groups(make, groups), journal, costs, ended=ended, say=show, bar=bar
        )
        over = runner.run(saved)
        if not journal.trials:
            raise ValueError(f"{said['search']} proposed no trial: its first ask() returned None.")
        return over, len(journal.trials)


def _decisive(
    config: Mapping[str, Any], study: Study, place: Place, trials: Sequence[Trial]
) -> dict[str, Any]:
    """Returns what must not change when a study is resumed."""
    names = ["search", "criterion"]
    if study.search == "halving":
        names += ["min_rounds", "reduction"]
    said, free = study.as_plain(), affecting(SPEED, FILES)
    decisive = {
        "settings": {name: said[name] for name in names},
        "config": {name: value for name, value in config.items() if name not in free},
    }
    if place.share.count > 1:
        # which trials a process runs depends on all of them
        decisive["trials"] = [_identity(trial) for trial in trials]
    return decisive


def _write_config(
    place: Place, config: dict[str, Any], settings: dict[str, Any], groups: Sequence[Group]
) -> None:
    """Writes `config.json`: what all trials share, what is compared, and how it is computed."""
    options = groups[0].experiment.options if groups else config
    rounding = [options.get(name) for name in ("compute_dtype", "matmul_precision")]
    jsonio.write_json(
        place.workdir / CONFIG,
        {
            "config": config,
            "sweep": settings,
            "metrics": plain(groups[0].experiment.task.metrics if groups else (ACCURACY, LOSS)),
            "processes": place.share.count,
            "numerics": numerics(*rounding),
            "versions": versions(),
        },
    )


def _found(
    place: Place,
    config: dict[str, Any],
    study: Study,
    metrics: Sequence[Metric],
    costs: Costs,
    over: bool,
    ran: int,
) -> StudyRun:
    """Writes what this process spent, and the tables of all once nothing is missing."""
    spent = {
        "trials": ran,
        "complete": over,
        **dataclasses.asdict(costs),
        "utilization": costs.utilization,
        "peak_memory_bytes": peak_memory_bytes(),
        "device": device(),
        "versions": versions(),
    }
    summary = _written(place.directory / tables.SUMMARY, spent)
    workdir, directories = place.workdir, place.directories
    summaries = [
        jsonio.read_object(path) if (path := part / tables.SUMMARY).exists() else {}
        for part in directories
    ]
    results = tables.joined(
        tables.load(part) for part in directories if (part / tables.TRIALS).exists()
    )
    missing = tuple(rank for rank, part in enumerate(summaries) if not part.get("complete"))
    seconds, of_rounds = (
        {int(number): spent for part in summaries for number, spent in part.get(of, {}).items()}
        for of in ("trial_seconds", "round_seconds")
    )
    best = None
    if not missing:
        tables.write_trials(workdir, results.trials, results.statuses)
        tables.write_table(workdir, results)
        best = write_best(workdir, results, study.criterion, study.axes, study.faced_axis)
        if config and study.wandb == "table":
            tables.log_table(config, workdir, results)
    found = StudyRun(
        workdir, study, metrics, config, results, best, summary, seconds, of_rounds, missing
    )
    if not missing:
        write_study_table(workdir, found.compare().outcomes)
    return found


def _written(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Writes what a process spent, unless nothing ran since that was written; returns it."""
    if path.exists():
        before = jsonio.read_object(path)
        if before["complete"] and before["rounds"] == summary["rounds"]:
            return before
    path.parent.mkdir(parents=True, exist_ok=True)
    jsonio.write_json(path, summary)
    return summary
