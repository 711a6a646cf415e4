"""A federation: everything that a run needs, built and placed, ready for its first round.

`build` is where the parts meet: dataset, task, algorithm, sampler, planner, client store and round
program. `simulate` drives it; benchmarks and tests can drive it round by round:

    federation = build(dataset, task, algorithm, options)
    for plan, facts in federation.plans(0, 10):
        stats = federation.step(plan, facts)
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fljax.algorithms.optimizers import check_starts_anew
from fljax.core import transforms as links
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.gradients import bind
from fljax.core.memory import in_place
from fljax.core.reads import Recorded
from fljax.core.task import Task
from fljax.core.transforms import as_configured
from fljax.core.trees import batched, beside, nbytes
from fljax.data.dataset import FederatedDataset, Partition, Split, joined
from fljax.data.examples import batch_spec
from fljax.engine.devices.compilation import cache_dir, give_back_after_compiling
from fljax.engine.devices.execution import ExecutionPlan, make_mesh
from fljax.engine.devices.placement import copied, own_devices, put_own, put_same, put_sharded
from fljax.engine.plan import blocks
from fljax.engine.plan.batching import steps_per_job, takes_part, works_of
from fljax.engine.plan.cohorts import Cohorts
from fljax.engine.plan.packed_plan import PackedPlan, pack
from fljax.engine.plan.planner import Planner, make_planner
from fljax.engine.plan.prefetch import in_thread, prefetch
from fljax.engine.plan.round_plan import HostPlan, RoundPlan
from fljax.engine.program.inputs import Inputs, RoundState
from fljax.engine.program.round import make_round_program, make_rounds_program
from fljax.engine.store.client_store import ClientStore
from fljax.training.autotuning import Allowance, Layout, calibrate
from fljax.training.client_state import check_rounds_per_dispatch, default_rows, make_store
from fljax.training.execution import is_calibrated, plan_execution
from fljax.training.hyperparameters import check_lengths, hyperparameters, own_numbers, scheduled
from fljax.training.layout_key import layout_facts
from fljax.training.local_work import check_batches, check_plan_size, local_work, schedules_of
from fljax.training.metric_checks import check_metrics
from fljax.training.options import RoundOptions
from fljax.training.preflight import (
    check_classes,
    check_labels,
    check_model,
    check_own_numbers,
    check_read,
    check_schedules,
)
from fljax.training.sampling import make_cohorts
from fljax.training.trials import (
    InitialTrials,
    TrialInputs,
    check_frozen,
    initial_trials,
)

PyTree = Any


def _never(round: int) -> bool:
    """Ends no block."""
    return False


class Federation:
    """A run in progress: constants, the current state, and the step to the next round."""

    def __init__(
        self,
        *,
        dataset: FederatedDataset,
        task: Task,
        spec: AlgorithmSpec,
        options: RoundOptions,
        execution: ExecutionPlan,
        mesh: jax.sharding.Mesh,
        algorithm: Algorithm,
        program: jax.stages.Wrapped,
        rounds_program: jax.stages.Wrapped,
        trials: Sequence[TrialInputs],
        participants: Sequence[int],
        planner: Planner,
        cohorts: Cohorts,
        store: ClientStore,
        inputs: Inputs,
        state: RoundState,
        start: Callable[[InitialTrials], RoundState],
    ):
        self.dataset = dataset
        self.task = task
        self.spec = spec
        self.options = options
        self.execution = execution
        self.mesh = mesh
        self.algorithm = algorithm
        self.program = program
        self.rounds_program = rounds_program
        self.trials = list(trials)
        self.participants = participants
        self.planner = planner
        self.cohorts = cohorts
        self.store = store
        self.inputs = inputs
        self.state = state
        self._start = start
        self.calibration_seconds = 0.0
        self.rounds_per_dispatch = options.rounds_per_dispatch or 1
        self._stats: PyTree = ()

    def __repr__(self) -> str:
        return f"Federation({self.spec.name!r} on {self.dataset!r})"

    @property
    def layout(self) -> dict[str, Any]:
        """Where and how rounds run, as JSON values: what a resumed run needs to run alike."""
        return self.execution._asdict() | {"rounds_per_dispatch": self.rounds_per_dispatch}

    @property
    def variables(self) -> Variables:
        """The global model."""
        return self.variables_of(0)

    def variables_of(self, trial: int) -> Variables:
        """Returns the global model of one trial."""
        return self.algorithm.variables(_of_trial(self.state.server, trial))

    def load(self, state: RoundState, store: PyTree) -> None:
        """Continues from a checkpoint's server state and client store."""
        # a copy of its own: the next round donates it
        self.state = copied(put_same(state, self.mesh))
        self.store.load(store)

    def replace(self, trials: Mapping[int, TrialInputs]) -> None:
        """Puts new trials in the places of old ones; nothing compiles anew.

        Args:
          trials: {place: what starts there with its round 0}.

        Raises:
          ValueError: If a trial does not fit into this program.
        """
        old = self.trials
        self.trials = [trials.get(place, one) for place, one in enumerate(old)]
        seeds = [one.seed for one in self.trials]
        clients = self.dataset.num_clients
        initial = self.options.initial_params
        first = initial_trials(self.task, self.trials, self.participants, initial)
        check_frozen([(old[0].seed, self.inputs.frozen), (seeds[0], first.frozen)])
        fresh = np.isin(np.arange(len(seeds)), list(trials))
        self.state = _chosen(fresh, self._start(first), self.state)
        hparams, keys = put_same((first.hparams, first.keys), self.mesh)
        self.inputs = self.inputs._replace(hparams=hparams, keys=keys)
        self.cohorts = make_cohorts(self.dataset, self.options, seeds)
        begins = np.array([one.partition for one in self.trials]) * clients
        self.planner = self.planner._replace(seeds=np.array(seeds), begins=begins)
        default = default_rows(self.algorithm, self.options.pipeline, first.variables)
        self.store.forget(np.flatnonzero(fresh), default)

    def plans(
        self, start: int, stop: int, sampler_state: Any = None
    ) -> Iterator[tuple[PackedPlan, HostPlan]]:
        """Yields the plans of rounds start .. stop - 1, made one round ahead in a thread."""
        blocks = self._blocks(range(start, stop), sampler_state, 1, _never)
        return prefetch((plan, facts) for plan, (facts,) in blocks)

    def blocks(
        self,
        rounds: Iterable[int | np.ndarray],
        sampler_state: Any = None,
        *,
        ends: Callable[[int], bool] = _never,
    ) -> Generator[tuple[PackedPlan, list[HostPlan]], None, None]:
        """Yields the plans of some rounds in blocks, made one block ahead in a thread.

        A block is what one dispatch runs: `rounds_per_dispatch` rounds, or a single one where fewer
        are left before an end.

        Args:
          rounds: Round numbers, each one for all trials, or int32[S]; a trial below 0 rests.
          sampler_state: Where the sampler goes on; None starts it.
          ends: round -> whether a block must end with it, because the host wants the state that it
            leaves behind; called in the thread.

        Returns:
          An iterator over (plan, the facts of its rounds), for `step_block`.
        """
        return prefetch(self._blocks(rounds, sampler_state, self.rounds_per_dispatch, ends))

    def _blocks(self, rounds, sampler_state, size, ends):
        state = self.cohorts.init() if sampler_state is None else sampler_state
        return self._placed(self._plans(rounds, state), size, ends, jax.config.jax_enable_x64)

    def _placed(self, planned, size, ends, x64):
        for plans, facts in blocks.in_blocks(planned, size, ends):
            begin = time.perf_counter()
            # a thread does not inherit the precision that a context manager sets
            with jax.enable_x64(x64):
                several = len(plans) > 1
                placed = self.place(blocks.stack(plans) if several else plans[0], int(several))
            share = (time.perf_counter() - begin) / len(facts)
            yield placed, [one._replace(seconds=one.seconds + share) for one in facts]

    def _plans(self, rounds: Iterable[int | np.ndarray], state: Any):
        for round in rounds:
            begin = time.perf_counter()
            plan, facts = self.plan_round(round, state)
            state = facts.sampler_state
            yield pack(plan), facts._replace(seconds=time.perf_counter() - begin)

    def plan_round(self, round: int | np.ndarray, sampler_state: Any) -> tuple[RoundPlan, HostPlan]:
        """Draws the cohorts of a round and plans it, as NumPy arrays."""
        jobs, state = self.cohorts.draw(round, sampler_state)
        return self.planner.plan(round, jobs, state)

    def place(self, plan: PackedPlan, axis: int = 0) -> PackedPlan:
        """Sends a plan to the devices; their axis is 1 where the plan has one over rounds."""
        return dataclasses.replace(
            plan,
            numbers=put_sharded(plan.numbers, self.mesh, axis),
            staged=put_own(plan.staged, self.mesh, axis),
        )

    def step(self, plan: PackedPlan, facts: HostPlan) -> tuple[dict[str, jax.Array], ...]:
        """Dispatches one round; returns the per-job statistics of its passes, on the devices.

        It waits for the round before, never for its own: two are under way at most. The exception
        is a round in which a client that keeps state has several jobs: the last one that is finite
        has the client's row.
        """
        rows = self.store.gather(facts.trials, facts.clients)
        self.state, rows, stats = self.program(self.state, rows, plan, self.inputs)
        keepers = facts.keepers
        if facts.repeated.size and self.store.row_bytes:
            nonfinite = jax.device_get([one["nonfinite"] for one in stats])
            keepers = facts.keepers_of(~np.all(nonfinite, axis=0))
        self.store.scatter(facts.trials, keepers, rows)
        return self._in_turn(stats)

    def step_block(
        self, plan: PackedPlan, facts: Sequence[HostPlan]
    ) -> tuple[dict[str, jax.Array], ...]:
        """Dispatches the rounds of a block; returns their statistics, stacked where several."""
        if len(facts) == 1:
            return self.step(plan, facts[0])
        # no client keeps anything: the rows are trees without leaves
        rows = self.store.gather(facts[0].trials, facts[0].clients)
        self.state, _, stats = self.rounds_program(self.state, rows, plan, self.inputs)
        return self._in_turn(stats)

    def compile_block(self, plan: PackedPlan, facts: Sequence[HostPlan]) -> Callable[[], Any]:
        """Begins to compile what `step_block` runs, in a thread; returns what waits for the end."""
        program = self.program if len(facts) == 1 else self.rounds_program
        rows = self.store.gathered(facts[0].clients.shape[1])
        lowered = program.lower(self.state, rows, plan, self.inputs)
        return in_thread(lowered.compile)

    def _in_turn(self, stats):
        """Waits for the dispatch before this one, and returns this one's statistics.

        The devices have their next work by then. A longer queue gains nothing, and on several CPU
        devices XLA's collectives wait for each other forever once it is tens of programs long.
        """
        jax.block_until_ready(self._stats)
        self._stats = stats
        return stats


def build(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    trials: Sequence[TrialInputs] | None = None,
    partitions: Sequence[Partition] | None = None,
) -> Federation:
    """Builds a federation and places its data on the devices.

    Args:
      dataset: The federated data.
      task: What is trained.
      spec: The algorithm.
      options: What a round does.
      trials: Trials that train side by side; None is one, with the seed of the options and the
        hyperparameters of the algorithm.
      partitions: Divisions of the training data among as many clients, for trials that differ in
        theirs; None is that of the dataset.

    Raises:
      ValueError: If options, data and model do not fit together, or do not fit into memory.
    """
    give_back_after_compiling()
    check_lengths(options, dataset.num_clients)
    check_classes(task, dataset)
    check_labels(task, dataset)
    trials = trials or [TrialInputs(options.seed, hyperparameters(spec, options.pipeline))]
    partitions = partitions or [dataset.train.partition]
    partition = joined(partitions)
    cohorts = make_cohorts(dataset, options, [one.seed for one in trials])
    work = local_work(partition.sizes, options)
    schedules = schedules_of(task, spec)
    has_work = takes_part(partition.sizes, works_of(work, schedules))
    participants = has_work.reshape(len(partitions), -1).sum(1)
    first = initial_trials(task, trials, participants, options.initial_params)

    def algorithm_at(frozen, hparams, round):
        return spec.build(
            bind(task, frozen, dataset.preprocess, compute_dtype=options.compute_dtype),
            scheduled(hparams, options, round),
        )

    one_hparams = {name: values[0] for name, values in first.hparams.items()}
    check_schedules(options, one_hparams)
    one_task = bind(task, first.frozen, dataset.preprocess, compute_dtype=options.compute_dtype)
    one_model = jax.eval_shape(
        lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), first.variables
    )
    batch = batch_spec(dataset.train.examples.spec, work.width)
    check_model(one_task, one_model, batch)
    check_metrics(task, one_task, one_model, batch)
    recorded = Recorded(scheduled(one_hparams, options, 0))
    algorithm = spec.build(one_task, recorded)
    check_read(spec, algorithm, recorded, options, one_model, batch)
    check_own_numbers(spec, algorithm, options, one_model, batch)
    if spec.client_optimizer is not None and not spec.keeps_optimizer:
        check_starts_anew(spec.client_optimizer(one_hparams), one_model.params)
    max_steps = None if options.steps_per_round is None else max(options.steps_per_round)
    steps = steps_per_job(partition.sizes, work)
    check_plan_size(steps, work, cohorts.max_jobs)
    param_bytes = nbytes(first.variables.params) // len(trials)

    def first_state(variables: Variables, frozen, hparams) -> RoundState:
        server = algorithm_at(frozen, hparams, 0).init(variables)
        pipeline = links.init_server(as_configured(options.pipeline), variables.params)
        return jax.tree.map(_strongly_typed, RoundState(server, pipeline))

    @functools.cache
    def starter_on(mesh: jax.sharding.Mesh) -> Callable[[InitialTrials], RoundState]:
        everywhere = NamedSharding(mesh, PartitionSpec())
        first_states = batched(first_state, len(trials), (0, None, 0))
        start = jax.jit(first_states, out_shardings=everywhere)
        return lambda given: start(*put_same(given[:3], mesh))

    @functools.cache
    def inputs_on(mesh: jax.sharding.Mesh, placement: str) -> Inputs:
        data = dataset.train.examples.arrays if placement == "device" else None
        inputs = Inputs(
            data=jax.tree.map(in_place, data),
            frozen=first.frozen,
            hparams=first.hparams,
            keys=first.keys,
            own=own_numbers(options, first.hparams["num_clients"].dtype),
        )
        return put_same(inputs, mesh)

    def assemble(layout: Layout | None = None) -> Federation:
        wanted = options
        if layout is not None:
            wanted = dataclasses.replace(options, **layout._asdict())
        execution = plan_execution(dataset, cohorts.max_jobs, param_bytes, steps, wanted)
        mesh = make_mesh(execution.devices)
        planner = make_planner(
            Split(dataset.train.examples, partition),
            work,
            schedules,
            execution,
            max_cohort=cohorts.max_jobs,
            seeds=[one.seed for one in trials],
            begins=[one.partition * dataset.num_clients for one in trials],
            max_steps=max_steps,
            staged_devices=own_devices(mesh),
        )
        for one in planner.works:
            check_batches(task, partition.sizes, one)
        largest = options.num_rounds * cohorts.max_jobs
        default = default_rows(algorithm, options.pipeline, first.variables)
        store = make_store(default, dataset.num_clients, mesh, largest)
        check_rounds_per_dispatch(options.rounds_per_dispatch, store)
        return Federation(
            dataset=dataset,
            task=task,
            spec=spec,
            options=options,
            execution=execution,
            mesh=mesh,
            algorithm=algorithm,
            program=make_round_program(algorithm_at, options.pipeline, mesh, len(trials)),
            rounds_program=make_rounds_program(algorithm_at, options.pipeline, mesh, len(trials)),
            trials=trials,
            participants=participants,
            planner=planner,
            cohorts=cohorts,
            store=store,
            inputs=inputs_on(mesh, execution.placement),
            # new arrays each time: the first round donates them
            state=starter_on(mesh)(first),
            start=starter_on(mesh),
        )

    if not is_calibrated(options, dataset, task, steps, work, cohorts.max_jobs):
        return assemble()
    return calibrate(
        assemble,
        cache_dir() / "layouts.json",
        layout_facts(dataset, task, spec.name, algorithm, options, first, steps, work),
        Allowance(options.num_rounds, bool(options.calibrate)),
    )


@jax.jit
def _of_trial(tree: PyTree, trial: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[trial], tree)


@functools.partial(jax.jit, donate_argnums=(1, 2))
def _chosen(fresh: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Returns the new entries of the trials that are fresh, and the old ones of the others."""
    return jax.tree.map(lambda a, b: jnp.where(beside(fresh, a), a, b), new, old)


def _strongly_typed(leaf: Any) -> jax.Array:
    """Returns a leaf typed as the program returns it: a weak type compiles anew."""
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype)
