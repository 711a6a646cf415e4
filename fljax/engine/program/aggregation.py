"""Aggregation: sums over devices, the stacked cohort, and the pipeline's server half."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.core import transmission
from fljax.core.algorithm import Aggregate
from fljax.core.transforms import UPDATE, Cohort, Pipeline, PipelineState
from fljax.engine.devices.execution import AXIS
from fljax.engine.program import drift
from fljax.engine.program.accumulators import Trained
from fljax.engine.program.agreement import by_trial
from fljax.engine.program.client import with_reports
from fljax.engine.program.cohort_order import gathered, in_cohort_order
from fljax.engine.program.keys import AGGREGATOR, COHORT, RELEASE, SERVER
from fljax.engine.program.passes import Pass
from fljax.engine.program.trials import Built

PyTree = Any


def aggregate(
    a_pass: Pass, trained: Trained, servers: PyTree, states: PipelineState
) -> tuple[dict[str, Aggregate], PipelineState, dict[str, jax.Array]]:
    """Adds up what all devices have, and runs the server half of the pipeline on the update.

    Args:
      a_pass: The pass.
      trained: What the jobs of this device left.
      servers: States of the algorithm's servers, leaves [S, ...].
      states: Server-side states of the pipeline, leaves [S, ...].

    Returns:
      ({name: Aggregate} with leaves [S, ...], the pipeline's new states, {name: [J]} statistics,
      what is told of the mean update among them; where links agree on something, "refused" counts
      jobs that arrived in a sum that is refused).
    """
    trials, stats = a_pass.trials, trained.stats
    needs_stack = trials.first.pipeline.needs_stack
    _check_shows_updates(trials.first.pipeline)
    sums = jax.lax.psum(trained.sums, AXIS)
    _check_serves_clusters(trials.first.pipeline, states, sums, a_pass.structure.sums_of)
    clustered = UPDATE in sums and _is_clustered(sums[UPDATE])
    plain, reported = None, {}
    if needs_stack and UPDATE in sums:
        if trials.first.pipeline.leaves_alone(UPDATE):
            plain = sums[UPDATE]  # what arrived, whatever a rule makes of all updates
        sums[UPDATE], states, reported = _reduce(a_pass, trained, sums[UPDATE], states)

    arrived = None if a_pass.agreed is None else by_trial(a_pass, trained.arrived)

    def one_trial(built: Built, round, sums, plain, owner, states, key, agreed, arrived):
        chain, aggregator, server = built.pipeline, states.aggregator, states.server
        sums, uplink = transmission.absorb(chain, sums, states.uplink, agreed, arrived)
        mean = {}
        if UPDATE in sums:
            members = built.algorithm.passes[a_pass.number].members
            total = sums[UPDATE] if plain is None else plain
            mean = drift.of_mean(total if members is None else total.of_members(members(owner)))
        refused = () if arrived is None else _is_refused(sums, arrived)
        if any(link.release for link in chain.uplink):
            own = jax.random.fold_in(key, RELEASE)
            sums, uplink = transmission.release(chain, sums, uplink, round, own)
        if UPDATE in sums:
            key = jax.random.fold_in(key, SERVER)
            serve = functools.partial(_serve, chain, needs_stack, round)
            if clustered:
                clusters = jnp.arange(sums[UPDATE].count.size)
                key = jax.vmap(jax.random.fold_in, (None, 0))(key, clusters)
                serve = jax.vmap(serve, (0, None, 0))
            sums[UPDATE], (aggregator, server) = serve(sums[UPDATE], (aggregator, server), key)
        states = states._replace(uplink=uplink, aggregator=aggregator, server=server)
        return sums, states, refused, mean

    sums, states, refused, mean = trials.each(
        one_trial, trials.rounds, sums, plain, servers, states, a_pass.keys, a_pass.agreed, arrived
    )
    if arrived is not None:
        stats = stats | {"refused": trained.arrived & refused[a_pass.jobs.trial]}
    stats = stats | {name: values[a_pass.jobs.trial] for name, values in mean.items()}
    return sums, states, with_reports(stats, _by_job(a_pass, reported))


def _by_job(a_pass: Pass, reported: dict[str, tuple]) -> dict[str, tuple]:
    """Returns what an aggregator reports of positions [S, P], for the jobs of this device [J]."""
    jobs = a_pass.jobs
    return jax.tree.map(
        lambda table: jnp.where(jobs.client >= 0, table[jobs.trial, jobs.position], 0), reported
    )


def _is_refused(sums: dict[str, Aggregate], arrived: jax.Array) -> jax.Array:
    """Returns whether links have refused a sum that messages have arrived in."""
    counts = jnp.stack([total.count.max() for total in sums.values()] or [jnp.ones(())])
    return arrived.any() & (counts.min() == 0)


def _serve(chain: Pipeline, reduced: bool, round, total: Aggregate, states: tuple, key):
    """Runs the aggregator, unless all updates are reduced already, and the server links."""
    aggregator, server = states
    if not reduced:
        total, aggregator = chain.aggregator.apply(total, aggregator)
    total, server = transmission.apply_server(chain, total, server, round, key)
    return total, (aggregator, server)


def _check_shows_updates(chain: Pipeline) -> None:
    """Refuses transforms that hold single updates where only sums, or changes, can be decoded."""
    if chain.needs_stack and chain.shows_changes(UPDATE):
        raise ValueError(
            "An uplink link decodes how updates differ from what clients remember, but the "
            "pipeline has a cohort link or an aggregator that holds every client's update. Use an "
            "aggregator with needs='sum' and no cohort link, or leave the uplink link out."
        )
    for number, link in enumerate(chain.uplink):
        if chain.needs_stack and link.decode_sum is not None and link.meets([UPDATE]):
            raise ValueError(
                f"Uplink link {number} sums payloads, and decodes nothing but sums, but the "
                "pipeline has a cohort link or an aggregator that holds every client's update. Use "
                "an aggregator with needs='sum' and no cohort link, or leave the uplink link out."
            )


def _is_clustered(total: Aggregate) -> bool:
    return total.count.ndim > 1


def _check_serves_clusters(
    chain: Pipeline, states: PipelineState, sums: dict[str, Aggregate], sums_of: str
) -> None:
    """Refuses transforms that are made for one value a trial where there are clusters."""
    remedy = "one cluster" if sums_of == "cluster" else "an algorithm with one sum, such as fedavg"
    kept = jax.tree.leaves((states.uplink, states.aggregator, states.server))
    for name, total in sums.items():
        one_update = name == UPDATE and (chain.needs_stack or kept or any(chain.decodes_sums))
        if _is_clustered(total) and (one_update or chain.sums_payloads(name)):
            raise ValueError(
                f"{name!r} goes to the sums of several {sums_of}s, but the pipeline holds all of "
                "them, decodes their sum, or keeps a state on the server for one a trial. "
                f"Use transforms without these, or {remedy}."
            )


def _reduce(a_pass: Pass, trained: Trained, total: Aggregate, states: PipelineState):
    """Makes one update of all that are held.

    Returns:
      (Aggregate [S, ...], states', {name: ([S, P], [S, P])} what the aggregator reports).
    """
    trials, jobs = a_pass.trials, a_pass.jobs
    table = jax.tree.map(gathered, (trained.weights, jobs.client, jobs.trial))
    stack = _transpose(trained.stack)

    def one_trial(built: Built, trial, round, hostile, total, states, key):
        index = a_pass.cohort_index
        # rows into cohort order, so that nothing depends on the layout of lanes and devices
        weights, clients, trials = (in_cohort_order(column, index) for column in table)
        valid = (weights > 0) & (trials == trial)
        weights, clients = jnp.where(valid, weights, 0), jnp.where(valid, clients, -1)
        if hostile is not None:
            hostile &= valid
        size = sum(leaf.size for leaf in jax.tree.leaves(total.sum))
        cohort = Cohort(weights, valid, clients, round, AXIS, hostile, num_params=size)
        matrix = jnp.where(valid[:, None], in_cohort_order(stack, index), 0)
        return _reduce_stack(built.pipeline, matrix, cohort, total, states, key)

    numbers = jnp.arange(len(trials.rounds), dtype=jnp.int32)
    of_cohort = states.cohort, states.aggregator
    total, cohort, aggregator, reported = trials.each(
        one_trial, numbers, trials.rounds, a_pass.attackers, total, of_cohort, a_pass.keys
    )
    return total, states._replace(cohort=cohort, aggregator=aggregator), reported


def _reduce_stack(
    chain: Pipeline, matrix: jax.Array, cohort: Cohort, total: Aggregate, states: tuple, key
):
    """Runs cohort links and the aggregator on one trial's updates, sharded over parameters."""
    cohort_states, aggregator_state = states
    _, unravel = ravel_pytree(total.sum)
    new_states, own = [], jax.random.fold_in(key, COHORT)
    for number, (link, state) in enumerate(zip(chain.cohort, cohort_states, strict=True)):
        matrix, state = link.apply(matrix, cohort, state, jax.random.fold_in(own, number))
        new_states.append(state)
    reported: dict[str, tuple] = {}
    if chain.aggregator.needs == "stack":
        cohort = cohort._replace(key=jax.random.fold_in(key, AGGREGATOR))
        vector, aggregator_state, *more = chain.aggregator.apply(matrix, cohort, aggregator_state)
        reported = more[0] if more else {}
        vector = jnp.where(cohort.valid.any(), vector, 0)
        weight = jax.tree.map(jnp.ones_like, total.weight)
    else:
        # a product, since XLA's sum over rows takes thirty times as long on CPUs
        vector = jnp.matmul(cohort.weights, matrix, precision=jax.lax.Precision.HIGHEST)
        weight = total.weight
    flat = jax.lax.all_gather(vector, AXIS, tiled=True)
    aggregate = Aggregate(unravel(flat[: cohort.num_params]), weight, total.count)
    if chain.aggregator.needs == "sum":
        aggregate, aggregator_state = chain.aggregator.apply(aggregate, aggregator_state)
    return aggregate, tuple(new_states), aggregator_state, reported


def _transpose(stack: jax.Array) -> jax.Array:
    """Turns this device's updates [J, P] into all updates of its parameters [D x J, P / D]."""
    devices = jax.lax.psum(1, AXIS)
    padded = jnp.pad(stack, ((0, 0), (0, -stack.shape[1] % devices)))
    return jax.lax.all_to_all(padded, AXIS, split_axis=1, concat_axis=0, tiled=True)
