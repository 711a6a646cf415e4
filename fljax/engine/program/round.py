"""The round program: broadcast, local training, uplink, aggregation and server update in one
jitted, donated XLA computation.

    broadcast ─► [lanes: local training] ─► uplink ─► aggregate ─► server links ─► server update

On each device three nested loops (`loops.py`) run the jobs of a pass, of which each does the work
of one client (`client.py`). Devices meet in one `psum` of the accumulators (`aggregation.py`); the
server update is computed on every device alike. Tiny rounds may share a dispatch: a scan over their
plans.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fljax.core import transmission
from fljax.core.algorithm import Aggregate, check_passes
from fljax.core.precision import rounded
from fljax.core.transforms import Pipeline, PipelineSpec, PipelineState
from fljax.engine.devices.compilation import cpu_options, gpu_options
from fljax.engine.devices.execution import AXIS, Forms
from fljax.engine.devices.placement import host_readable
from fljax.engine.plan.packed_plan import PackedPlan, unpack
from fljax.engine.program import keys
from fljax.engine.program.accumulators import Accumulators, Trained
from fljax.engine.program.aggregation import aggregate
from fljax.engine.program.agreement import agreed, attackers
from fljax.engine.program.carried_casts import carried_casts
from fljax.engine.program.client import client_work
from fljax.engine.program.fused_updates import fused_updates
from fljax.engine.program.inputs import Build, ClientRows, Inputs, Program, RoundState
from fljax.engine.program.layout import transposed_weights
from fljax.engine.program.loops import run_jobs
from fljax.engine.program.passes import Pass
from fljax.engine.program.repeats import repeated, resting
from fljax.engine.program.selection import select, still_sound
from fljax.engine.program.trials import Built, Trials, trials_of
from fljax.engine.program.versions import newest, recalled
from fljax_kernels.forms import choosing

PyTree = Any


def make_round_program(
    build: Build,
    pipeline: Pipeline | PipelineSpec,
    mesh: Mesh,
    num_trials: int = 1,
    num_versions: int = 1,
    forms: Forms = Forms(),  # noqa: B008, it is immutable
    rebased: bool = False,
):
    """Makes the compiled round.

    Args:
      build: (frozen, hparams, round) -> Algorithm with its task bound.
      pipeline: Transforms between clients and server; of a `PipelineSpec`, traced numbers among
        the hyperparameters.
      mesh: One-dimensional mesh; jobs are sharded over it.
      num_trials: Trials that the jobs of a round belong to.
      num_versions: Versions of a trial's model that jobs may start from, the newest one included;
        with more than one the state has a ring of past messages (`versions.empty_ring`).
      forms: The forms in which operations are computed.
      rebased: Whether the server counts updates from the newest model (`arrivals.py`).

    Returns:
      A jitted function (RoundState, ClientRows, PackedPlan, Inputs) -> (RoundState, ClientRows,
      stats). State and client rows are donated. `stats` is one dict a pass of per-job arrays
      [D, J], zero for jobs that were not accepted. Nothing is kept of a job whose contributions,
      statistics or state are not finite, nor of what it does in later passes; "nonfinite" counts it
      in all of these, unless it is "lost".
    """
    program = Program(build, pipeline, mesh, num_trials, num_versions, forms, rebased)

    def one_round(state, client_rows, plan, inputs):
        return _on_one_device(program, state, client_rows, plan, inputs)

    return _compiled(one_round, program, PartitionSpec(AXIS))


def make_rounds_program(
    build: Build,
    pipeline: Pipeline | PipelineSpec,
    mesh: Mesh,
    num_trials: int = 1,
    num_versions: int = 1,
    forms: Forms = Forms(),  # noqa: B008, it is immutable
    rebased: bool = False,
):
    """Makes the compiled program of several rounds in a row: a scan over their plans.

    For algorithms and pipelines without client rows, which are gathered and scattered between
    rounds, outside the program.

    Args:
      build, ..., rebased: As for `make_round_program`.

    Returns:
      A jitted function like that of `make_round_program`; its plan and `stats` have a leading axis
      over rounds.
    """
    program = Program(build, pipeline, mesh, num_trials, num_versions, forms, rebased)

    def several_rounds(state, client_rows, plans, inputs):
        def one_round(state, plan):
            state, (_, stats) = _on_one_device(program, state, client_rows, plan, inputs)
            return state, stats

        state, stats = jax.lax.scan(one_round, state, plans)
        return state, (client_rows, stats)

    return _compiled(several_rounds, program, PartitionSpec(None, AXIS))


def _round(program: Program, state: RoundState, client_rows: ClientRows, plan, data, inputs):
    """Runs one round on one device; returns (state, client rows, stats of each pass)."""
    trials = trials_of(program, inputs, plan.round, plan.newest)
    round_keys = keys.of_round(inputs.keys, plan.round)
    states, past, aggregates, all_stats = state.pipeline, state.past, {}, []
    selected = sound = scale = None
    check_passes(trials.first.algorithm)
    received: tuple = ()
    for number, schedule in enumerate(plan.passes):
        pass_keys = keys.of_pass(round_keys, number)
        a_pass = Pass(number, trials, schedule, plan.cohort_index, pass_keys, selected)
        a_pass = a_pass._replace(sound=sound, scale=scale)
        received, states, past = _broadcast(
            a_pass, received, state.server, aggregates, states, past
        )
        messages, start_from, bits = received
        a_pass = a_pass._replace(agreed=agreed(a_pass), attackers=attackers(a_pass))
        train = functools.partial(_train, data, states.uplink, messages, start_from)
        trained = repeated(a_pass, train, client_rows)
        sums, states, stats = aggregate(a_pass, trained, state.server, states)
        client_rows, aggregates = trained.client_rows, aggregates | sums
        (selected, scale), sound = select(a_pass, stats), still_sound(a_pass, stats)
        all_stats.append(stats | {"downlink_bits": a_pass.received(bits)})
    transmission.check_names_are_sent(trials.first.pipeline, aggregates)
    server = _update(trials, state.server, aggregates)
    # exactly the types that came in, or the next round would be another program
    return rounded(RoundState(server, states, past), state), client_rows, tuple(all_stats)


def _broadcast(
    a_pass: Pass,
    before: tuple,
    server: PyTree,
    aggregates: dict[str, Aggregate],
    states: PipelineState,
    past: PyTree,
):
    """Makes what the clients of a pass receive.

    Args:
      a_pass: The pass.
      before: What they received in the pass before, as here; empty in the first.
      server: Leaves [S, ...].
      aggregates: Of the passes before.
      states: The pipeline's.
      past: The ring of past messages.

    Returns:
      ((messages [M, ...], int32[J] the message of each job, uint32[S] bits of a message), the
      pipeline's new states, the new ring).
    """
    if a_pass.structure.broadcast is None:
        messages, start_from, bits = before
        return (messages, start_from, jnp.zeros_like(bits)), states, past

    def one_trial(built: Built, server, aggregates, states, key):
        message = built.algorithm.passes[a_pass.number].broadcast(server, aggregates)
        key = jax.random.fold_in(key, keys.DOWNLINK)
        return transmission.broadcast(built.pipeline, message, states, key)

    messages, downlink, bits = a_pass.trials.each(
        one_trial, server, aggregates, states.downlink, a_pass.keys
    )
    past, messages, start_from = recalled(a_pass, past, messages)
    return (messages, start_from, bits), states._replace(downlink=downlink), past


def _train(
    data: dict[str, jax.Array],
    uplink_states: tuple,
    messages: PyTree,
    start_from: jax.Array,
    a_pass: Pass,
    client_rows: ClientRows,
) -> Trained:
    """Lets the clients of a pass train and send.

    Args:
      data: {name: array} rows that batches are made of.
      uplink_states: Server-side states of the uplink, leaves [S, ...].
      messages: Leaves [M, ...].
      start_from: int32[J] the message of each job.
      a_pass: The pass.
      client_rows: What clients keep, leaves [J, ...].
    """
    trials, plan = a_pass.trials, a_pass.plan
    work = client_work(a_pass, data, uplink_states, newest(a_pass, messages))
    needs_stack = trials.first.pipeline.needs_stack
    accumulators = Accumulators(
        trial=plan.jobs.trial,
        num_trials=trials.program.num_trials,
        num_clusters=a_pass.structure.num_clusters,
        needs_stack=needs_stack,
        has_own_weights=trials.inputs.own.weights is not None,
        needs_arrivals=trials.first.pipeline.agrees,
        on_cpu=trials.program.on_cpu,
    )
    lay_out = transposed_weights if trials.program.on_cpu else carried_casts
    message, row = jax.eval_shape(
        lambda: jax.tree.map(lambda leaf: leaf[0], (messages, client_rows))
    )
    first = jnp.int32(0), plan.rows[0, 0], plan.counts[0, 0], jnp.int32(0)
    layout = lay_out(work, message, row, first, not needs_stack)
    if trials.program.forms.fused_updates and not trials.program.on_cpu:
        layout = layout._replace(work=fused_updates(layout.work, message, row, first))
    work = resting(layout.work, a_pass)
    trained = run_jobs(work, layout.pack(messages), start_from, plan, client_rows, accumulators)
    return trained._replace(sums=layout.unpack(trained.sums))


def _update(trials: Trials, server: PyTree, aggregates: dict[str, Aggregate]) -> PyTree:
    """Lets each trial's server make its new state of what arrived."""

    def one_trial(built: Built, round, server, aggregates):
        return built.algorithm.server_update(server, aggregates, round)

    return trials.each(one_trial, trials.rounds, server, aggregates)


def _on_one_device(program: Program, state, client_rows, packed: PackedPlan, inputs: Inputs):
    """Runs a round on one device's shards of client rows and plan, [1, ...]."""
    rows, plan = jax.tree.map(lambda leaf: leaf[0], client_rows), unpack(packed)
    data = inputs.data if plan.staged is None else plan.staged
    state, rows, stats = _round(program, state, rows, plan, data, inputs)
    return state, jax.tree.map(lambda leaf: leaf[None], (rows, stats))


def _compiled(one_device, program: Program, per_job: PartitionSpec):
    """Returns the program of all devices, whose axis of plan and stats `per_job` names."""
    client_rows, same = PartitionSpec(AXIS), PartitionSpec()
    device = program.mesh.devices.flat[0]

    def sharded(*args):
        with choosing(conv=program.forms.conv, lstm=program.forms.lstm):
            state, (rows, stats) = jax.shard_map(
                one_device,
                mesh=program.mesh,
                in_specs=(same, client_rows, per_job, same),
                out_specs=(same, (client_rows, per_job)),
                check_vma=False,
            )(*args)
        return state, rows, stats

    return jax.jit(
        sharded,
        donate_argnums=(0, 1),
        out_shardings=(None, None, host_readable(program.mesh)),
        compiler_options=cpu_options() if program.on_cpu else gpu_options(device),
    )
