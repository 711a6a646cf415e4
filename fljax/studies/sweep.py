"""`sweep`: a whole study, from its settings to its tables."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.config import default_config, resolve, to_plain, with_keys
from fljax.core import signals
from fljax.core.settings import OPTIONS, affecting
from fljax.core.values import FILES, SPEED, checked, checked_path, wrong
from fljax.engine.devices.compilation import use_compilation_cache
from fljax.engine.devices.distributed import num_processes
from fljax.engine.devices.execution import use_all_cores
from fljax.recording import device, jsonio, peak_memory_bytes, say, versions
from fljax.recording.lock import locked
from fljax.recording.runs import CONFIG
from fljax.studies import results as tables
from fljax.studies.catalogue import Catalogue
from fljax.studies.groups import Group, Make, from_config, from_function, grouped, with_values
from fljax.studies.journal import Journal
from fljax.studies.results import Results
from fljax.studies.run import Costs, Runner, Surroundings, make_bar
from fljax.studies.selection import write_best
from fljax.studies.settings import Settings, judged_late, search_of, settings_of, trials_of
from fljax.studies.share import Place, Share, keep_share, kept_share, part_of, share_of
from fljax.studies.trials import Trial, identity
from fljax.studies.wandb_runs import log_nothing, log_table, trial_logger
from fljax.training.options import check_workdir, split_options
from fljax.training.simulation import numerics


class Sweep(NamedTuple):
    """A sweep that has run, or one process's part of it.

    Attributes:
      directory: Where everything lies.
      settings: What was swept.
      results: Trials, their rows and how they ended, of all processes so far.
      best: What `best.json` says; None while trials are missing.
      summary: What `sweep.json` says of this process: trials, groups, seconds.
      missing: Ranks of the processes whose trials are not all over.
    """

    directory: Path
    settings: Settings
    results: Results
    best: dict[str, Any] | None
    summary: dict[str, Any]
    missing: tuple[int, ...]

    def __repr__(self) -> str:
        state = "" if self.complete else ", not complete"
        return f"Sweep({self.directory}: {len(self.results.trials)} trials{state})"

    @property
    def complete(self) -> bool:
        """Whether all trials of all processes are over."""
        return not self.missing

    def plot(self) -> list[Path]:
        """Draws the sweep into `plots/`; returns the files."""
        from fljax.studies.plots import plot_sweep

        return plot_sweep(self.results, self.directory / "plots", self.settings.criterion)


def sweep(
    config: Any,
    workdir: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    share: Share | None = None,
    **settings: Any,
) -> Sweep:
    """Runs a sweep: trials that share shapes train side by side under one compilation.

    A trial's numbers are those of the trial run alone. Files in the workdir: `results.jsonl` with a
    row a trial and round, `trials.json`, and at the end `results.csv` (`.parquet`), `best.json` and
    `sweep.json`. Of several processes each has a directory of its own below `parts/`, and the last
    one to end writes the tables of all.

    Args:
      config: What all trials share, from `fljax.config`; or a function from a
        `fljax.studies.Trial` to a `fljax.config.experiment.Experiment`, for models and data that no
        configuration names.
      workdir: Directory of the sweep.
      resume: Go on with the sweep of the workdir; no finished trial runs again.
      progress: Show progress on standard error.
      share: This process's share; None asks the environment, see `fljax.studies.share`.
      **settings: The fields of `fljax.studies.Settings`; `axes` is needed, or a `search` object
        that proposes trials as it goes.

    Raises:
      ValueError: For settings, values or memory that no trial can run with.
      FileExistsError: If the workdir holds a sweep already, and `resume` is not set; or one of
        another number of processes.
      BlockingIOError: If another process runs the same share.
      SystemExit: After SIGTERM or SIGHUP, which end the sweep as Ctrl-C does, saved, and then the
        program, unless it handles them.
    """
    check_workdir(workdir)
    chosen = settings_of(settings)
    trials = trials_of(chosen)
    workdir = checked_path("workdir", workdir)
    for name, switch in (("resume", resume), ("progress", progress)):
        checked(name, switch, OPTIONS[name])
    if not isinstance(share, Share | None):
        raise wrong("share", share, "a fljax.studies.Share, or None")
    if not (callable(config) or isinstance(config, Mapping) or hasattr(config, "to_dict")):
        raise wrong("config", config, "a configuration, or a function (trial) -> Experiment")
    if isinstance(config, Mapping):
        config = with_keys(default_config(), config)
    place = Place(workdir, share or share_of(kept=kept_share(workdir)))
    if num_processes() > 1:
        raise ValueError(
            "The processes of a sweep share its trials and compute alone: start them without "
            "initialize_distributed, see docs/studies.md."
        )
    use_all_cores()
    use_compilation_cache()
    if chosen.is_open and place.share.count > 1:
        raise ValueError(
            f"This is process {place.share.rank} of {place.share.count}, but a search object "
            "proposes trials to one process: start it with --share=0/1. Several processes can have "
            "a workdir and a search each; what they share lies in the search."
        )
    make = from_function(config) if callable(config) else from_config(config)
    shared = _shared(config, trials)
    groups = part_of(grouped(trials, make), place.share)
    keep_share(place)
    if progress and place.share.count > 1:
        part = sum(len(group.trials) for group in groups)
        rank, count, _ = place.share
        say(f"process {rank} of {count}: {part} of {len(trials)} trials")
    costs = Costs()
    over, ran = True, 0
    with locked(place.directory):
        if groups or chosen.is_open:
            over, ran = _run(
                shared, make, groups, chosen, place, costs, resume=resume, progress=progress
            )
        found = _found(place, shared, chosen, costs, over, ran)
    where = f"go on in {workdir} by resume=True" if found.missing else f"all in {workdir}"
    signals.conclude(f"{ran} trials, {where}.")
    return found


def _found(
    place: Place, config: dict[str, Any], settings: Settings, costs: Costs, over: bool, ran: int
) -> Sweep:
    """Writes what this process spent, and reads what all of them have found."""
    summary = {
        "trials": ran,
        "complete": over,
        **dataclasses.asdict(costs),
        "utilization": costs.utilization,
        "peak_memory_bytes": peak_memory_bytes(),
        "device": device(),
        "versions": versions(),
    }
    return _gathered(place, config, settings, _written(place.directory / tables.SUMMARY, summary))


def _shared(config: Any, trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns what all trials share as JSON can hold it; nothing where a function makes them.

    The values of the first trial are in place: what it shares need not be valid without them.
    """
    if callable(config):
        return {}
    return to_plain(resolve(with_values(config, trials[0])) if trials else config)


def _written(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Writes what a process spent, unless nothing ran since that was written; returns it."""
    if path.exists():
        before = jsonio.read_json(path)
        if before["complete"] and before["rounds"] == summary["rounds"]:
            return before
    path.parent.mkdir(parents=True, exist_ok=True)
    jsonio.write_json(path, summary)
    return summary


def _run(
    config: dict[str, Any],
    make: Make,
    groups: Sequence[Group],
    settings: Settings,
    place: Place,
    costs: Costs,
    *,
    resume: bool,
    progress: bool,
) -> tuple[bool, int]:
    """Runs this process's trials; returns whether all are over, and how many there are."""
    trials = [trial for group in groups for trial in group.trials]
    num_rounds = max((group.num_rounds for group in groups), default=0)
    search = search_of(settings, trials, num_rounds)
    show = say if progress else lambda line: None
    for group in groups:
        _, run_options = split_options(group.experiment.options)
        if note := judged_late(settings, num_rounds, run_options.eval_every):
            show(note)
    said, free = settings.as_plain(), affecting(SPEED, FILES)
    decisive = ["search", "criterion"]
    if settings.search == "halving":
        decisive += ["min_rounds", "reduction"]
    own = {
        "trials": identity([[trial.values, trial.seed] for trial in trials]),
        "settings": {name: said[name] for name in decisive},
        "config": {name: value for name, value in config.items() if name not in free},
    }
    ended = log_nothing
    if config and settings.wandb == "trials":
        ended = trial_logger(config, place.directory, place.name)
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(contextlib.closing(Journal(place.directory, trials, own)))
        bar = make_bar(groups, progress and not settings.is_open)
        stack.callback(bar.close)
        surroundings = Surroundings(settings, search, journal, costs, ended, show, bar)
        saved = journal.go_on(search) if resume else journal.start_anew()
        _write_config(place, config, said, groups)
        over = Runner(Catalogue(make, groups), surroundings).run(saved)
        if not journal.trials:
            raise ValueError(f"{said['search']} proposed no trial: its first ask() returned None.")
        return over, len(journal.trials)


def _write_config(
    place: Place, config: dict[str, Any], settings: dict[str, Any], groups: Sequence[Group]
) -> None:
    """Writes `config.json`: what all trials share, what is swept, and how it is computed."""
    options = groups[0].experiment.options if groups else config
    rounding = [options.get(name) for name in ("compute_dtype", "matmul_precision")]
    jsonio.write_json(
        place.workdir / CONFIG,
        {
            "config": config,
            "sweep": settings,
            "processes": place.share.count,
            "numerics": numerics(*rounding),
            "versions": versions(),
        },
    )


def _gathered(
    place: Place, config: dict[str, Any], settings: Settings, summary: dict[str, Any]
) -> Sweep:
    """Reads what all processes have found, and writes the tables once nothing is missing."""
    workdir, directories = place.workdir, place.directories
    parts = [tables.load(one) for one in directories if (one / tables.TRIALS).exists()]
    missing = tuple(rank for rank, one in enumerate(directories) if not _is_over(one))
    results = Results(
        sorted((trial for one in parts for trial in one.trials), key=lambda trial: trial.number),
        [row for one in parts for row in one.rows],
        {number: status for one in parts for number, status in one.statuses.items()},
    )
    best = None
    if not missing:
        tables.write_trials(workdir, results.trials, results.statuses)
        tables.write_table(workdir, results)
        best = write_best(workdir, results, settings.criterion)
        if config and settings.wandb == "table":
            log_table(config, workdir, results)
    return Sweep(workdir, settings, results, best, summary, missing)


def _is_over(directory: Path) -> bool:
    """Whether a process has ended all its trials."""
    path = directory / tables.SUMMARY
    return path.exists() and jsonio.read_json(path)["complete"]
