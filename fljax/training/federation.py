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
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fljax.core.algorithm import Algorithm, AlgorithmSpec, Variables
from fljax.core.files import cache_dir
from fljax.core.task import Task
from fljax.core.transforms import as_configured
from fljax.core.trees import beside
from fljax.data.dataset import FederatedDataset, Partition
from fljax.engine.devices.compilation import give_back_after_compiling
from fljax.engine.devices.execution import ExecutionPlan, make_mesh
from fljax.engine.devices.memory import exhaustion_anywhere
from fljax.engine.devices.placement import copied, put_own, put_same, put_sharded
from fljax.engine.plan import blocks
from fljax.engine.plan.cohorts import Cohorts
from fljax.engine.plan.feedback import Feedback
from fljax.engine.plan.packed_plan import PackedPlan, pack
from fljax.engine.plan.planner import Planner
from fljax.engine.plan.prefetch import in_thread, prefetch
from fljax.engine.plan.round_plan import HostPlan, RoundPlan
from fljax.engine.program.inputs import Build, Inputs, RoundState
from fljax.engine.program.round import make_round_program, make_rounds_program
from fljax.engine.store.client_store import ClientStore
from fljax.training.assembly import (
    execution_of,
    make_starter,
    place_inputs,
    planner_of,
    store_of,
)
from fljax.training.autotuning import Allowance, calibrate
from fljax.training.blueprint import Blueprint, algorithm_builder, draw_blueprint
from fljax.training.client_state import check_rounds_per_dispatch, default_rows
from fljax.training.execution import JobLayout, is_calibrated
from fljax.training.form_search import changes_of
from fljax.training.layout_key import key_of, layout_facts, narrow
from fljax.training.narrowing import narrowing
from fljax.training.options import RoundOptions
from fljax.training.partial_rounds import proven
from fljax.training.round_records import FATES, passes_kept
from fljax.training.sampling import check_versions, make_cohorts
from fljax.training.timing import ScheduleMaker
from fljax.training.trials import InitialTrials, TrialInputs, check_frozen, initial_trials

__all__ = [
    "Federation",
    "RoundOptions",
    "build",
]

PyTree = Any


def build(
    dataset: FederatedDataset,
    task: Task,
    spec: AlgorithmSpec,
    options: RoundOptions,
    trials: Sequence[TrialInputs] | None = None,
    partitions: Sequence[Partition] | None = None,
    *,
    waiting: Sequence[TrialInputs] = (),
    layout: JobLayout | None = None,
    is_narrower: bool = False,
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
      waiting: Trials that may take their places later, for which the program keeps as many versions
        of a model as they need.
      layout: Where jobs run, of a checkpoint that the run goes on from, or what is left of one that
        did not fit; None finds it.
      is_narrower: Whether it takes the place of one on which the devices ran out of memory. Later
        runs of the same work then begin on as few lanes, where more were found to be fast.

    Raises:
      ValueError: If options, data and model do not fit together, or do not fit into memory.

    Example:
      >>> dataset = data.digits(partition='iid', num_clients=20)
      >>> task = tasks.classification(models.softmax_regression(64, 10), 10)
      >>> options = RoundOptions(num_rounds=2, clients_per_round=5, batch_size=20)
      >>> federation = build(dataset, task, algorithms.fedavg(0.1), options)
      >>> for plan, facts in federation.plans(0, 2):
      ...     statistics = federation.step(plan, facts)
      >>> federation.variables
      Variables(650 parameters in 2 arrays)
    """
    give_back_after_compiling()
    blueprint = draw_blueprint(dataset, task, spec, options, trials, partitions, waiting)
    # several layouts may be timed, and share what they place on the same devices
    place = functools.cache(functools.partial(place_inputs, blueprint))
    starter = functools.cache(functools.partial(make_starter, blueprint))

    def assemble(layout: JobLayout | None = None) -> Federation:
        return _assemble(blueprint, place, starter, layout)

    if is_narrower and layout is not None:
        narrow(_known_layouts(), key_of(layout_facts(blueprint)), layout.lanes)
    if layout is not None:
        return proven(assemble(layout))
    jobs = blueprint.cohorts.max_jobs
    if not is_calibrated(options, dataset, blueprint.task, blueprint.steps, blueprint.work, jobs):
        if options.lanes:
            return proven(assemble())
        return narrowing(lambda layout: proven(assemble(layout)), options.wave)
    allowance = Allowance(options.num_rounds, bool(options.calibrate))
    facts = layout_facts(blueprint)
    changes = functools.partial(changes_of, blueprint, facts["left_open"])
    return calibrate(assemble, _known_layouts(), facts, allowance, changes)


def _known_layouts() -> Path:
    """Returns the file of layouts that were found by timing."""
    return cache_dir() / "layouts.json"


def _assemble(
    blueprint: Blueprint,
    place: Callable[[Mesh, str], Inputs],
    starter: Callable[[Mesh], Callable[[InitialTrials], RoundState]],
    layout: JobLayout | None,
) -> Federation:
    """Returns a federation that runs on a layout; None is the layout by rule."""
    options, initial = blueprint.options, blueprint.initial
    execution = execution_of(blueprint, layout)
    mesh = make_mesh(execution.devices)
    planner = planner_of(blueprint, execution, mesh)
    with exhaustion_anywhere(execution):
        store = store_of(blueprint, mesh)
        inputs = place(mesh, execution.placement)
        # new arrays each time: the first round donates them
        start = starter(mesh)
        state = start(initial)
    check_rounds_per_dispatch(options.rounds_per_dispatch, store)
    build_algorithm = algorithm_builder(blueprint)
    parts = build_algorithm, options.pipeline, mesh, len(blueprint.trials)
    cohorts = blueprint.cohorts
    kind = {
        "num_versions": blueprint.num_versions,
        "rebased": cohorts.rebased,
        "forms": execution.forms,
    }
    own = 0 if layout is None else layout.rounds_per_dispatch
    return Federation(
        dataset=blueprint.dataset,
        task=blueprint.task,
        spec=blueprint.spec,
        options=options,
        algorithm=blueprint.algorithm,
        build_algorithm=build_algorithm,
        execution=execution,
        mesh=mesh,
        program=make_round_program(*parts, **kind),
        rounds_program=make_rounds_program(*parts, **kind),
        trials=list(blueprint.trials),
        participants=blueprint.participants,
        make_schedule=blueprint.make_schedule,
        cohorts=blueprint.cohorts,
        planner=planner,
        store=store,
        inputs=inputs,
        state=state,
        start=start,
        # hooks, or the caller, may want another number than before; results are the same
        rounds_per_dispatch=options.rounds_per_dispatch or own or 1,
    )


def _never(round: int) -> bool:
    """Ends no block."""
    return False


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class Federation:
    """A run in progress: constants, the current state, and the step to the next round.

    Attributes:
      dataset, task, spec, options: As `build` takes them.
      algorithm: The algorithm of the first trial, as the spec builds it.
      build_algorithm: (frozen, hparams, round) -> the algorithm of a trial, inside a trace.
      execution: On which devices, lanes and waves jobs run.
      mesh: The devices.
      program, rounds_program: The compiled round, and several of them in a row.
      trials: What trains side by side.
      participants: int64[partitions] number of clients that ever take part.
      make_schedule: Makes the schedule of a trial.
      cohorts: Who is drawn for a round.
      planner: Plans a round.
      store: What clients keep from round to round.
      inputs: What stays the same from round to round.
      state: What a round hands to the next one.
      start: Returns the state of round 0.
      rounds_per_dispatch: Rounds that the devices run in one go.
      calibration_seconds: What the search for the layout took.

    Example:
      >>> dataset = data.digits(partition='iid', num_clients=20)
      >>> task = tasks.classification(models.softmax_regression(64, 10), 10)
      >>> options = RoundOptions(num_rounds=2, clients_per_round=5, batch_size=20)
      >>> federation = build(dataset, task, algorithms.fedavg(0.1), options)
      >>> federation.spec.name, int(federation.participants[0])
      ('fedavg', 20)
    """

    dataset: FederatedDataset
    task: Task
    spec: AlgorithmSpec
    options: RoundOptions
    algorithm: Algorithm
    build_algorithm: Build
    execution: ExecutionPlan
    mesh: Mesh
    program: jax.stages.Wrapped
    rounds_program: jax.stages.Wrapped
    trials: list[TrialInputs]
    participants: np.ndarray
    make_schedule: ScheduleMaker
    cohorts: Cohorts
    planner: Planner
    store: ClientStore
    inputs: Inputs
    state: RoundState
    start: Callable[[InitialTrials], RoundState]
    rounds_per_dispatch: int = 1
    calibration_seconds: float = 0.0
    # of the last dispatch, which may still run
    _stats: PyTree = ()

    def __repr__(self) -> str:
        return f"Federation({self.spec.name!r} on {self.dataset!r})"

    @property
    def layout(self) -> dict[str, Any]:
        """The layout of rounds, as JSON values: what a resumed run needs to run alike."""
        return self.execution.as_plain() | {"rounds_per_dispatch": self.rounds_per_dispatch}

    @property
    def counts_diverged(self) -> bool:
        """Says whether a client whose update is not finite counts, as one that sends zeros."""
        return as_configured(self.options.pipeline).makes_finite

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
        self.trials = [trials.get(place, trial) for place, trial in enumerate(old)]
        seeds = [trial.seed for trial in self.trials]
        clients = self.dataset.num_clients
        initial = self.options.initial_params
        num_models = self.algorithm.initial_models
        first = initial_trials(self.task, self.trials, self.participants, initial, num_models)
        check_frozen([(old[0].seed, self.inputs.frozen), (seeds[0], first.frozen)])
        fresh = np.isin(np.arange(len(seeds)), list(trials))
        # a fresh trial writes a place of the ring of versions before it reads it
        past = self.state.past
        begun, running = (state._replace(past=()) for state in (self.start(first), self.state))
        chosen = _chosen(fresh, begun, running)
        self.state = chosen._replace(past=past)
        hparams, keys = put_same((first.hparams, first.keys), self.mesh)
        self.inputs = self.inputs._replace(hparams=hparams, keys=keys)
        self.cohorts = make_cohorts(self.dataset, self.options, self.trials, self.make_schedule)
        check_versions(self.cohorts.num_versions, self.planner.num_versions)
        begins = np.array([trial.partition for trial in self.trials]) * clients
        self.planner = self.planner._replace(seeds=np.array(seeds), begins=begins)
        default = default_rows(self.algorithm, self.options.pipeline, first.variables)
        self.store.forget(np.flatnonzero(fresh), default)

    def plans(
        self, start: int, stop: int, sampler_state: Any = None
    ) -> Iterator[tuple[PackedPlan, HostPlan]]:
        """Yields the plans of rounds start .. stop - 1, made one round ahead in a thread."""
        blocks = self._blocks(range(start, stop), sampler_state, 1, _never, None)
        return prefetch((plan, facts) for plan, (facts,) in blocks)

    def blocks(
        self,
        rounds: Iterable[int | np.ndarray],
        sampler_state: Any = None,
        *,
        ends: Callable[[int], bool] = _never,
        feedback: Feedback | None = None,
    ) -> Generator[tuple[PackedPlan, list[HostPlan]], None, None]:
        """Yields the plans of some rounds in blocks, made one block ahead in a thread.

        A block is what one dispatch runs: `rounds_per_dispatch` rounds, or a single one where fewer
        are left before an end.

        Args:
          rounds: Round numbers, each one for all trials, or int32[S]; a trial below 0 rests.
          sampler_state: Where the sampler goes on; None starts it.
          ends: round -> whether a block must end with it, because the host wants the state that it
            leaves behind; called in the thread.
          feedback: Where the sampler is told of rounds that have run, if it asks for that.

        Returns:
          An iterator over (plan, the facts of its rounds), for `step_block`.
        """
        size = self.rounds_per_dispatch
        wake = (lambda: None) if feedback is None else feedback.close
        return prefetch(self._blocks(rounds, sampler_state, size, ends, feedback), wake=wake)

    def _blocks(self, rounds, sampler_state, size, ends, feedback):
        if self.cohorts.feedback != "none" and feedback is None:
            raise ValueError(
                f"The sampler has {self.cohorts.feedback} feedback, which only `simulate` gives."
            )
        state = self.cohorts.init() if sampler_state is None else sampler_state
        planned = self._plans(rounds, state, feedback)
        return self._placed(planned, size, ends, jax.config.jax_enable_x64)

    def _placed(self, planned, size, ends, x64):
        for plans, facts in blocks.in_blocks(planned, size, ends):
            begin = time.perf_counter()
            # a thread does not inherit the precision that a context manager sets
            with jax.enable_x64(x64):
                several = len(plans) > 1
                placed = self.place(blocks.stack(plans) if several else plans[0], int(several))
            share = (time.perf_counter() - begin) / len(facts)
            yield placed, [fact._replace(seconds=fact.seconds + share) for fact in facts]

    def _plans(self, rounds: Iterable[int | np.ndarray], state: Any, feedback: Feedback | None):
        for round in rounds:
            if feedback is not None and (known := round - 1 - feedback.delay) >= 0:
                state = self.cohorts.observe(state, known, feedback.take(known))
            begin = time.perf_counter()
            plan, facts = self.plan_round(round, state)
            state = facts.sampler_state
            yield pack(plan), facts._replace(seconds=time.perf_counter() - begin)

    def plan_round(self, round: int | np.ndarray, sampler_state: Any) -> tuple[RoundPlan, HostPlan]:
        """Draws the cohorts of a round and plans it, as NumPy arrays."""
        drawn = self.cohorts.draw(round, sampler_state)
        plan, facts = self.planner.plan(round, drawn.jobs, drawn.states, drawn.newest)
        return plan, facts._replace(
            records=drawn.records, spans=drawn.spans, downlink_bytes=drawn.downlink_bytes
        )

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
        is a round in which a client that keeps state has several jobs: the last one that was kept,
        in all passes if there is such a job, has the client's row.
        """
        rows = self.store.gather(facts.trials, facts.clients)
        self.state, rows, stats = self.program(self.state, rows, plan, self.inputs)
        keepers = facts.keepers
        if facts.repeated.size and self.store.row_bytes:
            fates = [
                {name: of_pass[name] for name in FATES if name in of_pass} for of_pass in stats
            ]
            keepers = facts.keepers_of(passes_kept(jax.device_get(fates)))
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


@jax.jit
def _of_trial(tree: PyTree, trial: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[trial], tree)


@functools.partial(jax.jit, donate_argnums=2)
def _chosen(fresh: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Returns the new entries of the trials that are fresh, and the old ones of the others."""
    return jax.tree.map(lambda a, b: jnp.where(beside(fresh, a), a, b), new, old)
