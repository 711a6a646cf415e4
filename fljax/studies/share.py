"""Which part of a study is this process's: by rank and count, from the environment.

A Slurm array, the tasks of a Slurm step, a Kubernetes indexed Job and MPI say which of how many
processes this one is. Sweeps need nothing else of them: the processes do not talk to each other.
How many there are is kept in the directory of the study, since another number of them would divide
the trials anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fljax.recording import jsonio
from fljax.studies.groups import Group
from fljax.studies.results import ROWS

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
    in_step = "SLURM_STEP_ID" in environment or "SLURM_STEPID" in environment
    if rank_name == "SLURM_PROCID" and tasks > 1 and not in_step:
        raise ValueError(
            f"SLURM_NTASKS = {tasks}, but this process was not started by srun, so it is the only "
            "one, and would run one part of the study. Put srun before the command, or say "
            "--share=0/1 to run all trials here."
        )
    if rank_name == _ARRAY[0] and tasks > 1 and in_step:
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
    return Share(**jsonio.read_json(path)) if path.exists() else None


def keep_share(place: Place) -> None:
    """Keeps how many processes share a study.

    Raises:
      FileExistsError: If another number of them shares the study of the directory.
    """
    workdir, share = place
    kept, rows = kept_share(workdir), workdir / ROWS
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


def part_of(groups: Sequence[Group], share: Share) -> list[Group]:
    """Returns a process's part: as many rounds as the others, in as few groups as that allows."""
    total = sum(group.num_rounds * len(group.trials) for group in groups)
    part, done = [], 0
    for group in groups:
        trials = []
        for trial in group.trials:
            # the middle of a trial decides: every trial has one place
            place = (done + group.num_rounds / 2) * share.count / total
            if int(place) == share.rank:
                trials.append(trial)
            done += group.num_rounds
        if trials:
            part.append(group._replace(trials=tuple(trials)))
    return part
