"""The directory of a study: a process's part of it, its journal, and how a killed study goes on.

A Slurm array, the tasks of a Slurm step, a Kubernetes indexed Job and MPI say in the environment
which of how many processes this one is. Studies need nothing else of them: the processes do not
talk to each other. How many there are is kept in the directory, since another number of them would
divide the trials anew.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fljax.core.files import make_folder
from fljax.recording import Checkpoints, jsonio, say
from fljax.recording.jsonio import plain
from fljax.recording.line_file import LineFile
from fljax.studies import results
from fljax.studies.results import Status
from fljax.studies.slots import Running, Slots
from fljax.studies.space import Trial, with_tuples
from fljax.training.resume import check_identity, extent_of, records_fault
from fljax.training.totals import RoundTotals

# A kill loses at most about so much work.
_SAVE_SECONDS = 30.0
PARTS = "parts"
_KEPT = "processes.json"

# (rank, count, where ranks start), as the launchers name them; the first that is whole counts
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
_LAUNCHERS = (
    ("FLJAX_SWEEP_RANK", "FLJAX_SWEEP_COUNT", None),
    _ARRAY,
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", None),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", None),
)


class Share(NamedTuple):
    """Process `rank` of `count`; its launcher calls rank 0 `first`.

    Example:
      >>> studies.Share(rank=3, count=8)
      Share(rank=3, count=8, first=0)
    """

    rank: int = 0
    count: int = 1
    first: int = 0


class Place(NamedTuple):
    """The directory of a study, and a process's part of it."""

    workdir: Path
    share: Share

    @property
    def name(self) -> str:
        """Of the study."""
        return self.workdir.resolve().name

    @property
    def directory(self) -> Path:
        """Of this process's part."""
        return self.directories[self.share.rank]

    @property
    def directories(self) -> list[Path]:
        """Of all parts, by rank."""
        if self.share.count == 1:
            return [self.workdir]
        return [self.workdir / PARTS / f"{rank:04d}" for rank in range(self.share.count)]


def share_of(environment: Mapping[str, str] = os.environ, kept: Share | None = None) -> Share:
    """Returns this process's share.

    Args:
      environment: In which a launcher says rank and count.
      kept: Share of a process of the same study. A Slurm array of which some tasks are submitted
        again counts only those, so its tasks take the count from here.

    Raises:
      ValueError: If the environment contradicts itself.
    """
    for rank_name, count_name, first_name in _LAUNCHERS:
        if rank_name not in environment:
            continue
        if count_name not in environment:
            if rank_name in ("JOB_COMPLETION_INDEX", "FLJAX_SWEEP_RANK"):
                raise ValueError(
                    f"{rank_name} = {environment[rank_name]}, but {count_name} is not set. Set it "
                    "to the number of processes that share the study."
                )
            continue
        _check_slurm(environment, rank_name)
        index, count = int(environment[rank_name]), int(environment[count_name])
        first = int(environment.get(first_name, 0)) if first_name else 0
        if kept is not None and rank_name == _ARRAY[0] and count <= kept.count:
            first, count = kept.first, kept.count
        share = Share(index - first, count, first)
        if not 0 <= share.rank < share.count:
            raise ValueError(
                f"{rank_name} = {index} does not fit a study of {count} processes from {first} on "
                f"({count_name} = {environment[count_name]}); the tasks of an array must be "
                "numbered without gaps."
            )
        return share
    return Share()


def _check_slurm(environment: Mapping[str, str], rank_name: str) -> None:
    """Raises ValueError where Slurm's tasks are not the processes that run."""
    tasks = int(environment.get("SLURM_NTASKS", 1))
    in_a_job_step = "SLURM_STEP_ID" in environment or "SLURM_STEPID" in environment
    if rank_name == "SLURM_PROCID" and tasks > 1 and not in_a_job_step:
        raise ValueError(
            f"SLURM_NTASKS = {tasks}, but this process was not started by srun, so it is the only "
            "one, and would run one part of the study. Put srun before the command, or say "
            "--share=0/1 to run all trials here."
        )
    if rank_name == _ARRAY[0] and tasks > 1 and in_a_job_step:
        raise ValueError(
            f"Each task of this Slurm array starts SLURM_NTASKS = {tasks} processes, which would "
            "run the same part of the study. Give each array task one (--ntasks=1)."
        )


def parse_share(text: str) -> Share:
    """Returns the share that "RANK/COUNT" names, ranks from 0.

    Example:
      >>> studies.parse_share("3/8").rank
      3

    Raises:
      ValueError: If the text has another form.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    share = Share(*map(int, match.groups())) if match else None
    if share is None or share.rank >= share.count:
        raise ValueError(f"--share={text} must have the form RANK/COUNT, such as 0/8 to 7/8.")
    return share


def kept_share(workdir: Path) -> Share | None:
    """Returns what was kept of how a study is shared; None for one that is not."""
    path = workdir / PARTS / _KEPT
    return Share(**jsonio.read_object(path)) if path.exists() else None


def keep_share(place: Place) -> None:
    """Keeps how many processes share a study.

    Raises:
      FileExistsError: If another number of them shares the study of the directory.
    """
    workdir, share = place
    kept, rows = kept_share(workdir), workdir / results.ROWS
    if kept is not None and kept.count != share.count:
        raise FileExistsError(
            f"{workdir} holds the parts of a study of {kept.count} processes, and this is process "
            f"{share.rank} of {share.count}, which would run trials again. Start it as one of "
            f"{kept.count}, such as by --share={min(share.rank, kept.count - 1)}/{kept.count}, or "
            "give another --workdir."
        )
    if share.count > 1 and rows.exists() and rows.stat().st_size:
        raise FileExistsError(
            f"{workdir} holds a study of a single process, and this is process {share.rank} of "
            f"{share.count}, which would run trials again. Go on with it by one process "
            "(--share=0/1 --resume), or give another --workdir."
        )
    if share.count > 1 and kept is None:
        (workdir / PARTS).mkdir(parents=True, exist_ok=True)
        jsonio.write_json(workdir / PARTS / _KEPT, share._replace(rank=0)._asdict())


class Saved(NamedTuple):
    """A study as a checkpoint holds it.

    Attributes:
      step: Of the checkpoint.
      slots: One entry a slot: [trial, round, totals, diverged], or None where it rests.
      waiting: Trials that were asked for and have not started.
      execution: The layout of the running group.
      store_rows: Rows of its client store.
      costs: What was spent, see `fljax.studies.costs.Costs`.
    """

    step: int
    slots: list[list | None]
    waiting: list[int]
    execution: dict[str, Any]
    store_rows: int
    costs: dict[str, Any]


class Journal:
    """Writes rows, statuses and checkpoints of a process's trials.

    Args:
      directory: Of this process.
      trials: That are listed; a search may propose others.
      identity: What must not change when the study is resumed, as JSON values.
    """

    def __init__(self, directory: Path, trials: Sequence[Trial], identity: Mapping[str, Any]):
        self.directory = directory
        self.trials = list(trials)
        self._listed = frozenset(trial.number for trial in trials)
        self.statuses: dict[int, Status] = {}
        self.rows: dict[int, list[results.Row]] = {}
        self._identity = plain(identity)
        self._step = 0
        self._saved = time.monotonic()
        self._rows_file: LineFile | None = None
        make_folder(directory)
        self._checkpoints = Checkpoints(directory / "checkpoints", keep=2)

    def close(self) -> None:
        """Waits for the last checkpoint, and brings the rows to disk."""
        try:
            self._checkpoints.close()
        finally:
            if self._rows_file is not None:
                self._rows_file.close()

    def start_anew(self) -> None:
        """Begins an empty journal.

        Raises:
          FileExistsError: If the directory holds a study already.
        """
        rows = self.directory / results.ROWS
        if self._checkpoints.rounds() or (rows.exists() and rows.stat().st_size):
            raise FileExistsError(
                f"{self.directory} holds a study already. Go on with it by --resume, or give "
                "another --workdir."
            )
        self._open_rows([])
        results.write_trials(self.directory, self.trials, self.statuses)

    def _open_rows(self, kept: Sequence[bytes]) -> None:
        if self._rows_file is not None:
            self._rows_file.close()
        self._rows_file = LineFile(self.directory / results.ROWS, kept)

    def add(self, trial: Trial) -> Trial:
        """Takes in a trial that a search has proposed; returns it as it will be read back.

        Raises:
          ValueError: If it is no trial, or another one has its number.
        """
        if not isinstance(trial, Trial):
            raise ValueError(
                f"The search's ask() returned {trial!r}. It must return a "
                "fljax.studies.Trial, such as Trial(0, {'client_lr': 0.1}), or None."
            )
        if trial.number in self._listed:
            return trial
        if trial.number in {known.number for known in self.trials}:
            raise ValueError(
                f"The search proposed trial {trial.number} a second time. Number its trials "
                "without repetition; a search that is resumed needs what it knew, from load() or "
                "from a storage of its own."
            )
        trial = Trial(int(trial.number), with_tuples(plain(trial.values)), int(trial.seed))
        self.trials.append(trial)
        return trial

    def go_on(self, search: Any) -> Saved | None:
        """Brings files and search back to the newest checkpoint; None if there is none.

        Raises:
          ValueError: If it belongs to another study, or none of the checkpoints is whole.
        """
        path = self.directory / results.ROWS
        self._checkpoints.wait()
        self.statuses, self.rows = {}, {}
        newest = self._checkpoints.newest_whole(lambda metadata: records_fault(metadata, path))
        self._step = newest or 0
        if not self._step:
            if (
                (self.directory / results.SUMMARY).exists()
                and path.exists()
                and path.stat().st_size
            ):
                raise FileNotFoundError(
                    f"{self.directory} holds a study that has ended, but none of its checkpoints, "
                    "so that it cannot be gone on with. Put them back, or start again in another "
                    "--workdir."
                )
            if path.exists():
                say(f"{self.directory} has no checkpoint yet; the study starts from the beginning.")
            self.trials = [trial for trial in self.trials if trial.number in self._listed]
            self._open_rows([])
            results.write_trials(self.directory, self.trials, {})
            return None
        saved = self._checkpoints.metadata(self._step)
        check_identity(
            _by_key(self._identity), _by_key(saved["identity"]), f"The study in {self.directory}"
        )
        if not self._listed:
            self.trials = [
                Trial(number, with_tuples(values), seed) for number, values, seed in saved["trials"]
            ]
        search.load(saved["search"])
        self.statuses = {int(n): Status(*status) for n, status in saved["statuses"].items()}
        rounds = {number: status.round for number, status in self.statuses.items()}
        lines, rows = results.rows_until(path, rounds, extent_of(saved))
        self._open_rows(lines)
        for row in rows:
            if self.statuses[row["trial"]].state == "running":
                self.rows.setdefault(row["trial"], []).append(row)
        return Saved(self._step, *(saved[name] for name in Saved._fields[1:]))

    def restore(self, saved: Saved, slots: Slots) -> None:
        """Brings freshly built slots to where the checkpoint was taken."""
        federation = slots.federation
        template = _state(slots) | {"store": federation.store.template(saved.store_rows)}
        state, _ = self._checkpoints.restore(saved.step, template)
        federation.load(state["server"], state["store"])
        slots.states = state["sampler"]
        trials = {trial.number: trial for trial in self.trials}
        slots.slots = [
            entry
            and dataclasses.replace(
                slots.running(trials[entry[0]]),
                round=entry[1],
                totals=RoundTotals(**entry[2]),
                diverged=entry[3],
            )
            for entry in saved.slots
        ]

    def write(self, slots: Slots) -> None:
        """Writes the new records of all slots."""
        rows = [results.row(trial, record) for trial, record in slots.take_records()]
        for row in rows:
            self.rows.setdefault(row["trial"], []).append(row)
        results.append_rows(self._rows_file, rows)
        for running in slots.active.values():
            self.statuses[running.trial.number] = Status("running", running.round)

    def end(self, running: Running, state: str) -> list[results.Row]:
        """Marks a trial as over; returns its rows."""
        self.statuses[running.trial.number] = Status(state, running.round)
        return self.rows.pop(running.trial.number, [])

    def save(
        self, slots: Slots, search: Any, waiting: Iterable[Trial], costs: Any, *, now: bool
    ) -> None:
        """Takes a checkpoint, if it is time for one or `now`."""
        if not now and time.monotonic() - self._saved < _SAVE_SECONDS:
            return
        self._step += 1
        entries = [
            running
            and [
                running.trial.number,
                running.round,
                dataclasses.asdict(running.totals),
                running.diverged,
            ]
            for running in slots.slots
        ]
        metadata = {
            "slots": entries,
            "waiting": [trial.number for trial in waiting],
            "trials": [[trial.number, plain(trial.values), trial.seed] for trial in self.trials],
            "execution": slots.federation.layout,
            "store_rows": slots.federation.store.num_rows,
            "search": search.state(),
            "costs": dataclasses.asdict(costs),
            "statuses": {str(number): list(status) for number, status in self.statuses.items()},
            "identity": self._identity,
            # on disk before the checkpoint that counts on them
            "records": self._rows_file.sync(),
        }
        self._checkpoints.save(self._step, _state(slots), metadata)
        results.write_trials(self.directory, self.trials, self.statuses)
        self._saved = time.monotonic()


def _by_key(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what must not change as one dict, so that messages name the key that has."""
    rest = {name: value for name, value in identity.items() if name not in ("config", "settings")}
    return {**identity["config"], **identity["settings"], **rest}


def _state(slots: Slots) -> dict[str, Any]:
    federation = slots.federation
    return {
        "server": federation.state,
        "store": federation.store.state(),
        "sampler": slots.states,
    }
