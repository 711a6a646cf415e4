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

from fljax.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.calibration import Layout, calibrate
from fljax.data.dataset import FederatedDataset
from fljax.data.memory import in_place
from fljax.engine import blocks
from fljax.engine import pipeline as links
from fljax.engine import sampler as samplers
from fljax.engine.batching import LocalWork, steps_per_job
from fljax.engine.client_store import ClientStore
from fljax.engine.compilation import cache_dir
from fljax.engine.distributed import exchange
from fljax.engine.execution import (
    ExecutionPlan,
    choose,
    host_memory_bytes,
    make_mesh,
    memory_of,
)
from fljax.engine.packed_plan import PackedPlan, pack
from fljax.engine.placement import own_devices, put_own, put_same, put_sharded
from fljax.engine.plan import PlanFacts, RoundPlan, job_table
from fljax.engine.planner import Planner, make_planner
from fljax.engine.prefetch import prefetch
from fljax.engine.round_program import (
    ClientRows,
    Inputs,
    RoundState,
    make_round_program,
    make_rounds_program,
)
from fljax.gradients import bind
from fljax.options import RoundOptions
from fljax.recording import versions
from fljax.tasks import Task

PyTree = Any

# Stream of random keys for the initial model; rounds count from 0.
_INIT = 0x7FFFFFFF
# Runs of fewer rounds are over before a calibration has paid for itself.
_CALIBRATED_ROUNDS = 50


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
        return self.algorithm.variables(jax.tree.map(lambda leaf: leaf[0], self.state.server))

    def load(self, state: RoundState, store: PyTree) -> None:
        """Continues from a checkpoint's server state and client store."""
        # a copy of its own: the next round donates it
        self.state = jax.tree.map(jnp.copy, put_same(state, self.mesh))
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
    partition = dataset.train.partition
    sampler = make_sampler(dataset, options)
    work = local_work(partition.sizes, options)
    key = jax.random.key(options.seed, impl="threefry2x32")
    params, frozen, model_state = task.init(jax.random.fold_in(key, _INIT))
    if options.initial_params is not None:
        params = _like(options.initial_params, params)
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
    state = RoundState(algorithm.init(variables), links.init_server(options.pipeline, params))
    stacked = jax.tree.map(_stacked, state)

    @functools.cache
    def inputs_on(mesh: jax.sharding.Mesh, placement: str) -> Inputs:
        data = dataset.train.examples.arrays if placement == "device" else None
        inputs = Inputs(
            data=None if data is None else {name: in_place(array) for name, array in data.items()},
            frozen=frozen,
            hparams={name: value[None] for name, value in hparams.items()},
            keys=key[None],
        )
        return put_same(inputs, mesh)

    def assemble(layout: Layout | None = None) -> Federation:
        wanted = options
        if layout is not None:
            wanted = dataclasses.replace(options, devices=layout.devices, lanes=layout.lanes)
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
        store = _make_store(algorithm, options.pipeline, variables, dataset, mesh, largest)
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
            # a copy of its own: the first round donates it, and the caller may hold the parameters
            state=jax.tree.map(jnp.copy, put_same(stacked, mesh)),
        )

    if not is_calibrated(options):
        return assemble()
    return calibrate(
        assemble,
        cache_dir() / "layouts.json",
        _calibration_facts(dataset, spec, options, variables, steps, work),
    )


def is_calibrated(options: RoundOptions) -> bool:
    """Whether lanes and devices are found by trial: where they are free and it pays."""
    if options.lanes or options.wave:
        return False
    wanted = options.calibrate
    return options.num_rounds >= _CALIBRATED_ROUNDS if wanted is None else wanted


def _calibration_facts(dataset, spec, options: RoundOptions, variables, steps, work) -> dict:
    """Returns what the fastest layout depends on, as JSON values."""
    shapes = lambda tree: [  # noqa: E731
        [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return {
        "model": shapes(variables),
        "example": shapes(dataset.train.examples.spec),
        "algorithm": spec.name,
        "work": list(work),
        "steps": [float(steps.mean()), float(steps.std()), int(steps.max())],
        "clients_per_round": options.clients_per_round,
        "options": [options.compute_dtype, options.devices, options.placement],
        "precision": str(jax.config.jax_default_matmul_precision),
        "versions": versions(),
    }


def _stacked(leaf: Any) -> jax.Array:
    """Returns leaf[None], strongly typed as the program returns it: a weak type compiles anew."""
    array = jnp.asarray(leaf)
    return jnp.asarray(array, array.dtype)[None]


def scheduled(hparams, options: RoundOptions, round):
    """Returns the hyperparameters of a round."""
    schedules = {"client_lr": options.client_lr_schedule, "server_lr": options.server_lr_schedule}
    active = {
        name: hparams[name] * schedule(round)
        for name, schedule in schedules.items()
        if schedule is not None and name in hparams
    }
    return {**hparams, **active}


def check_batches(task: Task, sizes: np.ndarray, work: LocalWork) -> None:
    """Refuses partial batches for models that cannot mask them."""
    if task.needs_full_batches and work.remainder == "partial" and (sizes % work.batch_size).any():
        raise ValueError(
            "The model keeps batch statistics and its __call__ takes no `mask`, so the padding of "
            "a partial last batch would enter them. Give __call__ a `mask` argument and hand it to "
            "BatchNorm, or set remainder to 'drop' or 'wrap' (an algorithm that reads every row "
            "once, such as fedsgd, has partial batches all the same)."
        )


def check_rounds_per_dispatch(rounds: int, store: ClientStore) -> None:
    """Refuses several rounds a dispatch where clients keep rows, which pass between the rounds."""
    if rounds < 0:
        raise ValueError(f"rounds_per_dispatch = {rounds}; give a number of rounds, 0 to choose.")
    if rounds > 1 and store.row_bytes:
        raise ValueError(
            f"rounds_per_dispatch = {rounds}, but clients of this algorithm or uplink keep state, "
            "which is read and written between rounds. Leave it at 1."
        )


def make_sampler(dataset: FederatedDataset, options: RoundOptions) -> samplers.Sampler:
    """Returns the sampler that the options ask for."""
    if options.cohorts is not None:
        return samplers.replay(options.cohorts, dataset.num_clients)
    if isinstance(options.sampler, samplers.Sampler):
        if options.sampler.feedback != "none":
            raise ValueError(
                f"The sampler asks for {options.sampler.feedback} feedback, which no run gives "
                "yet; only samplers with feedback='none' can be used."
            )
        return options.sampler
    if options.sampler not in samplers.SAMPLERS:
        raise ValueError(
            f"sampler = {options.sampler!r}; choose one of {', '.join(samplers.SAMPLERS)}."
        )
    make = samplers.SAMPLERS[options.sampler]
    return make(dataset.num_clients, options.clients_per_round, options.seed)


def local_work(sizes: np.ndarray, options: RoundOptions) -> LocalWork:
    """Returns the local work of clients with these sizes; refuses contradictions."""
    if options.num_rounds < 1:
        raise ValueError(f"num_rounds = {options.num_rounds}; a run needs at least one round.")
    if (options.local_epochs is None) == (options.local_steps is None):
        raise ValueError(
            f"local_epochs = {options.local_epochs} and local_steps = {options.local_steps}: "
            "give exactly one of them and set the other to None."
        )
    amount = options.local_epochs if options.local_steps is None else options.local_steps
    if amount < 1:
        raise ValueError(f"Clients need at least one local epoch or step, not {amount}.")
    if options.batch_size != int(options.batch_size) or options.batch_size < 0:
        raise ValueError(
            f"batch_size = {options.batch_size}; give a whole number above 0, or 0 for all."
        )
    if options.remainder not in ("partial", "drop", "wrap"):
        raise ValueError(f"remainder = {options.remainder!r}; choose 'partial', 'drop' or 'wrap'.")
    if options.remainder != "partial" and not options.batch_size:
        raise ValueError(
            f"remainder = {options.remainder!r} needs a batch_size; with 0 (all rows at once) "
            "there is no remainder."
        )
    planned = options.steps_per_round
    if planned is not None and len(planned) != options.num_rounds:
        raise ValueError(
            f"steps_per_round has {len(planned)} entries for num_rounds = {options.num_rounds}."
        )
    batch = min(options.batch_size or int(sizes.max()), max(int(sizes.max()), 1))
    if options.remainder != "partial":
        batch = options.batch_size
    work = LocalWork(
        options.local_epochs, options.local_steps, batch, options.remainder, options.shuffle
    )
    if not (steps_per_job(sizes, work) > 0).any():
        raise ValueError(
            f"No client has a batch to train on: the largest has {sizes.max()} rows, batch_size is "
            f"{batch}, remainder is {work.remainder!r}."
        )
    return work


def plan_execution(
    dataset: FederatedDataset,
    sampler: samplers.Sampler,
    params: PyTree,
    steps: np.ndarray,
    options: RoundOptions,
) -> ExecutionPlan:
    """Chooses the execution plan of a run; `params` may be shapes."""
    examples = dataset.train.examples
    in_memory = examples.arrays is not None
    if options.placement == "device" and not in_memory:
        raise ValueError(
            "placement = 'device' needs the training data in memory, but these examples are "
            "generated on demand. Leave it at 'auto', or materialize the data set."
        )
    return choose(
        cohort=sampler.max_cohort,
        equal_steps=bool((steps == steps[0]).all()),
        data_bytes=examples.nbytes if in_memory else np.iinfo(np.int64).max,
        param_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)),
        needs_stack=options.pipeline.needs_stack,
        devices=options.devices,
        lanes=options.lanes,
        wave=options.wave,
        placement=options.placement,
    )


def _make_store(algorithm, pipeline, variables, dataset, mesh, largest: int) -> ClientStore:
    """Makes the client store for at most `largest` participations, on the devices if it fits."""
    own = () if algorithm.init_client is None else algorithm.init_client(variables)
    default = ClientRows(own, links.init_client(pipeline, variables.params))
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], default)
    rows = min(dataset.num_clients, largest)
    needed = rows * sum(leaf.nbytes for leaf in jax.tree.leaves(stacked))
    host, memory = min(exchange(host_memory_bytes())), memory_of(mesh)
    if needed > host:
        raise ValueError(
            f"The state that {rows:,} clients keep needs {needed / 1e9:.2f} GB, and the machine "
            f"has {host / 1e9:.2f} GB. Use fewer clients or rounds, or a smaller model."
        )
    on_host = mesh.local_devices[0].platform != "cpu" and needed > memory // 4 * mesh.size
    return ClientStore(stacked, dataset.num_clients, mesh, on_host=on_host)


def _like(given: PyTree, expected: PyTree) -> PyTree:
    """Returns given parameters as arrays, checked against the model's."""
    shapes = lambda tree: {  # noqa: E731
        jax.tree_util.keystr(path): tuple(np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    have, want = shapes(given), shapes(expected)
    if have != want:
        wrong = sorted(key for key in have | want if have.get(key) != want.get(key))[0]
        raise ValueError(
            f"initial_params do not fit the model: at {wrong} there is the shape "
            f"{have.get(wrong, 'of nothing')}, and the model has {want.get(wrong, 'nothing')}."
        )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf), given)
