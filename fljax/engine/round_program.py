"""The round program: broadcast, local training, uplink, aggregation and server update in one
jitted, donated XLA computation.

    broadcast ─► [lanes: local training] ─► uplink ─► aggregate ─► server links ─► server update

On each device the jobs of a pass run as three nested loops whose trip counts are data:

    for each wave:                      # until W jobs have finished
        for each event of the wave:     # a job ends, the next one starts on its lane
            for each step until then:   # all lanes train side by side (the vmapped axis)
        finish and uplink the wave's jobs, add them to the accumulators

so `step` runs once per local step, and `start`, `finish` and the uplink once per job. Devices meet
in one `psum` of the accumulators; the server update is computed on every device alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from fljax.algorithm import Aggregate, Algorithm, ClientPass, Job
from fljax.engine import pipeline as links
from fljax.engine.execution import AXIS
from fljax.engine.pipeline import UPDATE, Cohort, Pipeline, PipelineState
from fljax.engine.plan import JobArrays, PassPlan, RoundPlan

PyTree = Any

# Streams of random keys besides a job's local steps, which count from 0.
_UPLINK, _DOWNLINK, _COHORT, _SERVER = (0x7FFFFFF0 + number for number in range(4))


class RoundState(NamedTuple):
    """What a round hands to the next one; leaves have a leading axis over sources."""

    server: PyTree
    pipeline: PipelineState


class ClientRows(NamedTuple):
    """Persistent state of the cohort's clients, [D, J, ...]; empty tuples where nothing is kept."""

    algorithm: PyTree
    uplink: PyTree


class Inputs(NamedTuple):
    """What stays the same from round to round.

    Attributes:
      data: {name: array} training examples on the devices, or None where plans stage them.
      frozen: Constants of the model.
      hparams: {name: number[S]} one entry a source.
      keys: PRNG keys [S].
    """

    data: Any
    frozen: PyTree
    hparams: Mapping[str, jax.Array]
    keys: jax.Array


# (frozen, hparams, round) -> Algorithm; called inside the trace.
Build = Callable[[PyTree, Mapping[str, jax.Array], jax.Array], Algorithm]


def make_round_program(build: Build, pipeline: Pipeline, mesh: Mesh, num_sources: int = 1):
    """Makes the compiled round.

    Args:
      build: (frozen, hparams, round) -> Algorithm with its task bound.
      pipeline: Transforms between clients and server.
      mesh: One-dimensional mesh; jobs are sharded over it.
      num_sources: Messages (trials, clusters, versions) that the jobs of a round refer to.

    Returns:
      A jitted function (RoundState, ClientRows, RoundPlan, Inputs) -> (RoundState, ClientRows,
      stats). State and client rows are donated. `stats` is one dict a pass of per-job arrays
      [D, J], zero for jobs that were not accepted. Nothing is kept of a job whose contributions or
      statistics are not finite; "nonfinite" counts it.
    """

    def one_device(state, client_rows, plan: RoundPlan, inputs: Inputs):
        device = jax.tree.map(lambda leaf: leaf[0], (client_rows, plan.passes, plan.staged))
        rows, passes, staged = device
        data = inputs.data if staged is None else staged
        state, rows, stats = _round(
            build, pipeline, num_sources, state, rows, passes, plan, data, inputs
        )
        return state, jax.tree.map(lambda leaf: leaf[None], (rows, stats))

    def sharded(state, client_rows, plan, inputs):
        per_job, same = PartitionSpec(AXIS), PartitionSpec()
        plan_spec = RoundPlan(same, per_job, same, per_job)
        state, (rows, stats) = jax.shard_map(
            one_device,
            mesh=mesh,
            in_specs=(same, per_job, plan_spec, same),
            out_specs=(same, per_job),
            check_vma=False,
        )(state, client_rows, plan, inputs)
        return state, rows, stats

    return jax.jit(sharded, donate_argnums=(0, 1))


def _round(build, pipeline, num_sources, state, client_rows, passes, plan, data, inputs):
    """One round on one device; returns (state, client rows, stats of each pass)."""

    def each_source(function):
        return batched(function, num_sources)

    round_keys = jax.vmap(jax.random.fold_in, (0, None))(inputs.keys, plan.round)
    chains = state.pipeline
    aggregates: dict[str, Aggregate] = {}
    all_stats = []
    for number, pass_plan in enumerate(passes):
        # no random number is drawn twice: a pass has its own keys
        keys = jax.vmap(jax.random.fold_in, (0, None))(round_keys, number)

        def the_pass(hparams, number=number) -> ClientPass:
            return build(inputs.frozen, hparams, plan.round).passes[number]

        def broadcast(hparams, server, aggregates, states, key, number=number):
            message = the_pass(hparams, number).broadcast(server, aggregates)
            return links.broadcast(pipeline, message, states, jax.random.fold_in(key, _DOWNLINK))

        messages, downlink_states, downlink_bits = each_source(broadcast)(
            inputs.hparams, state.server, aggregates, chains.downlink, keys
        )
        chains = chains._replace(downlink=downlink_states)
        jobs = _Jobs(pass_plan.jobs, plan.round, keys)
        trained = _run_pass(
            the_pass, pipeline, num_sources, inputs.hparams, messages, chains.uplink, client_rows,
            pass_plan, jobs, data,
        )  # fmt: skip
        stats = trained.stats | {
            "downlink_bits": jnp.where(
                jobs.columns.client >= 0, downlink_bits[jobs.columns.source], 0
            )
        }
        client_rows = trained.client_rows
        sums, chains = _collect(pipeline, each_source, trained, chains, plan, jobs, keys)
        aggregates = aggregates | sums
        all_stats.append(stats)

    def server_update(hparams, server, aggregates):
        algorithm = build(inputs.frozen, hparams, plan.round)
        return algorithm.server_update(server, aggregates, plan.round)

    server = each_source(server_update)(inputs.hparams, state.server, aggregates)
    return RoundState(server, chains), client_rows, tuple(all_stats)


class _Jobs(NamedTuple):
    """The jobs of one device and their keys."""

    columns: JobArrays
    round: jax.Array
    round_keys: jax.Array

    def view(self, index: jax.Array, step: jax.Array | int = 0) -> Job:
        """Returns the job as an algorithm sees it, at step `step` of its lane."""
        one = jax.tree.map(lambda column: column[index], self.columns)
        key = jax.random.fold_in(self.round_keys[one.source], one.client)
        return Job(
            client=one.client,
            position=one.position,
            source=one.source,
            segment=one.segment,
            rows=one.rows,
            steps=one.steps,
            step=step - one.start,
            round=self.round,
            occurrence=one.occurrence,
            accepted=one.accepted,
            group=one.group,
            staleness=one.staleness,
            tier=one.tier,
            key=jax.random.fold_in(key, one.occurrence),
        )


class _Lane(NamedTuple):
    """What a lane carries: its job, the job's message where there are several, its training."""

    job: jax.Array
    message: PyTree
    carry: PyTree


class _Trained(NamedTuple):
    """What the jobs of a pass leave behind on one device."""

    sums: dict[str, Aggregate]
    stack: jax.Array
    weights: jax.Array
    client_rows: ClientRows
    stats: dict[str, jax.Array]


def _run_pass(
    the_pass, pipeline, num_sources, hparams, messages, uplink_states, client_rows, plan: PassPlan,
    jobs: _Jobs, data,
) -> _Trained:  # fmt: skip
    """Trains all jobs of one pass on this device: the three nested loops."""
    num_lanes, harvest = plan.rows.shape[1], plan.event_lane.shape[1]
    wave, num_jobs = plan.wave_jobs.shape[1], plan.jobs.client.shape[0]
    several = num_sources > 1

    def of_source(tree, job: Job):
        return jax.tree.map(lambda leaf: leaf[job.source if several else 0], tree)

    def message_of(lane_message, job):
        return lane_message if several else of_source(messages, job)

    def start(index) -> _Lane:
        job = jobs.view(index)
        message = of_source(messages, job)
        client_state = jax.tree.map(lambda leaf: leaf[index], client_rows.algorithm)
        carry = the_pass(of_source(hparams, job)).start(message, client_state, job)
        return _Lane(jnp.int32(index), message if several else (), carry)

    def step(lane: _Lane, rows, count, time) -> _Lane:
        job = jobs.view(lane.job, time)
        batch = {name: values[rows] for name, values in data.items()}
        batch["mask"] = jnp.arange(rows.shape[0]) < count
        message = message_of(lane.message, job)
        carry = the_pass(of_source(hparams, job)).step(message, lane.carry, batch, job)
        return lane._replace(carry=carry)

    def all_lanes(time, lanes):
        step_lanes = batched(step, num_lanes, (0, 0, 0, None))
        return step_lanes(lanes, plan.rows[time], plan.counts[time], time)

    def exchange(event, state):
        time, lanes, finished = state
        lanes = jax.lax.fori_loop(time, plan.event_time[event], all_lanes, lanes)
        which, slots, following = (
            column[event] for column in (plan.event_lane, plan.event_slot, plan.event_next)
        )
        finished = put(finished, slots, take(lanes, which))
        # a lane without a next job starts some job that nobody will harvest
        fresh = batched(start, harvest)(jnp.minimum(following, num_jobs - 1))
        lanes = put(lanes, which, fresh)
        return plan.event_time[event], lanes, finished

    def finish(lane: _Lane, index):
        job = jobs.view(index)
        message = message_of(lane.message, job)
        contributions, client_state, stats = the_pass(of_source(hparams, job)).finish(
            message, lane.carry, job
        )
        uplink = jax.tree.map(lambda leaf: leaf[index], client_rows.uplink)
        states = of_source(uplink_states, job)
        # before the uplink too: rounding to integers would hide what is not a number
        sound = _all_finite((contributions, stats))
        contributions, uplink, bits = _uplink(pipeline, contributions, uplink, states, job)
        sound &= _all_finite(contributions)
        stats = stats | {"jobs": jnp.int32(1)}
        stats = jax.tree.map(lambda value: jnp.where(sound & job.accepted, value, 0), stats)
        stats |= {
            "nonfinite": (~sound).astype(jnp.int32),
            "lost": (~job.accepted).astype(jnp.int32),
            "uplink_bits": jnp.where(job.accepted, bits, 0),
        }
        return contributions, ClientRows(client_state, uplink), stats, sound & job.accepted

    def one_wave(number, state):
        time, lanes, finished, trained = state
        begin = jnp.where(number == 0, 0, plan.wave_end[number - 1])
        time, lanes, finished = jax.lax.fori_loop(
            begin, plan.wave_end[number], exchange, (time, lanes, finished)
        )
        indices = plan.wave_jobs[number]
        results = batched(finish, wave)(finished, jnp.minimum(indices, num_jobs - 1))
        trained = _accumulate(trained, results, indices, jobs, num_sources, pipeline)
        return time, lanes, finished, trained

    lane = jax.eval_shape(start, jnp.int32(0))
    lanes, finished = (zeros_like_shape(lane, count) for count in (num_lanes, wave))
    result = jax.eval_shape(finish, lane, jnp.int32(0))
    trained = _empty(result, client_rows, num_jobs, num_sources, pipeline)
    state = (jnp.int32(0), lanes, finished, trained)
    return jax.lax.fori_loop(0, plan.num_waves, one_wave, state)[-1]


def _uplink(pipeline, contributions, client_state, server_states, job: Job):
    """Sends the update through the uplink; returns (contributions, client state, bits)."""
    bits = links.dense_bits({k: c.value for k, c in contributions.items() if k != UPDATE})
    if UPDATE not in contributions:
        return contributions, client_state, bits
    update = contributions[UPDATE]
    key = jax.random.fold_in(job.key, _UPLINK)
    payload, client_state, sent = links.encode(pipeline, update.value, client_state, job, key)
    value = links.decode(pipeline, payload, server_states, summed=False)
    return contributions | {UPDATE: update._replace(value=value)}, client_state, bits + sent


def _empty(result, client_rows, num_jobs, num_sources, pipeline) -> _Trained:
    """Returns zeroed accumulators for the results of `finish`."""
    contributions, _, stats, _ = result
    sums = {
        name: Aggregate(
            zeros_like_shape(value, num_sources),
            zeros_like_shape(weight, num_sources),
            jnp.zeros(num_sources, jnp.float32),
        )
        for name, (value, weight) in contributions.items()
    }
    stack = weights = jnp.zeros((num_jobs, 0))
    if pipeline.needs_stack and UPDATE in contributions:
        weight = jax.tree.leaves(contributions[UPDATE].weight)
        if len(weight) != 1 or weight[0].shape:
            raise ValueError(
                f"The update of a client has {len(weight)} weights of shapes "
                f"{[leaf.shape for leaf in weight]} (a sub-model), but an aggregator or cohort link "
                "that holds all updates needs one number. Use an aggregator with needs='sum' and "
                "no cohort link."
            )
        flat = jax.eval_shape(lambda tree: ravel_pytree(tree)[0], contributions[UPDATE].value)
        stack = jnp.zeros((num_jobs, *flat.shape), flat.dtype)
        weights = jnp.zeros(num_jobs, flat.dtype)
    stats = {name: jnp.zeros((num_jobs, *s.shape), s.dtype) for name, s in stats.items()}
    return _Trained(sums, stack, weights, client_rows, stats)


def _accumulate(trained: _Trained, results, indices, jobs: _Jobs, num_sources, pipeline):
    """Adds the finished jobs of one wave to the accumulators."""
    contributions, rows, stats, sound = results
    num_jobs = jobs.columns.client.shape[0]
    kept = sound & (indices < num_jobs)
    segment = jobs.columns.segment[jnp.minimum(indices, num_jobs - 1)]
    # a rejected job may hold NaN, which a weight of zero would not remove
    keep = lambda leaf: jnp.where(_like(kept, leaf), leaf, 0)  # noqa: E731

    def total(values):
        values = keep(values)
        if num_sources == 1:
            return values.sum(0, keepdims=True)
        return jax.ops.segment_sum(values, segment, num_sources)

    sums = dict(trained.sums)
    stack, weights = trained.stack, trained.weights
    for name, (value, weight) in contributions.items():
        old = sums[name]
        if name == UPDATE and pipeline.needs_stack:
            flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(jax.tree.map(keep, value))
            stack = stack.at[indices].set(flat, mode="drop")
            weights = weights.at[indices].set(keep(weight).astype(weights.dtype), mode="drop")
        weighted = jax.tree.map(
            lambda w, v: jax.tree.map(lambda x: x * _like(w, x).astype(x.dtype), v), weight, value
        )
        sums[name] = Aggregate(
            jax.tree.map(lambda a, v: a + total(v), old.sum, weighted),
            jax.tree.map(lambda a, w: a + total(w), old.weight, weight),
            old.count + total(jnp.ones_like(sound, jnp.float32)),
        )
    where = jnp.where(kept, indices, num_jobs)
    client_rows = jax.tree.map(
        lambda old, new: old.at[where].set(new, mode="drop"), trained.client_rows, rows
    )
    stats = {
        name: old.at[indices].set(stats[name], mode="drop") for name, old in trained.stats.items()
    }
    return _Trained(sums, stack, weights, client_rows, stats)


def _collect(pipeline, each_source, trained, chains, plan, jobs: _Jobs, round_keys):
    """Meets the other devices; returns ({name: Aggregate}, chain states')."""
    sums = jax.lax.psum(trained.sums, AXIS)
    if UPDATE not in sums:
        return sums, chains
    key_of = lambda key, stream: jax.random.fold_in(key, stream)  # noqa: E731
    if pipeline.needs_stack:
        table = jax.tree.map(_gather, (trained.weights, jobs.columns.client, jobs.columns.segment))
        stack = _transpose(trained.stack)

        def reduce(source, total, states, key):
            return _reduce_stack(
                pipeline, stack, table, source, total, plan, states, key_of(key, _COHORT)
            )

        sources = jnp.arange(round_keys.shape[0], dtype=jnp.int32)
        sums[UPDATE], cohort, aggregator = each_source(reduce)(
            sources, sums[UPDATE], (chains.cohort, chains.aggregator), round_keys
        )
        chains = chains._replace(cohort=cohort, aggregator=aggregator)

    def absorb(aggregate, chains, key):
        decoded = links.decode(pipeline, aggregate.sum, chains.uplink, summed=True)
        aggregate, uplink = links.absorb(pipeline, aggregate._replace(sum=decoded), chains.uplink)
        aggregator = chains.aggregator
        if not pipeline.needs_stack:
            aggregate, aggregator = pipeline.aggregator.apply(aggregate, aggregator)
        aggregate, server = links.apply_server(
            pipeline, aggregate, chains.server, plan.round, key_of(key, _SERVER)
        )
        return aggregate, chains._replace(uplink=uplink, aggregator=aggregator, server=server)

    sums[UPDATE], chains = each_source(absorb)(sums[UPDATE], chains, round_keys)
    return sums, chains


def _reduce_stack(pipeline, stack, table, source, total: Aggregate, plan, states, key):
    """Runs cohort links and the aggregator on one source's updates, sharded over parameters."""
    cohort_states, aggregator_state = states
    _, unravel = ravel_pytree(total.sum)
    # rows into cohort order, so that nothing depends on the layout of lanes and devices
    weights, clients, segments = (_pick(column, plan.cohort_index) for column in table)
    valid = (weights > 0) & (segments == source)
    weights = jnp.where(valid, weights, 0)
    clients = jnp.where(valid, clients, -1)
    cohort = Cohort(weights, valid, clients, plan.round, AXIS)
    matrix = jnp.where(valid[:, None], _pick(stack, plan.cohort_index), 0)
    new_states = []
    for number, (link, state) in enumerate(zip(pipeline.cohort, cohort_states, strict=True)):
        matrix, state = link.apply(matrix, cohort, state, jax.random.fold_in(key, number))
        new_states.append(state)
    if pipeline.aggregator.needs == "stack":
        vector, aggregator_state = pipeline.aggregator.apply(matrix, cohort, aggregator_state)
        vector = jnp.where(valid.any(), vector, 0)
        weight = jax.tree.map(jnp.ones_like, total.weight)
    else:
        vector, weight = (matrix * weights[:, None]).sum(0), total.weight
    flat = jax.lax.all_gather(vector, AXIS, tiled=True)
    flat = flat[: sum(leaf.size for leaf in jax.tree.leaves(total.sum))]
    aggregate = Aggregate(unravel(flat), weight, total.count)
    if pipeline.aggregator.needs == "sum":
        aggregate, aggregator_state = pipeline.aggregator.apply(aggregate, aggregator_state)
    return aggregate, tuple(new_states), aggregator_state


def batched(function: Callable, size: int, in_axes: Any = 0) -> Callable:
    """Returns vmap(function), without a batch axis inside where its size is 1.

    A batch axis of one would turn every matrix product into a batched one.
    """
    if size > 1:
        return jax.vmap(function, in_axes)

    def single(*args):
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
        args = [
            arg if axis is None else jax.tree.map(lambda leaf: leaf[0], arg)
            for arg, axis in zip(args, axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], function(*args))

    return single


def take(tree: PyTree, indices: jax.Array) -> PyTree:
    """Returns rows of every leaf; indices[n] beyond the end read the last row."""
    if indices.shape[0] == 1:
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, indices[0], 1, axis=0), tree
        )
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def put(tree: PyTree, indices: jax.Array, rows: PyTree) -> PyTree:
    """Writes rows into every leaf; indices[n] beyond the end are dropped.

    A single row beyond the end goes to the last place instead of nowhere, because an in-place slice
    update is much cheaper than a scatter. Only the events that open a round have such a row, and
    the first wave overwrites that place or leaves it unread.
    """
    if indices.shape[0] == 1:
        return jax.tree.map(
            lambda leaf, row: jax.lax.dynamic_update_slice_in_dim(leaf, row, indices[0], axis=0),
            tree,
            rows,
        )
    return jax.tree.map(lambda leaf, row: leaf.at[indices].set(row, mode="drop"), tree, rows)


def zeros_like_shape(tree: PyTree, size: int) -> PyTree:
    """Returns zeros like the shapes of a tree, with a leading axis of `size`."""
    return jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), tree)


def _all_finite(tree: PyTree) -> jax.Array:
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack([jnp.array(True), *finite]).all()


def _like(column: jax.Array, leaf: jax.Array) -> jax.Array:
    """Returns column[n] with trailing axes, to broadcast against leaf[n, ...]."""
    return column.reshape(column.shape + (1,) * (leaf.ndim - column.ndim))


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
