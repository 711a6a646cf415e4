"""Where the devices meet: sums, the stacked cohort, and the server half of the pipeline."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.core import transforms as links
from fljax.core.algorithm import Aggregate
from fljax.core.transforms import UPDATE, Cohort, Pipeline, as_configured, pipeline_at
from fljax.engine.devices.execution import AXIS
from fljax.engine.plan.round_plan import JobArrays
from fljax.engine.program.accumulators import Trained

# Streams of random keys besides a job's local steps, which count from 0.
UPLINK, DOWNLINK, COHORT, SERVER = (0x7FFFFFF0 + number for number in range(4))


def collect(
    pipeline, hparams, each_trial, trained: Trained, chains, plan, jobs: JobArrays, round_keys
):
    """Meets the other devices; returns ({name: Aggregate}, chain states')."""
    sums = jax.lax.psum(trained.sums, AXIS)
    if UPDATE not in sums:
        return sums, chains
    needs_stack = as_configured(pipeline).needs_stack
    if needs_stack:
        table = jax.tree.map(_gather, (trained.weights, jobs.client, jobs.segment))
        stack = _transpose(trained.stack)

        def reduce(hparams, trial, round, total, states, key):
            chain, key = pipeline_at(pipeline, hparams), jax.random.fold_in(key, COHORT)
            index = plan.cohort_index
            return _reduce_stack(chain, stack, table, trial, round, index, total, states, key)

        trials = jnp.arange(round_keys.shape[0], dtype=jnp.int32)
        sums[UPDATE], cohort, aggregator = each_trial(reduce)(
            hparams,
            trials,
            plan.round,
            sums[UPDATE],
            (chains.cohort, chains.aggregator),
            round_keys,
        )
        chains = chains._replace(cohort=cohort, aggregator=aggregator)

    def absorb(hparams, round, aggregate, chains, key):
        chain = pipeline_at(pipeline, hparams)
        decoded = links.decode(chain, aggregate.sum, chains.uplink, summed=True)
        aggregate, uplink = links.absorb(chain, aggregate._replace(sum=decoded), chains.uplink)
        aggregator = chains.aggregator
        if not needs_stack:
            aggregate, aggregator = chain.aggregator.apply(aggregate, aggregator)
        aggregate, server = links.apply_server(
            chain, aggregate, chains.server, round, jax.random.fold_in(key, SERVER)
        )
        return aggregate, chains._replace(uplink=uplink, aggregator=aggregator, server=server)

    sums[UPDATE], chains = each_trial(absorb)(hparams, plan.round, sums[UPDATE], chains, round_keys)
    return sums, chains


def _reduce_stack(
    chain: Pipeline, stack, table, trial, round, cohort_index, total: Aggregate, states, key
):
    """Runs cohort links and the aggregator on one trial's updates, sharded over parameters."""
    cohort_states, aggregator_state = states
    _, unravel = ravel_pytree(total.sum)
    # rows into cohort order, so that nothing depends on the layout of lanes and devices
    weights, clients, segments = (_pick(column, cohort_index) for column in table)
    valid = (weights > 0) & (segments == trial)
    weights = jnp.where(valid, weights, 0)
    clients = jnp.where(valid, clients, -1)
    cohort = Cohort(weights, valid, clients, round, AXIS)
    matrix = jnp.where(valid[:, None], _pick(stack, cohort_index), 0)
    new_states = []
    for number, (link, state) in enumerate(zip(chain.cohort, cohort_states, strict=True)):
        matrix, state = link.apply(matrix, cohort, state, jax.random.fold_in(key, number))
        new_states.append(state)
    if chain.aggregator.needs == "stack":
        vector, aggregator_state = chain.aggregator.apply(matrix, cohort, aggregator_state)
        vector = jnp.where(valid.any(), vector, 0)
        weight = jax.tree.map(jnp.ones_like, total.weight)
    else:
        vector, weight = (matrix * weights[:, None]).sum(0), total.weight
    flat = jax.lax.all_gather(vector, AXIS, tiled=True)
    flat = flat[: sum(leaf.size for leaf in jax.tree.leaves(total.sum))]
    aggregate = Aggregate(unravel(flat), weight, total.count)
    if chain.aggregator.needs == "sum":
        aggregate, aggregator_state = chain.aggregator.apply(aggregate, aggregator_state)
    return aggregate, tuple(new_states), aggregator_state


def _pick(column: jax.Array, index: jax.Array) -> jax.Array:
    """Returns rows in cohort order; positions without a job read zero."""
    return column.at[index].get(mode="fill", fill_value=0)


def _gather(column: jax.Array) -> jax.Array:
    return jax.lax.all_gather(column, AXIS, tiled=True)


def _transpose(stack: jax.Array) -> jax.Array:
    """Turns this device's updates [J, P] into all updates of its parameters [D x J, P / D]."""
    devices = jax.lax.psum(1, AXIS)
    padded = jnp.pad(stack, ((0, 0), (0, -stack.shape[1] % devices)))
    return jax.lax.all_to_all(padded, AXIS, split_axis=1, concat_axis=0, tiled=True)
