"""The planner: turns a cohort into a round plan, on the host, ahead of the devices."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fljax.data.dataset import Examples, Split
from fljax.engine.devices.execution import ExecutionPlan
from fljax.engine.plan import batching
from fljax.engine.plan.batching import LocalWork
from fljax.engine.plan.capacities import Capacities, capacities_of
from fljax.engine.plan.exchanges import make_exchanges, make_shared_exchanges
from fljax.engine.plan.lanes import LaneAssignment, assign_lanes, capacity
from fljax.engine.plan.round_plan import (
    HostPlan,
    JobArrays,
    JobTable,
    PassPlan,
    RoundPlan,
    occurrence,
)


class Planner(NamedTuple):
    """Plans rounds over one split; see `make_planner`.

    Attributes:
      split: The training split.
      works: The local work of each pass; numbers of each client's own are by the partition's.
      schedules: Of each pass, as in `ClientPass`; jobs that bring their own number of steps take
        them in the local passes.
      execution: The execution plan.
      capacities: Array sizes that hold for the whole run.
      seeds: int64[S], one for each trial.
      begins: int64[S], where each trial's clients begin in the split's partition: zeros where all
        share one partition.
      staged_devices: Devices whose rows are staged where data is streamed: those of this process.
      num_versions: Versions of a trial's model that the program keeps, the newest one included.
      grown: {array: largest size so far}: an array that had to grow keeps its size, so that shapes,
        and with them compiled programs, settle.
    """

    split: Split
    works: tuple[LocalWork, ...]
    schedules: tuple[str | int, ...]
    execution: ExecutionPlan
    capacities: Capacities
    seeds: np.ndarray
    begins: np.ndarray
    staged_devices: tuple[int, ...]
    num_versions: int
    grown: dict[str, int]

    def plan(
        self,
        round: int | np.ndarray,
        jobs: JobTable,
        sampler_state=None,
        newest: np.ndarray | None = None,
    ) -> tuple[RoundPlan, HostPlan]:
        """Returns the plan of a round as NumPy arrays, and the facts the host keeps of it.

        Args:
          round: Round number, part of every random key; or int[S], one a trial.
          jobs: The jobs in cohort order.
          sampler_state: Kept in the facts, for checkpoints.
          newest: int[S] where the program puts the newest versions, beside jobs with a `place`.

        Raises:
          ValueError: If there are more jobs than the capacities allow, or one starts from a version
            that there is not.
        """
        if len(jobs.client) > self.capacities.cohort:
            raise ValueError(
                f"Round {round} has {len(jobs.client)} jobs, but the program was made for at most "
                f"{self.capacities.cohort}."
            )
        rounds = np.broadcast_to(np.asarray(round, np.int32), self.seeds.shape)
        if jobs.place is None:
            self._check_versions(rounds, jobs)
            newest = rounds % self.num_versions
            jobs = jobs._replace(place=(rounds[jobs.trial] - jobs.version) % self.num_versions)
        elif not np.isin([*jobs.place, *newest], range(self.num_versions)).all():
            raise ValueError(
                f"Round {round} has versions in places {jobs.place.tolist()}, and the newest in "
                f"{newest.tolist()}; the program has places 0 to {self.num_versions - 1}."
            )
        owner = self._owner(jobs)
        sizes = self.split.partition.sizes[owner]
        steps = [batching.steps_per_job(sizes, work.of(owner)) for work in self.works]
        if jobs.steps is not None:
            steps = [
                np.where(step > 0, jobs.steps, 0) if schedule == "local" else step
                for step, schedule in zip(steps, self.schedules, strict=True)
            ]
        # a job keeps its place in all passes, so it runs only if it has work in each of them
        kept = np.flatnonzero(functools.reduce(np.minimum, steps))
        steps = [step[kept] for step in steps]
        table = JobTable(*(None if column is None else column[kept] for column in jobs))
        sizes = sizes[kept]
        execution, capacities = self.execution, self.capacities
        first = assign_lanes(
            steps[0],
            execution.devices,
            execution.lanes,
            capacities.jobs,
            execution.exchange_size,
        )
        assignments = [first, *(_assigned_later(step, first, execution) for step in steps[1:])]
        place = first.device * capacities.jobs + first.slot
        passes = []
        for number, (assignment, step) in enumerate(zip(assignments, steps, strict=True)):
            equal = capacities.equal_steps[number]
            # jobs that bring their own number of steps may differ in it nevertheless
            equal *= bool((step == equal).all())
            length = capacities.steps[number]
            if not equal:
                length = self._size(f"steps {number}", assignment.makespan, length)
            rows, counts = self._batches(rounds, number, table, sizes, step, assignment, length)
            exchanges = self._exchanges(step, assignment, equal and length // equal)
            columns = table._replace(steps=step)._asdict()
            columns = JobArrays(position=kept, rows=sizes, start=assignment.start, **columns)
            filled = {"rows": rows, "counts": counts, "jobs": self._at(place, columns)}
            passes.append(exchanges._replace(**filled))
        rows_real = sum(int(plan.counts.sum()) for plan in passes)
        staged = None
        if execution.placement == "stream":
            passes, staged = self._stage(passes)
        last = _last(table)
        keepers = np.full((execution.devices, capacities.jobs), -1, np.int32)
        keepers.reshape(-1)[place[last]] = table.client[last]
        lane_rows = self.works[0].width * execution.lanes * execution.devices
        facts = HostPlan(
            round=round,
            clients=passes[0].jobs.client,
            trials=passes[0].jobs.trial,
            keepers=keepers,
            num_jobs=len(kept),
            without_rows=self._by_trial(jobs) - self._by_trial(table),
            steps=self._by_trial(table, sum(steps)),
            rows_real=rows_real,
            rows_computed=lane_rows * sum(each.makespan for each in assignments),
            sampler_state=sampler_state,
            places=place,
            repeated=place[_repeated(table)],
        )
        index = np.full(capacities.cohort, execution.devices * capacities.jobs, np.int32)
        index[kept] = place
        newest = np.asarray(newest, np.int32)
        return RoundPlan(rounds, tuple(passes), index, staged, newest), facts

    def _check_versions(self, rounds: np.ndarray, jobs: JobTable) -> None:
        """Refuses jobs that start from a version that there is not."""
        oldest = np.maximum(np.minimum(self.num_versions - 1, rounds), 0)[jobs.trial]
        for job in np.flatnonzero((jobs.version < 0) | (jobs.version > oldest))[:1]:
            raise ValueError(
                f"Client {jobs.client[job]} is to start from version {jobs.version[job]} in round "
                f"{rounds[jobs.trial[job]]}, counted back from the newest, which is 0; there are "
                f"versions 0 to {oldest[job]} (the program keeps {self.num_versions})."
            )

    def _owner(self, table: JobTable) -> np.ndarray:
        """Returns the entry of the split's partition that owns each job's rows."""
        return table.client + self.begins[table.trial]

    def _by_trial(self, table: JobTable, values: np.ndarray | None = None) -> np.ndarray:
        """Returns int64[S], how many jobs each trial has, or the sum of their values."""
        return np.bincount(table.trial, values, len(self.seeds)).astype(np.int64)

    def _batches(
        self,
        rounds,
        number,
        table: JobTable,
        sizes,
        steps,
        assignment: LaneAssignment,
        length: int,
    ):
        """Returns the (rows, counts) of one pass, of so many steps."""
        work = self.works[number].of(self._owner(table))
        devices, lanes = self.execution.devices, self.execution.lanes
        width = self.works[number].width
        rows = np.zeros((devices, length, lanes, width), np.int32)
        counts = np.zeros((devices, length, lanes), np.int32)
        if len(steps):
            batches = batching.make_batches(
                sizes,
                steps,
                work,
                seeds=self.seeds[table.trial],
                rounds=rounds[table.trial],
                clients=table.client,
                occurrence=table.occurrence,
                width=width,
            )
            begin = (assignment.device * length + assignment.start) * lanes + assignment.lane
            where = begin[batches.job] + batches.step * lanes
            owner = self._owner(table)[batches.job][:, None]
            partition, when = self.split.partition, ()
            if partition.motion is not None:
                when = (rounds[table.trial][batches.job][:, None],)
            rows.reshape(-1, width)[where] = partition.row_at(owner, batches.positions, *when)
            counts.reshape(-1)[where] = batches.counts
        return rows, counts

    def _exchanges(
        self, steps: np.ndarray, assignment: LaneAssignment, equal_waves: int
    ) -> PassPlan:
        """Returns the exchanges of one pass, of so many waves if all take equally many steps."""
        execution, jobs = self.execution, self.capacities.jobs
        if execution.exchange_size == 1:
            return make_exchanges(steps, assignment, execution, jobs)
        waves = equal_waves or -(-jobs // execution.exchange_size)
        return make_shared_exchanges(
            steps, assignment, execution, jobs, waves, timed=not equal_waves
        )

    def _size(self, name: str, needed: int, floor: int) -> int:
        size = max(floor, self.grown.get(name, 1))
        if needed > size:
            size = capacity(max(needed, 2 * size))
        self.grown[name] = size
        return size

    def _at(self, place: np.ndarray, columns: JobArrays) -> JobArrays:
        """Returns columns [D, J], of jobs at these places in them."""
        devices, jobs = self.execution.devices, self.capacities.jobs
        scale, numbers = columns.scale, columns[:-1]
        out = np.zeros((len(numbers), devices * jobs), np.int32)
        out[JobArrays._fields.index("client")] = -1
        out[:, place] = np.array(numbers, np.int32)
        arrays = JobArrays(*out.reshape(-1, devices, jobs))
        if scale is not None:
            of_all = np.zeros(devices * jobs, np.float32)
            of_all[place] = scale
            arrays = arrays._replace(scale=of_all.reshape(devices, jobs))
        return arrays._replace(accepted=arrays.accepted.astype(bool))

    def _stage(self, passes: Sequence[PassPlan]):
        """Gathers this process's rows from host memory and renumbers the plan to them.

        Returns:
          (passes of all devices, {name: [staged devices, R, ...]}).
        """
        devices = self.execution.devices
        per_device, renumbered = [], [np.zeros_like(plan.rows) for plan in passes]
        for device in range(devices):
            used = [plan.counts[device] > 0 for plan in passes]
            parts = [plan.rows[device][mask] for plan, mask in zip(passes, used, strict=True)]
            unique, inverse = np.unique(np.concatenate(parts), return_inverse=True)
            inverse = inverse.reshape(-1)
            ends = np.cumsum([part.size for part in parts])
            for out, mask, part in zip(renumbered, used, np.split(inverse, ends[:-1]), strict=True):
                out[device][mask] = part.reshape(-1, out.shape[-1])
            per_device.append(unique)
        needed = max(len(unique) for unique in per_device)
        size = self._size("staged rows", needed, self.capacities.staged_rows)
        own = [per_device[device] for device in self.staged_devices]
        staged = _gathered(self.split.examples, own, size)
        passes = [plan._replace(rows=out) for plan, out in zip(passes, renumbered, strict=True)]
        return passes, staged


def make_planner(
    split: Split,
    work: LocalWork,
    schedules: Sequence[str | int],
    execution: ExecutionPlan,
    *,
    max_cohort: int,
    seeds: Sequence[int],
    begins: Sequence[int] | None = None,
    max_steps: int | None = None,
    fewer_steps: bool = False,
    staged_devices: Sequence[int] | None = None,
    num_versions: int = 1,
) -> Planner:
    """Builds a planner and fixes the capacities of its plans.

    Args:
      split: The training split, with its partition.
      work: The configured local work.
      schedules: Schedule of each pass, as in `ClientPass`.
      execution: The execution plan.
      max_cohort: Largest number of jobs in a round.
      seeds: One seed for each trial.
      begins: Where each trial's clients begin in the partition; None where all share it.
      max_steps: Largest number of local steps of a job, where jobs bring their own.
      fewer_steps: Whether jobs bring their own number, none above what is configured.
      staged_devices: Devices whose rows this process stages; all of them if None.
      num_versions: As in `Planner`.
    """
    works = batching.works_of(work, schedules)
    if split.examples.num_examples > np.iinfo(np.int32).max:
        raise ValueError(
            f"The data set has {split.examples.num_examples:,} rows; row numbers are 32-bit, so at "
            f"most {np.iinfo(np.int32).max:,} can be addressed. Use fewer or smaller clients."
        )
    return Planner(
        split=split,
        works=works,
        schedules=tuple(schedules),
        execution=execution,
        capacities=capacities_of(
            split, works, schedules, execution, max_cohort, max_steps, fewer_steps
        ),
        seeds=np.asarray(seeds, np.int64),
        begins=np.zeros(len(seeds), np.int64) if begins is None else np.asarray(begins, np.int64),
        staged_devices=tuple(
            range(execution.devices) if staged_devices is None else staged_devices
        ),
        num_versions=num_versions,
        grown={},
    )


def _gathered(examples: Examples, rows: Sequence[np.ndarray], size: int) -> dict[str, Any]:
    """Returns {name: [D, size, ...]}, each device's rows and zeros behind them.

    Only real rows are read, or generated; zeros that nobody touches take no memory either.
    """
    out = jax.tree.map(
        lambda spec: np.zeros((len(rows), size, *spec.shape), spec.dtype), dict(examples.spec)
    )
    for device, own in enumerate(rows):
        for all_rows, values in zip(*map(jax.tree.leaves, (out, examples.take(own))), strict=True):
            all_rows[device, : len(own)] = values
    return out


def _assigned_later(
    steps: np.ndarray, first: LaneAssignment, execution: ExecutionPlan
) -> LaneAssignment:
    """Assigns jobs of a later pass; each stays on its device, where its client state is."""
    lane, start = np.zeros(len(steps), np.int64), np.zeros(len(steps), np.int64)
    makespan = 0
    for device in range(execution.devices):
        mine = np.flatnonzero(first.device == device)
        assignment = assign_lanes(
            steps[mine], 1, execution.lanes, len(mine), execution.exchange_size
        )
        lane[mine], start[mine] = assignment.lane, assignment.start
        makespan = max(makespan, assignment.makespan)
    return LaneAssignment(first.device, lane, start, first.slot, makespan)


def _last(table: JobTable) -> np.ndarray:
    """Returns bool[J], true for the last accepted job of each client and trial."""
    if not table.occurrence.any():
        return table.accepted
    backwards = np.flatnonzero(table.accepted)[::-1]
    last = np.zeros(len(table.client), bool)
    last[backwards] = occurrence(table.trial[backwards], table.client[backwards]) == 0
    return last


def _repeated(table: JobTable) -> np.ndarray:
    """Returns bool[J], true for the accepted jobs of clients that have several of one trial."""
    if not table.occurrence.any():
        return np.zeros(len(table.client), bool)
    pairs = table.trial.astype(np.int64) << 32 | table.client
    _, which, counts = np.unique(pairs[table.accepted], return_inverse=True, return_counts=True)
    repeated = table.accepted.copy()
    repeated[table.accepted] = counts[which] > 1
    return repeated
