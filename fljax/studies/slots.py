"""Slots: places in one round program, each of which trains one trial after another.

All slots step together. A slot whose trial is over takes the next one, which starts with its own
round 0 beside trials that are further on; a slot without a trial rests, and its lanes serve the
others. There are as many as memory allows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fljax.core.trees import nbytes
from fljax.core.values import shown
from fljax.engine.devices.execution import free_memory_of, make_mesh
from fljax.engine.devices.memory import exhaustion
from fljax.engine.plan.round_plan import HostPlan
from fljax.engine.store.client_store import most_bytes
from fljax.recording import host_peak_memory_bytes
from fljax.recording.checkpoints import CHECKPOINT_COPIES
from fljax.studies.groups import Group
from fljax.studies.space import Trial
from fljax.training.binding import bound
from fljax.training.dispatch import Dispatcher
from fljax.training.evaluations import Evaluations, check_judged, make_evaluations
from fljax.training.federation import Federation, build
from fljax.training.initialization import initial_shapes
from fljax.training.options import RoundOptions, RunOptions, split_options
from fljax.training.privacy import facts_of_clients
from fljax.training.privacy_records import Ledger, ledger_of
from fljax.training.rehearsal import rehearsed
from fljax.training.round_records import LinkSpeeds, training_record
from fljax.training.sampling import make_sampler
from fljax.training.totals import RoundTotals

Record = dict[str, Any]

# A CPU's compiler works in the memory of the process.
_COMPILER_BYTES = 300_000_000
# Options of a run that a sweep has not, and what to do instead.
_REFUSED = {
    "stop_at_target": (
        "Set it to False: trials train all their rounds, and results.csv says in which round each "
        "reached the target."
    ),
    "patience": "Set it to 0; successive halving (search='halving') ends trials early.",
    "hooks": "Leave them out, and run what best.json says by itself with them.",
}


@dataclasses.dataclass
class Running:
    """A trial in a slot.

    Attributes:
      trial: The trial.
      round: Rounds that its slot has trained it.
      totals: What it has sent so far.
      diverged: The round after which all its clients' updates were not finite, or its model was
        found to have a loss that is not; None otherwise. What the slot trains after it, up to where
        trials are judged, is not recorded.
      records: Of its rounds since they were last taken.
      ledger: The account of its privacy; None where it has none.
    """

    trial: Trial
    round: int = 0
    totals: RoundTotals = dataclasses.field(default_factory=RoundTotals)
    diverged: int | None = None
    records: list[Record] = dataclasses.field(default_factory=list)
    ledger: Ledger | None = None


def check_group(group: Group) -> None:
    """Raises ValueError for what single runs can do and trials side by side cannot."""
    options, run_options = split_options(group.experiment.options)
    for name, remedy in _REFUSED.items():
        if value := getattr(run_options, name):
            raise ValueError(f"{name} = {value}, but a sweep cannot do that. {remedy}")
    seed = group.inputs[group.trials[0].number].seed
    feedback = make_sampler(group.experiment.dataset, options, seed).feedback
    if feedback != "none":
        raise ValueError(
            f"sampler = {shown(options.sampler)} has {feedback} feedback, which only single runs "
            "give. Use one with feedback='none', or run what best.json says by itself with it."
        )
    dataset, task, spec, *_ = group.experiment
    own = bound(task, initial_shapes(task)[1], dataset)
    algorithm = spec.build(own, {**spec.hparams, "num_clients": dataset.num_clients})
    judged = (run_options.eval_clients, run_options.eval_personal)
    check_judged(
        dataset,
        spec.name,
        *judged,
        has_global_model=algorithm.has_global_model,
        tunes=algorithm.tune is not None,
    )


class Slots:
    """The trials of a group that train side by side.

    Args:
      group: The group.
      trials: Which start, one a slot.
      options, run_options: Of the group's runs.
      **where: What `fljax.training.execution.layout_to_go_on_with` returns, where they go on.
    """

    def __init__(
        self,
        group: Group,
        trials: Sequence[Trial],
        options: RoundOptions,
        run_options: RunOptions,
        **where: Any,
    ):
        self.group = group
        self.federation = _build(group, trials, options, where)
        self.slots: list[Running | None] = [self.running(trial) for trial in trials]
        self.states = self.federation.cohorts.init()
        self.eval_every = run_options.eval_every
        self._dispatcher = Dispatcher(self.federation)
        self._speeds = LinkSpeeds(run_options.uplink_mbps, run_options.downlink_mbps)
        self._run_options = run_options
        self._evaluations: dict[tuple[int, int], Evaluations] = {}

    def running(self, trial: Trial) -> Running:
        """Returns a trial of the group as it starts."""
        inputs, options = self.group.inputs[trial.number], self.federation.options
        if options.privacy is None:
            return Running(trial)
        _, task, spec, *_ = self.group.experiment
        dataset = self.group.datasets[inputs.partition]
        facts = facts_of_clients(dataset, task, spec, options, inputs.seed)
        return Running(trial, ledger=ledger_of(options, inputs.hparams, facts))

    @property
    def active(self) -> dict[int, Running]:
        """{slot: what runs in it}."""
        return {slot: running for slot, running in enumerate(self.slots) if running is not None}

    @property
    def rounds(self) -> np.ndarray:
        """int32[S], completed rounds of each slot; -1 where it rests."""
        return np.array(
            [-1 if running is None else running.round for running in self.slots], np.int32
        )

    def start(self, trials: Mapping[int, Trial], group: Group) -> None:
        """Starts trials in slots of their own; what ran there is over.

        Args:
          trials: {slot: trial}.
          group: The group, with these trials.
        """
        self.group = group
        fresh = {slot: self.group.inputs[trial.number] for slot, trial in trials.items()}
        with exhaustion(self.federation.execution):
            self.federation.replace(fresh)
        first = self.federation.cohorts.init()
        self.states = tuple(
            first[slot] if slot in trials else state for slot, state in enumerate(self.states)
        )
        for slot, trial in trials.items():
            self.slots[slot] = self.running(trial)

    def train(self, num_rounds: int) -> tuple[int, int]:
        """Trains every trial for some rounds; returns the rows trained on, and those computed."""
        base = self.rounds
        rounds = [np.where(base < 0, -1, base + step) for step in range(num_rounds)]
        real = computed = 0
        with (
            contextlib.closing(self.federation.blocks(rounds, self.states)) as planned,
            exhaustion(self.federation.execution),
        ):
            for block in self._dispatcher.run(planned):
                for facts, stats in zip(block.facts, block.stats, strict=True):
                    self._record(facts, stats)
                    real += facts.rows_real
                    computed += facts.rows_computed
                self.states = block.facts[-1].sampler_state
        return real, computed

    @property
    def compile_seconds(self) -> float:
        """Seconds that dispatches took because they compiled."""
        return self._dispatcher.compile_seconds

    def _record(self, facts: HostPlan, stats) -> None:
        """Records a round of every trial that runs."""
        for slot, running in self.active.items():
            running.round += 1
            if running.diverged is not None:
                continue
            dataset = self.group.datasets[self.federation.trials[slot].partition]
            told = (running.totals, self._speeds, slot, dataset.groups, dataset.root)
            record = training_record(facts, stats, *told)
            if running.ledger is not None:
                is_last = running.round == self.group.num_rounds
                record |= running.ledger.record(running.round, is_last=is_last)
            running.records.append(record)
            alone = record["train/clients_nonfinite"] and not record["train/clients"]
            if alone and not self.federation.counts_diverged:
                running.diverged = running.round

    def evaluate(self, slots: Sequence[int]) -> None:
        """Evaluates the models of some slots and adds what was found to their last records."""
        with exhaustion(self.federation.execution):
            self._evaluate(slots)

    def _evaluate(self, slots: Sequence[int]) -> None:
        alike: dict[tuple[int, int], list[int]] = {}
        for slot in slots:
            alike.setdefault(self._evaluated_on(slot), []).append(slot)
        dispatched = []
        for (partition, seed), own in alike.items():
            evaluations = self._evaluations_of(partition, seed)
            rounds = [self.slots[slot].round for slot in own]
            outputs = evaluations.dispatch_trials(self.federation, own, rounds)
            dispatched.append(_Dispatched(evaluations, own, outputs))
        for evaluations, own, outputs in dispatched:
            for slot, of_slot in zip(own, jax.device_get(outputs), strict=True):
                found, _ = evaluations.finish(of_slot)
                running = self.slots[slot]
                if not running.records:
                    running.records.append({"round": running.round})
                running.records[-1] |= found
                if running.diverged is None and not all(map(math.isfinite, _losses(found))):
                    running.diverged = running.round

    def _evaluated_on(self, slot: int) -> tuple[int, int]:
        """Returns (partition, seed) that decide on the rows; the seed only where it samples."""
        inputs = self.federation.trials[slot]
        asked = (self._run_options.eval_clients, self._run_options.eval_personal)
        samples = any(count not in (0, -1) for count in asked)
        samples = samples or not self.federation.algorithm.has_global_model
        return inputs.partition, inputs.seed if samples else 0

    def _evaluations_of(self, partition: int, seed: int) -> Evaluations:
        if (partition, seed) not in self._evaluations:
            options = self._run_options
            self._evaluations[partition, seed] = make_evaluations(
                self.federation,
                options.eval_batch_size,
                options.eval_clients,
                options.eval_personal,
                dataset=self.group.datasets[partition],
                seed=seed,
                others=tuple(self._evaluations.values()),
            )
        return self._evaluations[partition, seed]

    def take_records(self) -> list[tuple[Trial, Record]]:
        """Returns the records since the last call, trial after trial."""
        taken = []
        for running in self.active.values():
            taken += [(running.trial, record) for record in running.records]
            running.records = []
        return taken


def _losses(found: Mapping[str, Any]) -> list[float]:
    """Returns the losses that an evaluation found: the accuracy of NaNs is a number like any."""
    return [value for name, value in found.items() if name.endswith("/loss")]


class _Dispatched(NamedTuple):
    """An evaluation under way."""

    evaluations: Evaluations
    slots: list[int]
    outputs: list[Any]


def _build(
    group: Group, trials: Sequence[Trial], options: RoundOptions, where: Mapping[str, Any]
) -> Federation:
    dataset, task, algorithm, *_ = group.experiment
    return build(
        dataset,
        task,
        algorithm,
        options,
        [group.inputs[trial.number] for trial in trials],
        [dataset.train.partition for dataset in group.datasets],
        waiting=list(group.inputs.values()),
        **where,
    )


def affordable(
    group: Group,
    options: RoundOptions,
    in_use: int,
    memory_gb: float | None = None,
    parallel_trials: int = 0,
) -> int:
    """Returns how many trials of a group may train side by side.

    Args:
      group: The group.
      options: Of its runs.
      in_use: Bytes that the process took before any trial was built.
      memory_gb: Bound in 10^9 bytes: of the process on a CPU, of each device elsewhere. None is
        half of what there is.
      parallel_trials: The most that are wanted; 0 for all.

    Raises:
      ValueError: If the bound leaves no room for a single trial, with the figures.
    """
    mesh = make_mesh(options.devices)
    bound = free_memory_of(mesh) // 2 if memory_gb is None else int(memory_gb * 1e9)
    examples = group.experiment.dataset.train.examples
    on_cpu = mesh.local_devices[0].platform == "cpu"
    # the devices of a CPU share its memory
    copies = len(mesh.local_devices) if on_cpu else 1
    used = copies * (examples.nbytes if examples.arrays is not None else 0)
    if on_cpu:
        used += in_use + _COMPILER_BYTES
    on_a_device, of_clients = _bytes_of_a_trial(group, options, mesh)
    each = copies * on_a_device + of_clients
    wanted = min(parallel_trials or len(group.trials), len(group.trials))
    count = min(wanted, max(bound - used, 0) // max(each, 1))
    if count < 1:
        raise ValueError(
            f"memory_gb = {bound / 1e9:.2f} leaves no room for a trial: {used / 1e9:.2f} GB are "
            f"taken by the data, the process and its compiler, and a trial needs "
            f"{each / 1e9:.2f} GB. Raise memory_gb."
        )
    return count


def host_memory_in_use() -> int:
    """Returns the bytes of memory that the process takes; the most so far if that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return host_peak_memory_bytes() or 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes_of_a_trial(group: Group, options: RoundOptions, mesh: Mesh) -> tuple[int, int]:
    """Returns what one trial takes on each device, and what its clients keep beside that.

    On a device: state old and new, message, sums, evaluation, and what new clients start from, old
    and new. Of the clients: their rows on all devices, which all lie in a CPU's memory together
    with the copies that a checkpoint takes; elsewhere a device holds its share.
    """
    dataset, task, spec, *_ = group.experiment
    shapes = rehearsed(dataset, task, spec, options.pipeline)
    params, server, row = shapes.variables.params, shapes.state, shapes.row
    takes_part = options.num_rounds * options.clients_per_round
    clients = min(dataset.num_clients, takes_part)
    jobs = -(-3 * options.clients_per_round // 2) + mesh.size
    on_cpu = mesh.local_devices[0].platform == "cpu"
    copies = CHECKPOINT_COPIES if on_cpu else 0
    rows = most_bytes(nbytes(row), clients, jobs, mesh.size, copies)
    on_a_device = 2 * nbytes(server) + 4 * nbytes(params) + 2 * nbytes(row)
    return on_a_device, rows if on_cpu else -(-rows // mesh.size)
