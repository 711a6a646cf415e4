"""Which part of a sweep is this process's: by rank and count, from the environment.

A Slurm array, the tasks of a Slurm step, a Kubernetes indexed Job and MPI say which of how many
processes this one is. Sweeps need nothing else of them: the processes do not talk to each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fljax.sweeps.groups import Group

# (rank, count, where ranks start), as the launchers name them; the first that is whole counts
_LAUNCHERS = (
    ("FLJAX_SWEEP_RANK", "FLJAX_SWEEP_COUNT", None),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", None),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", None),
)


class Share(NamedTuple):
    """Process `rank` of `count`."""

    rank: int = 0
    count: int = 1


def share_of(environment: Mapping[str, str] = os.environ) -> Share:
    """Returns this process's share.

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
                    "to the number of processes that share the sweep."
                )
            continue
        first = int(environment.get(first_name, 0)) if first_name else 0
        share = Share(int(environment[rank_name]) - first, int(environment[count_name]))
        if not 0 <= share.rank < share.count:
            raise ValueError(
                f"{rank_name} = {environment[rank_name]} does not fit {count_name} = "
                f"{environment[count_name]}; the tasks of an array must be numbered without gaps."
            )
        return share
    return Share()


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
