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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fljax.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.calibration import Layout, calibrate
from fljax.data.dataset import FederatedDataset
from fljax.data.memory import in_place
from fljax.engine import blocks
from fljax.engine import pipeline as links
from fljax.engine import sampler as samplers
from fljax.engine.batching import steps_per_job
from fljax.engine.client_store import ClientStore
from fljax.engine.compilation import cache_dir, give_back_after_compiling
from fljax.engine.execution import (
    ExecutionPlan,
    make_mesh,
)
from fljax.engine.packed_plan import PackedPlan, pack
from fljax.engine.placement import copied, own_devices, put_own, put_same, put_sharded
from fljax.engine.plan import PlanFacts, RoundPlan, job_table
from fljax.engine.planner import Planner, make_planner
from fljax.engine.prefetch import prefetch
from fljax.engine.round_program import (
    Inputs,
    RoundState,
    make_round_program,
    make_rounds_program,
)
from fljax.gradients import bind
from fljax.options import RoundOptions
from fljax.parts import (
    calibration_facts,
    check_batches,
    check_rounds_per_dispatch,
    init_model,
    is_calibrated,
    local_work,
    make_sampler,
    make_store,
    plan_execution,
    scheduled,
)
from fljax.tasks import Task

PyTree = Any

# Stream of random keys for the initial model; rounds count from 0.
_INIT = 0x7FFFFFFF


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
        program: Callable,
        rounds_program: Callable,
        planner: Planner,
        sampler: samplers.Sampler,
        store: ClientStore,
        inputs: Inputs,
        state: RoundState,
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
        self.planner = planner
        self.sampler = sampler
        self.store = store
        self.inputs = inputs
        self.state = state
        self.calibration_seconds = 0.0
        self.rounds_per_dispatch = options.rounds_per_dispatch or 1
        self._stats: PyTree = ()
        self._groups = _group_codes(dataset)

    @property
    def variables(self) -> Variables:
        """The global model."""
        return self.algorithm.variables(_of_first_source(self.state.server))

    def load(self, state: RoundState, store: PyTree) -> None:
        """Continues from a checkpoint's server state and client store."""
        # a copy of its own: the next round donates it
        self.state = copied(put_same(state, self.mesh))
        self.store.load(store)

    def plans(
        self, start: int, stop: int, sampler_state: Any = None
    ) -> Iterator[tuple[PackedPlan, PlanFacts]]:
        """Yields the plans of rounds start .. stop - 1, made one round ahead in a thread."""
        placed = self._blocks(start, stop, sampler_state, 1, _never, jax.config.jax_enable_x64)
        return prefetch((plan, facts) for plan, (facts,) in placed)

    def blocks(
        self,
        start: int,
        stop: int,
        sampler_state: Any = None,
        *,
        ends: Callable[[int], bool] = _never,
    ) -> Iterator[tuple[PackedPlan, list[PlanFacts]]]:
        """Yields the plans of rounds start .. stop - 1 in blocks, made one block ahead in a thread.

        A block is what one dispatch runs: `rounds_per_dispatch` rounds, or a single one where fewer
        are left before an end.

        Args:
          start, stop: The rounds.
          sampler_state: Where the sampler goes on; None starts it.
          ends: round -> whether a block must end with it, because the host wants the state that it
            leaves behind; called in the thread.

        Returns:
          An iterator over (plan, the facts of its rounds), for `step_block`.
        """
        size, x64 = self.rounds_per_dispatch, jax.config.jax_enable_x64
        return prefetch(self._blocks(start, stop, sampler_state, size, ends, x64))

    def _blocks(self, start, stop, sampler_state, size, ends, x64):
        state = self.sampler.init() if sampler_state is None else sampler_state
        for plans, facts in blocks.in_blocks(self._plans(start, stop, state), size, ends):
            begin = time.perf_counter()
            # a thread does not inherit the precision that a context manager sets
            with jax.enable_x64(x64):
                several = len(plans) > 1
                placed = self.place(blocks.stack(plans) if several else plans[0], int(several))
            share = (time.perf_counter() - begin) / len(facts)
            yield placed, [one._replace(seconds=one.seconds + share) for one in facts]

    def _plans(self, start: int, stop: int, state: Any):
        for round in range(start, stop):
            begin = time.perf_counter()
            plan, facts = self.plan_round(round, state)
            state = facts.sampler_state
            yield pack(plan), facts._replace(seconds=time.perf_counter() - begin)

    def plan_round(self, round: int, sampler_state: Any) -> tuple[RoundPlan, PlanFacts]:
        """Selects the cohort of a round and plans it, as NumPy arrays."""
        population = self.dataset.num_clients
        clients, state = self.sampler.select(sampler_state, round)
        wrong = clients[(clients < 0) | (clients >= population)]
        if len(wrong):
            raise ValueError(
                f"The sampler chose client {wrong[0]} in round {round}; the population has "
                f"clients 0 to {population - 1}."
            )
        steps = None
        if self.options.steps_per_round is not None:
            steps = np.full(len(clients), self.options.steps_per_round[round])
        jobs = job_table(clients, groups=self._groups, steps=steps)
        return self.planner.plan(round, jobs, state)

    def place(self, plan: PackedPlan, axis: int = 0) -> PackedPlan:
        """Sends a plan to the devices; their axis is 1 where the plan has one over rounds."""
        return dataclasses.replace(
            plan,
            numbers=put_sharded(plan.numbers, self.mesh, axis),
            staged=put_own(plan.staged, self.mesh, axis),
        )

    def step(self, plan: PackedPlan, facts: PlanFacts) -> tuple[dict[str, jax.Array], ...]:
        """Dispatches one round; returns the per-job statistics of its passes, on the devices.

        It waits for the round before, never for its own: two are under way at most.
        """
        rows = self.store.gather(facts.sources, facts.clients)
        self.state, rows, stats = self.program(self.state, rows, plan, self.inputs)
        self.store.scatter(facts.sources, facts.keepers, rows)
        return self._in_turn(stats)

    def step_block(
        self, plan: PackedPlan, facts: Sequence[PlanFacts]
    ) -> tuple[dict[str, jax.Array], ...]:
        """Dispatches the rounds of a block; returns their statistics, stacked where several."""
        if len(facts) == 1:
            return self.step(plan, facts[0])
        # no client keeps anything: the rows are trees without leaves
        rows = self.store.gather(facts[0].sources, facts[0].clients)
        self.state, _, stats = self.rounds_program(self.state, rows, plan, self.inputs)
        return self._in_turn(stats)

    def _in_turn(self, stats):
        """Waits for the dispatch before this one, and returns this one's statistics.

        The devices have their next work by then. A longer queue gains nothing, and on several CPU
        devices XLA's collectives wait for each other forever once it is tens of programs long.
        """
        jax.block_until_ready(self._stats)
        self._stats = stats
        return stats


def _group_codes(dataset: FederatedDataset) -> np.ndarray | None:
    """Returns int32[N], the first of the data set's groups as numbers from 0, or None."""
    for values in dataset.groups.values():
        return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int32)
    return None


def build(
    dataset: FederatedDataset, task: Task, spec: AlgorithmSpec, options: RoundOptions
) -> Federation:
    """Builds a federation and places its data on the devices.

    Raises:
      ValueError: If options, data and model do not fit together, or do not fit into memory.
    """
    give_back_after_compiling()
    partition = dataset.train.partition
    sampler = make_sampler(dataset, options)
    work = local_work(partition.sizes, options)
    keys, init_key = _keys(options.seed)
    params, frozen, model_state = init_model(task, init_key, options.initial_params)
    variables = Variables(params, model_state)

    def algorithm_at(frozen, hparams, round):
        return spec.build(
            bind(task, frozen, dataset.preprocess, compute_dtype=options.compute_dtype),
            scheduled(hparams, options, round),
        )

    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    hparams = {name: np.asarray(value, dtype) for name, value in spec.hparams.items()}
    hparams["num_clients"] = np.asarray(dataset.num_clients, dtype)
    algorithm = algorithm_at(frozen, hparams, 0)
    max_steps = None if options.steps_per_round is None else max(options.steps_per_round)
    steps = steps_per_job(partition.sizes, work)

    def first_state(variables, frozen, hparams) -> RoundState:
        server = algorithm_at(frozen, hparams, 0).init(variables)
        pipeline = links.init_server(options.pipeline, variables.params)
        return jax.tree.map(_stacked, RoundState(server, pipeline))

    @functools.cache
    def starter_on(mesh: jax.sharding.Mesh) -> Callable[[], RoundState]:
        given = put_same((variables, frozen, hparams), mesh)
        everywhere = NamedSharding(mesh, PartitionSpec())
        return functools.partial(jax.jit(first_state, out_shardings=everywhere), *given)

    @functools.cache
    def inputs_on(mesh: jax.sharding.Mesh, placement: str) -> Inputs:
        data = dataset.train.examples.arrays if placement == "device" else None
        inputs = Inputs(
            data=None if data is None else {name: in_place(array) for name, array in data.items()},
            frozen=frozen,
            hparams={name: value[None] for name, value in hparams.items()},
            keys=keys,
        )
        return put_same(inputs, mesh)

    def assemble(layout: Layout | None = None) -> Federation:
        wanted = options
        if layout is not None:
            wanted = dataclasses.replace(options, **layout._asdict())
        execution = plan_execution(dataset, sampler, params, steps, wanted)
        mesh = make_mesh(execution.devices)
        planner = make_planner(
            dataset.train,
            work,
            [one.schedule for one in algorithm.passes],
            execution,
            max_cohort=sampler.max_cohort,
            seeds=[options.seed],
            max_steps=max_steps,
            staged_devices=own_devices(mesh),
        )
        for one in planner.works:
            check_batches(task, partition.sizes, one)
        largest = options.num_rounds * sampler.max_cohort
        store = make_store(algorithm, options.pipeline, variables, dataset, mesh, largest)
        check_rounds_per_dispatch(options.rounds_per_dispatch, store)
        return Federation(
            dataset=dataset,
            task=task,
            spec=spec,
            options=options,
            execution=execution,
            mesh=mesh,
            algorithm=algorithm,
            program=make_round_program(algorithm_at, options.pipeline, mesh),
            rounds_program=make_rounds_program(algorithm_at, options.pipeline, mesh),
            planner=planner,
            sampler=sampler,
            store=store,
            inputs=inputs_on(mesh, execution.placement),
            # new arrays each time: the first round donates them
            state=starter_on(mesh)(),
        )

    if not is_calibrated(options):
        return assemble()
    return calibrate(
        assemble,
        cache_dir() / "layouts.json",
        calibration_facts(dataset, spec, options, variables, steps, work),
    )


def _keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of a run's sources [1], and that of the initial model."""

    # one program: each that is compiled, small as it may be, takes more than a megabyte for good
    @jax.jit
    def make():
        key = jax.random.key(seed, impl="threefry2x32")
        return key[None], jax.random.fold_in(key, _INIT)

    return make()


@jax.jit
def _of_first_source(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _stacked(leaf: Any) -> jax.Array:
    """Returns leaf[None], strongly typed as the program returns it: a weak type compiles anew."""
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype)[None]
