"""Runs the rounds of a deployment on its server: who works, what they receive, what is made of it.

All of it is the round program's: cohorts and keys, downlink and uplink, sums, robust rules, server
optimizers, records. Where the round program trains clients, the server asks for replies.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from fljax.core import transmission
from fljax.core.algorithm import Aggregate, Contribution, Variables
from fljax.core.precision import rounded, summable
from fljax.core.trees import all_finite
from fljax.core.wire_bytes import dense_from_bytes
from fljax.engine.plan.planner import Planner
from fljax.engine.plan.round_plan import HostPlan, PassPlan
from fljax.engine.program import keys
from fljax.engine.program.accumulators import Accumulators, Finished
from fljax.engine.program.aggregation import aggregate
from fljax.engine.program.arrivals import taken_in
from fljax.engine.program.inputs import RoundState
from fljax.engine.program.passes import Pass
from fljax.engine.program.selection import select, still_sound
from fljax.engine.program.trials import Built, Trials, trials_of
from fljax.export.flower.arrival import Received, stacked
from fljax.export.flower.deployment import Deployment, planner_of, precise
from fljax.export.flower.node import Task
from fljax.training.assembly import make_starter
from fljax.training.round_records import LinkSpeeds, round_record
from fljax.training.totals import RoundTotals

PyTree = Any
# (what is asked of clients, what they receive) -> {position in the cohort: what came back}
Ask = Callable[[Sequence[Task], PyTree], Mapping[int, Received]]


class Server(NamedTuple):
    """A machine that aggregates.

    Attributes:
      deployment: What it shares with the nodes.
      planner: Plans cohorts; of clients' rows it knows numbers alone.
      begins, ends: Of each pass, the compiled halves before and behind the clients' work.
      update: The compiled server step.
    """

    deployment: Deployment
    planner: Planner
    begins: tuple[Callable[..., Any], ...]
    ends: tuple[Callable[..., Any], ...]
    update: Callable[..., RoundState]


class Progress(NamedTuple):
    """The state that a server hands from one round to the next.

    Attributes:
      round: Completed rounds.
      state: Of the algorithm and of the transforms, leaves [1, ...].
      schedules: Of the sampler.
      totals: Of the record.
    """

    round: int
    state: RoundState
    schedules: Any
    totals: RoundTotals


class Chosen(NamedTuple):
    """Which jobs go on to the next pass, as in a `Pass`: all of them, where there is None."""

    selected: jax.Array | None = None
    sound: jax.Array | None = None
    scale: jax.Array | None = None


def make_server(deployment: Deployment) -> Server:
    """Returns what aggregates on this machine.

    Example:
      >>> from fljax.export.flower.deployment import deploy
      >>> config = {"clients_per_round": 5, "num_clients": 10, "partition": "iid"}
      >>> config |= {"dataset": "digits", "model": "softmax_regression"}
      >>> server = make_server(deploy(config))
      >>> variables(server, start(server))
      Variables(650 parameters in 2 arrays)
    """

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        same = PartitionSpec()
        return jax.jit(
            jax.shard_map(
                precise(deployment, function),
                mesh=deployment.mesh,
                in_specs=same,
                out_specs=same,
                check_vma=False,
            )
        )

    passes = range(len(deployment.algorithm.passes))
    return Server(
        deployment,
        planner_of(deployment, deployment.blueprint.cohorts.max_jobs, "device"),
        tuple(compiled(functools.partial(_begin, deployment, number)) for number in passes),
        tuple(compiled(functools.partial(_end, deployment, number)) for number in passes),
        compiled(functools.partial(_update, deployment)),
    )


def start(server: Server) -> Progress:
    """Returns where the first round starts."""
    deployment = server.deployment
    initial = deployment.blueprint.initial
    variables = jax.tree.map(lambda leaf: np.asarray(leaf)[None], deployment.variables)
    first = initial._replace(variables=variables, frozen=deployment.inputs.frozen)
    state = make_starter(deployment.blueprint, deployment.mesh)(first)
    return Progress(0, state, deployment.blueprint.cohorts.init(), RoundTotals())


def variables(server: Server, progress: Progress) -> Variables:
    """Returns the global model, of NumPy arrays."""
    own = jax.tree.map(lambda leaf: leaf[0], progress.state.server)
    return jax.device_get(server.deployment.algorithm.variables(own))


def run_round(server: Server, progress: Progress, ask: Ask) -> tuple[Progress, dict[str, Any]]:
    """Runs a round.

    Args:
      server: The machine.
      progress: Where the round begins.
      ask: Brings tasks to the clients, and what they send back, which `read_reply` has read. Who
        does not answer is lost.

    Returns:
      (where the next round begins, the record of this one, as a run of `fljax.simulate` has it).
    """
    begin = time.perf_counter()
    deployment, (round, state, schedules, totals) = server.deployment, progress
    drawn = deployment.blueprint.cohorts.draw(round, schedules)
    plan, facts = server.planner.plan(round, drawn.jobs, drawn.states)
    numbers = np.full(1, round, np.int32)
    aggregates: dict[str, Aggregate] = {}
    pipeline, chosen, all_stats, received = state.pipeline, Chosen(), [], None
    for number, whole in enumerate(plan.passes):
        of_pass = PassPlan(*[None] * 10, jobs=jax.tree.map(lambda leaf: leaf[0], whole.jobs))
        if deployment.algorithm.passes[number].broadcast is not None:
            now = state._replace(pipeline=pipeline)
            received = server.begins[number](deployment.inputs, now, aggregates, numbers)
        else:  # clients have the message of the pass before
            received = *received[:2], 0 * received[2]
        message, downlink, bits = received
        pipeline = pipeline._replace(downlink=downlink)
        tasks = _tasks(round, number, of_pass, chosen)
        replies = ask(tasks, jax.device_get(message))
        arrays = stacked(deployment, number, of_pass, tasks, replies)
        aggregates, pipeline, stats, chosen = server.ends[number](
            deployment.inputs, state._replace(pipeline=pipeline), aggregates, arrays, of_pass,
            plan.cohort_index, numbers, chosen, bits,
        )  # fmt: skip
        all_stats.append(stats)
    after = server.update(deployment.inputs, state._replace(pipeline=pipeline), aggregates, numbers)
    record = _record(facts, all_stats, totals, time.perf_counter() - begin)
    return Progress(round + 1, after, drawn.states, totals), record


def _tasks(round: int, number: int, plan: PassPlan, chosen: Chosen) -> list[Task]:
    """Returns what clients are asked for, in cohort order."""
    jobs = plan.jobs
    wanted = jobs.client >= 0
    for mask in (chosen.selected, chosen.sound):
        if mask is not None:
            wanted = wanted & np.asarray(mask)
    found = [
        Task(round, number, *map(int, (jobs.client[j], jobs.position[j], jobs.occurrence[j])))
        for j in np.flatnonzero(wanted)
    ]
    return sorted(found, key=lambda task: task.position)


def _record(facts: HostPlan, stats: Sequence[Any], totals: RoundTotals, seconds: float):
    of_passes = [jax.tree.map(lambda leaf: np.asarray(leaf)[None], each) for each in stats]
    return round_record(facts, of_passes, totals, seconds, LinkSpeeds())


def _trials(deployment: Deployment, inputs: Any, rounds: jax.Array) -> Trials:
    return trials_of(deployment.program, inputs, rounds, jnp.zeros_like(rounds))


def _begin(deployment: Deployment, number: int, inputs, state: RoundState, aggregates, rounds):
    """Makes what clients receive; returns (message, states of the downlink, bits[1])."""
    trials = _trials(deployment, inputs, rounds)
    of_pass = keys.of_pass(keys.of_round(inputs.keys, rounds), number)

    def one_trial(built: Built, server, aggregates, states, key):
        message = built.algorithm.passes[number].broadcast(server, aggregates)
        key = jax.random.fold_in(key, keys.DOWNLINK)
        return transmission.broadcast(built.pipeline, message, states, key)

    messages, states, bits = trials.each(
        one_trial, state.server, aggregates, state.pipeline.downlink, of_pass
    )
    return jax.tree.map(lambda leaf: leaf[0], messages), states, bits


def _end(
    deployment: Deployment,
    number: int,
    inputs,
    state: RoundState,
    aggregates: dict[str, Aggregate],
    received: Received,
    plan: PassPlan,
    cohort_index: jax.Array,
    rounds: jax.Array,
    chosen: Chosen,
    bits: jax.Array,
):
    """Decodes what arrived, adds it up, and runs the pipeline's server half.

    Returns:
      (aggregates with those of this pass, states of the pipeline, statistics, `Chosen` for the next
      pass).
    """
    trials = _trials(deployment, inputs, rounds)
    of_pass = keys.of_pass(keys.of_round(inputs.keys, rounds), number)
    a_pass = Pass(
        number, trials, plan, cohort_index, of_pass, chosen.selected, sound=chosen.sound,
        scale=chosen.scale,
    )  # fmt: skip
    states = state.pipeline
    uplink = trials.select(states.uplink, jnp.int32(0))
    pipeline = trials.first.pipeline

    def decoded(index, payloads, weights, clusters, stats, kept) -> Finished:
        values = transmission.decode(pipeline, payloads, uplink)
        sent = {
            name: Contribution(value, weights[name], clusters.get(name))
            for name, value in values.items()
        }
        sent = taken_in(a_pass, sent, index, None, None)
        # the client says so too, and a wrong number of one would be in the model of all
        sound = all_finite((sent, stats))
        for cluster in clusters.values():
            sound &= (cluster >= 0) & (cluster < a_pass.structure.num_clusters)
        broken = kept & ~sound
        stats = jax.tree.map(lambda value: jnp.where(broken, 0, value), stats) | {
            "nonfinite": stats["nonfinite"] | broken.astype(jnp.int32),
            "uplink_bits": stats["uplink_bits"],
        }
        return Finished(
            {
                name: summable(part.value, codes=pipeline.sums_payloads(name))
                for name, part in sent.items()
            },
            {name: summable(part.weight) for name, part in sent.items()},
            client_rows=(),
            stats=stats,
            kept=kept & sound,
            clusters=clusters,
        )

    indices = jnp.arange(plan.jobs.client.shape[0], dtype=jnp.int32)
    wave = jax.vmap(decoded)(indices, *received)
    accumulators = Accumulators(
        trial=plan.jobs.trial,
        num_trials=1,
        num_clusters=a_pass.structure.num_clusters,
        needs_stack=pipeline.needs_stack,
        has_own_weights=inputs.own.weights is not None,
        needs_arrivals=False,
        on_cpu=deployment.program.on_cpu,
    )
    one = jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], wave))
    trained = accumulators.add(accumulators.empty(one, ()), wave, indices)
    sums, states, stats = aggregate(a_pass, trained, state.server, states)
    selected, scale = select(a_pass, stats)
    sound = still_sound(a_pass, stats)
    stats = stats | {"downlink_bits": a_pass.received(bits)}
    return aggregates | sums, states, stats, Chosen(selected, sound, scale)


def _update(deployment: Deployment, inputs, state: RoundState, aggregates, rounds) -> RoundState:
    """Lets the server make its new state of what arrived."""
    trials = _trials(deployment, inputs, rounds)
    transmission.check_names_are_sent(trials.first.pipeline, aggregates)

    def one_trial(built: Built, round, server, aggregates):
        return built.algorithm.server_update(server, aggregates, round)

    server = trials.each(one_trial, rounds, state.server, aggregates)
    return rounded(state._replace(server=server), state)


def message_of(deployment: Deployment, number: int, parts: Sequence[bytes]) -> PyTree:
    """Returns a message of a pass that travelled as bytes.

    Args:
      deployment: The deployment.
      number: The pass.
      parts: Of `fljax.core.wire_bytes.dense_to_bytes`.
    """
    return dense_from_bytes(parts, deployment.shapes.messages[number])
