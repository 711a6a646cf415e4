"""The round program: broadcast, local training, uplink, aggregation and server update in one
jitted, donated XLA computation.

    broadcast ─► [lanes: local training] ─► uplink ─► aggregate ─► server links ─► server update

On each device the jobs of a pass run as three nested loops whose trip counts are data:

    for each wave:                      # until W jobs have finished
        for each exchange of the wave:     # a job starts on the lane that became free
            for each step until one ends:  # all lanes train side by side (the vmapped axis)
        finish and uplink the wave's jobs, add them to the accumulators

so `step` runs once per local step, and `start`, `finish` and the uplink once per job. Devices meet
in one `psum` of the accumulators; the server update is computed on every device alike. Tiny rounds
may share a dispatch: a scan over their plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fljax.core import transforms as links
from fljax.core.algorithm import Aggregate, Algorithm, ClientPass, Job
from fljax.core.precision import check_numbers, rounded, summable, widened
from fljax.core.transforms import (
    UPDATE,
    Pipeline,
    PipelineSpec,
    PipelineState,
    as_configured,
    pipeline_at,
)
from fljax.core.trees import all_finite, batched, put, take, zeros_like_shape
from fljax.engine.devices.compilation import cpu_options
from fljax.engine.devices.execution import AXIS
from fljax.engine.devices.placement import host_readable
from fljax.engine.plan.packed_plan import PackedPlan, unpack
from fljax.engine.plan.round_plan import JobArrays, PassPlan
from fljax.engine.program.accumulators import Finished, Trained, accumulate, empty
from fljax.engine.program.collection import DOWNLINK, UPLINK, collect
from fljax.engine.program.layout import Work, as_given, transposed_weights

PyTree = Any


class RoundState(NamedTuple):
    """What a round hands to the next one; leaves have a leading axis over trials."""

    server: PyTree
    pipeline: PipelineState


class ClientRows(NamedTuple):
    """Persistent state of the cohort's clients, [D, J, ...]; empty tuples where nothing is kept."""

    algorithm: PyTree
    uplink: PyTree


class OwnNumbers(NamedTuple):
    """Numbers of each client's own, [N]; None where all are treated alike.

    Attributes:
      weights: Weights in averages, `Job.weight`.
      lr_factors: What the hyperparameter client_lr is multiplied by in a client's passes.
    """

    weights: jax.Array | None = None
    lr_factors: jax.Array | None = None


class Inputs(NamedTuple):
    """What stays the same from round to round.

    Attributes:
      data: {name: array} training examples on the devices, or None where plans stage them.
      frozen: Constants of the model.
      hparams: {name: number[S]} one entry a trial.
      keys: PRNG keys [S].
      own: What clients have of their own.
    """

    data: Any
    frozen: PyTree
    hparams: Mapping[str, jax.Array]
    keys: jax.Array
    own: OwnNumbers


# (frozen, hparams, round) -> Algorithm; called inside the trace.
Build = Callable[[PyTree, Mapping[str, jax.Array], jax.Array], Algorithm]


def make_round_program(
    build: Build, pipeline: Pipeline | PipelineSpec, mesh: Mesh, num_trials: int = 1
):
    """Makes the compiled round.

    Args:
      build: (frozen, hparams, round) -> Algorithm with its task bound.
      pipeline: Transforms between clients and server; of a `PipelineSpec`, traced numbers among
        the hyperparameters.
      mesh: One-dimensional mesh; jobs are sharded over it.
      num_trials: Messages (trials, clusters, versions) that the jobs of a round refer to.

    Returns:
      A jitted function (RoundState, ClientRows, PackedPlan, Inputs) -> (RoundState, ClientRows,
      stats). State and client rows are donated. `stats` is one dict a pass of per-job arrays
      [D, J], zero for jobs that were not accepted. Nothing is kept of a job whose contributions or
      statistics are not finite; "nonfinite" counts it.
    """
    one_device = _on_one_device(build, pipeline, mesh, num_trials)
    return _jitted(one_device, mesh, PartitionSpec(AXIS))


def make_rounds_program(
    build: Build, pipeline: Pipeline | PipelineSpec, mesh: Mesh, num_trials: int = 1
):
    """Makes the compiled program of several rounds in a row: a scan over their plans.

    For algorithms and pipelines without client rows, which are gathered and scattered between
    rounds, outside the program.

    Args:
      build, pipeline, mesh, num_trials: As for `make_round_program`.

    Returns:
      A jitted function like that of `make_round_program`; its plan and `stats` have a leading axis
      over rounds.
    """
    one_device = _on_one_device(build, pipeline, mesh, num_trials)

    def rounds(state, client_rows, plans, inputs):
        def one_round(state, plan):
            state, (_, stats) = one_device(state, client_rows, plan, inputs)
            return state, stats

        state, stats = jax.lax.scan(one_round, state, plans)
        return state, (client_rows, stats)

    return _jitted(rounds, mesh, PartitionSpec(None, AXIS))


def _on_one_device(build: Build, pipeline: Pipeline | PipelineSpec, mesh: Mesh, num_trials: int):
    """Returns the round as one device runs it, on its shards of client rows and plan."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    lay_out = transposed_weights if on_cpu else as_given

    def one_device(state, client_rows, packed: PackedPlan, inputs: Inputs):
        rows, plan = jax.tree.map(lambda leaf: leaf[0], client_rows), unpack(packed)
        data = inputs.data if plan.staged is None else plan.staged
        state, rows, stats = _round(
            build, pipeline, lay_out, num_trials, state, rows, plan, data, inputs
        )
        return state, jax.tree.map(lambda leaf: leaf[None], (rows, stats))

    return one_device


def _jitted(one_device, mesh: Mesh, per_job: PartitionSpec):
    """Returns the program of all devices, whose axis of plan and stats `per_job` names."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    client_rows, same = PartitionSpec(AXIS), PartitionSpec()

    def sharded(*args):
        state, (rows, stats) = jax.shard_map(
            one_device,
            mesh=mesh,
            in_specs=(same, client_rows, per_job, same),
            out_specs=(same, (client_rows, per_job)),
            check_vma=False,
        )(*args)
        return state, rows, stats

    return jax.jit(
        sharded,
        donate_argnums=(0, 1),
        out_shardings=(None, None, host_readable(mesh)),
        compiler_options=cpu_options() if on_cpu else None,
    )


def _round(build, pipeline, lay_out, num_trials, state, client_rows, plan, data, inputs):
    """One round on one device; returns (state, client rows, stats of each pass)."""

    def each_trial(function):
        return batched(function, num_trials)

    round_keys = jax.vmap(jax.random.fold_in)(inputs.keys, plan.round)
    chains = state.pipeline
    aggregates: dict[str, Aggregate] = {}
    all_stats = []
    for number, pass_plan in enumerate(plan.passes):
        # no random number is drawn twice: a pass has its own keys
        keys = jax.vmap(jax.random.fold_in, (0, None))(round_keys, number)

        def the_pass(hparams, round, number=number) -> ClientPass:
            return build(inputs.frozen, hparams, round).passes[number]

        def broadcast(hparams, round, server, aggregates, states, key, number=number):
            message = the_pass(hparams, round, number).broadcast(server, aggregates)
            chain = pipeline_at(pipeline, hparams)
            return links.broadcast(chain, message, states, jax.random.fold_in(key, DOWNLINK))

        messages, downlink_states, downlink_bits = each_trial(broadcast)(
            inputs.hparams, plan.round, state.server, aggregates, chains.downlink, keys
        )
        chains = chains._replace(downlink=downlink_states)
        jobs = _Jobs(pass_plan.jobs, plan.round, keys, inputs.own)
        trained = _run_pass(
            the_pass, pipeline, lay_out, num_trials, inputs.hparams, messages, chains.uplink,
            client_rows, pass_plan, jobs, data,
        )  # fmt: skip
        stats = trained.stats | {
            "downlink_bits": jnp.where(
                jobs.columns.client >= 0, downlink_bits[jobs.columns.trial], 0
            )
        }
        client_rows = trained.client_rows
        sums, chains = collect(
            pipeline, inputs.hparams, each_trial, trained, chains, plan, jobs.columns, keys
        )
        aggregates = aggregates | sums
        all_stats.append(stats)

    def server_update(hparams, round, server, aggregates):
        algorithm = build(inputs.frozen, hparams, round)
        return algorithm.server_update(server, aggregates, round)

    server = each_trial(server_update)(inputs.hparams, plan.round, state.server, aggregates)
    # exactly the types that came in, or the next round would be another program
    new_state = rounded(RoundState(server, chains), state)
    return new_state, client_rows, tuple(all_stats)


class _Jobs(NamedTuple):
    """The jobs of one device; round numbers and keys have one entry a trial."""

    columns: JobArrays
    rounds: jax.Array
    round_keys: jax.Array
    own: OwnNumbers

    def view(self, index: jax.Array, step: jax.Array | int = 0) -> Job:
        """Returns the job as an algorithm sees it, at step `step` of its lane."""
        one = jax.tree.map(lambda column: column[index], self.columns)
        key = jax.random.fold_in(self.round_keys[one.trial], one.client)
        return Job(
            client=one.client,
            position=one.position,
            trial=one.trial,
            segment=one.segment,
            rows=one.rows,
            steps=one.steps,
            step=step - one.start,
            round=self.rounds[one.trial],
            occurrence=one.occurrence,
            accepted=one.accepted,
            group=one.group,
            staleness=one.staleness,
            tier=one.tier,
            key=jax.random.fold_in(key, one.occurrence),
            weight=None if self.own.weights is None else self.own.weights[one.client],
        )

    def hparams_of(self, job: Job, hparams: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
        """Returns hyperparameters with the client's own learning rate."""
        if self.own.lr_factors is None:
            return hparams
        return {**hparams, "client_lr": hparams["client_lr"] * self.own.lr_factors[job.client]}


class _Lane(NamedTuple):
    """What a lane carries: its job, the job's message (see `_run_pass`), its training."""

    job: jax.Array
    message: PyTree
    carry: PyTree


def _run_pass(
    the_pass, pipeline, lay_out, num_trials, hparams, messages, uplink_states, client_rows,
    plan: PassPlan, jobs: _Jobs, data,
) -> Trained:  # fmt: skip
    """Trains all jobs of one pass on this device: the three nested loops."""
    num_lanes, exchange_size = plan.rows.shape[1], plan.exchange_lane.shape[1]
    wave, num_jobs = plan.wave_jobs.shape[1], plan.jobs.client.shape[0]
    configured = as_configured(pipeline)
    needs_stack, sums_payloads = configured.needs_stack, configured.sums_payloads
    several = num_trials > 1
    # lanes side by side would gather their messages in every step; a single one reads its own
    # where it is, and copies nothing
    carries_message = several and num_lanes > 1
    # one job at a time is finished on its lane
    alone = num_lanes == wave == 1

    def of_trial(tree, trial):
        return jax.tree.map(lambda leaf: leaf[trial if several else 0], tree)

    def pipeline_of(trial) -> Pipeline:
        return pipeline_at(pipeline, of_trial(hparams, trial))

    def pass_of(job: Job) -> ClientPass:
        return the_pass(jobs.hparams_of(job, of_trial(hparams, job.trial)), job.round)

    def start(message, index, rows: ClientRows):
        job = jobs.view(index)
        return pass_of(job).start(message, rows.algorithm, job)

    def step(message, carry, index, rows, count, time):
        job = jobs.view(index, time)
        batch = {name: values[rows] for name, values in data.items()}
        batch["mask"] = jnp.arange(rows.shape[0]) < count
        return pass_of(job).step(message, carry, batch, job)

    def finish(message, carry, index, rows: ClientRows) -> Finished:
        job = jobs.view(index)
        contributions, client_state, stats = pass_of(job).finish(message, carry, job)
        for name, one in contributions.items():
            check_numbers(one._asdict(), name)
        states = of_trial(uplink_states, job.trial)
        # before the uplink too: rounding to integers would hide what is not a number
        sound = all_finite((contributions, stats))
        contributions, uplink, bits = _uplink(
            pipeline_of(job.trial), contributions, rows.uplink, states, job
        )
        sound &= all_finite(contributions)
        stats = stats | {"jobs": jnp.int32(1)}
        stats = jax.tree.map(lambda value: jnp.where(sound & job.accepted, value, 0), stats)
        stats |= {
            "nonfinite": (~sound).astype(jnp.int32),
            "lost": (~job.accepted).astype(jnp.int32),
            "uplink_bits": jnp.where(job.accepted, bits, 0),
        }
        return Finished(
            values={
                name: summable(one.value, codes=name == UPDATE and sums_payloads)
                for name, one in contributions.items()
            },
            weights={name: summable(one.weight) for name, one in contributions.items()},
            client_rows=ClientRows(client_state, uplink),
            stats=stats,
            kept=sound & job.accepted,
        )

    def row_of(client_rows, index):
        return jax.tree.map(lambda leaf: leaf[index], client_rows)

    one_message, one_row = jax.eval_shape(lambda: (of_trial(messages, 0), row_of(client_rows, 0)))
    first = (jnp.int32(0), plan.rows[0, 0], plan.counts[0, 0], jnp.int32(0))
    work = Work(start, step, finish)
    layout = lay_out(work, one_message, one_row, first, not needs_stack)
    messages, work = layout.pack(messages), layout.work

    def message_of(lane: _Lane):
        if carries_message:
            return lane.message
        return of_trial(messages, jobs.columns.trial[lane.job])

    def begin_job(index, client_rows) -> _Lane:
        message = of_trial(messages, jobs.columns.trial[index])
        carry = work.start(message, index, row_of(client_rows, index))
        return _Lane(jnp.int32(index), message if carries_message else (), carry)

    def train_lane(lane: _Lane, rows, count, time) -> _Lane:
        carry = work.step(message_of(lane), lane.carry, lane.job, rows, count, time)
        return lane._replace(carry=carry)

    def train(lanes, begin, end):
        if num_lanes > 1:
            train_lanes = jax.vmap(train_lane, (0, 0, 0, None))
            body = lambda t, lanes: train_lanes(lanes, plan.rows[t], plan.counts[t], t)  # noqa: E731
            return jax.lax.fori_loop(begin, end, body, lanes)
        # an axis of one lane inside the loop would cost a copy of the model in every step
        body = lambda t, lane: train_lane(lane, plan.rows[t, 0], plan.counts[t, 0], t)  # noqa: E731
        lane = jax.lax.fori_loop(begin, end, body, jax.tree.map(lambda leaf: leaf[0], lanes))
        return jax.tree.map(lambda leaf: leaf[None], lane)

    def exchange(number, state, client_rows):
        time, lanes, finished = state
        # the jobs that follow those of the exchange before start here: behind the training, lanes
        # would be written after they were read, and XLA would copy all of them
        which, following = plan.exchange_lane[number - 1], plan.exchange_next[number - 1]
        # a lane without a next job starts some job that nobody will finish
        begin = batched(begin_job, exchange_size, (0, None))
        fresh = begin(jnp.minimum(following, num_jobs - 1), client_rows)
        lanes = train(put(lanes, which, fresh), time, plan.exchange_time[number])
        if not alone:
            ended = take(lanes, plan.exchange_lane[number])
            finished = put(finished, plan.exchange_slot[number], ended)
        return plan.exchange_time[number], lanes, finished

    def finish_job(lane: _Lane, index, client_rows) -> Finished:
        return work.finish(message_of(lane), lane.carry, index, row_of(client_rows, index))

    def one_wave(number, state):
        time, lanes, finished, trained = state
        # the first exchange has nothing but jobs to start
        begin = jnp.where(number == 0, 1, plan.wave_end[number - 1])
        # a job's row is read before it is written, so it may be written where it was read
        client_rows = trained.client_rows
        time, lanes, finished = jax.lax.fori_loop(
            begin,
            plan.wave_end[number],
            lambda number, state: exchange(number, state, client_rows),
            (time, lanes, finished),
        )
        indices = plan.wave_jobs[number]
        finish_jobs = batched(finish_job, wave, (0, 0, None))
        done = finish_jobs(
            lanes if alone else finished, jnp.minimum(indices, num_jobs - 1), client_rows
        )
        trained = accumulate(
            trained, done, indices, jobs.columns, num_trials, needs_stack,
            weights_may_vanish=jobs.own.weights is not None,
        )  # fmt: skip
        return time, lanes, finished, trained

    lane = jax.eval_shape(begin_job, jnp.int32(0), client_rows)
    lanes = zeros_like_shape(lane, num_lanes)
    finished = () if alone else zeros_like_shape(lane, wave)
    job = jax.eval_shape(finish_job, lane, jnp.int32(0), client_rows)
    trained = empty(job, client_rows, num_jobs, num_trials, needs_stack)
    state = (jnp.int32(0), lanes, finished, trained)
    trained = jax.lax.fori_loop(0, plan.num_waves, one_wave, state)[-1]
    return trained._replace(sums=layout.unpack(trained.sums))


def _uplink(pipeline, contributions, client_state, server_states, job: Job):
    """Sends the update through the uplink; returns (contributions, client state, bits)."""
    values = {name: one.value for name, one in contributions.items()}
    links.dense_bits(values)  # all of them together must be countable
    bits = links.dense_bits({name: value for name, value in values.items() if name != UPDATE})
    if UPDATE not in contributions:
        return contributions, client_state, bits
    update = contributions[UPDATE]
    key = jax.random.fold_in(job.key, UPLINK)
    value = widened(update.value)
    payload, client_state, sent = links.encode(pipeline, value, client_state, job, key)
    value = links.decode(pipeline, payload, server_states, summed=False)
    return contributions | {UPDATE: update._replace(value=value)}, client_state, bits + sent
