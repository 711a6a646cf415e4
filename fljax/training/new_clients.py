"""Lets clients that never trained take part once, alone, before their own models are judged.

A new client starts from the newest model as a client of a round would, trains on its rows with the
run's local work, and sends nothing: what it would have kept is its state, of which `personalize`
makes its model. An algorithm of several passes sees the client as a cohort of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fljax.core.algorithm import (
    Aggregate,
    Algorithm,
    ClientPass,
    Contribution,
    Job,
    blank_job,
)
from fljax.core.precision import summable
from fljax.core.trees import beside
from fljax.engine.devices.execution import AXIS
from fljax.engine.plan.batching import make_batches, steps_per_job, works_of
from fljax.engine.program.inputs import Build, OwnNumbers
from fljax.engine.program.keys import NEW_CLIENT
from fljax.training.evaluation import EvalInputs, batch_of
from fljax.training.local_work import local_work
from fljax.training.options import RoundOptions

PyTree = Any


class PassWork(NamedTuple):
    """The local work of new clients in one pass: K clients of a device, T steps, batches of B rows.

    Attributes:
      positions: int32[D, K, T, B] positions inside the client's rows.
      counts: int32[D, K, T] real rows of each batch.
      steps: int32[D, K] steps of each client.
    """

    positions: np.ndarray
    counts: np.ndarray
    steps: np.ndarray


def planned(
    sizes: np.ndarray,
    clients: np.ndarray,
    schedules: Sequence[str | int],
    options: RoundOptions,
    seed: int,
) -> tuple[PassWork, ...]:
    """Plans the local work of new clients, the same at every evaluation.

    Args:
      sizes: int64[D, K] training rows of each.
      clients: int64[D, K] their numbers, which key the order of their rows.
      schedules: Of the algorithm's passes.
      options: Of the run; of numbers that training clients have of their own the median counts.
      seed: Of the order of rows.
    """
    typical = {
        name: int(np.median(getattr(options, name)))
        for name in ("local_epochs", "local_steps", "batch_size")
        if np.ndim(getattr(options, name))
    }
    flat = sizes.reshape(-1)
    work = local_work(flat, dataclasses.replace(options, **typical))
    return tuple(
        _pass_work(flat, clients.reshape(-1), each, seed, sizes.shape)
        for each in works_of(work, schedules)
    )


def _pass_work(sizes, clients, work, seed: int, shape: tuple[int, ...]) -> PassWork:
    steps = steps_per_job(sizes, work)
    some = np.flatnonzero(steps)
    zeros = np.zeros(len(some), np.int64)
    batches = make_batches(
        sizes[some], steps[some], work,
        seeds=zeros + seed, rounds=zeros, clients=clients[some], occurrence=zeros,
    )  # fmt: skip
    positions = np.zeros((len(sizes), max(steps.max(), 1), batches.positions.shape[1]), np.int32)
    counts = np.zeros(positions.shape[:2], np.int32)
    place = some[batches.job], batches.step
    positions[place], counts[place] = batches.positions, batches.counts
    return PassWork(*(a.reshape(*shape, *a.shape[1:]) for a in (positions, counts, steps)))


def make_states(build: Build, mesh: Mesh, own: OwnNumbers) -> Callable[..., PyTree]:
    """Makes the compiled participation of new clients.

    Args:
      build: (frozen, hparams, round) -> the algorithm.
      mesh: The devices, which share the clients.
      own: Numbers of training clients' own; new ones weigh 1, and have the median batch size.

    Returns:
      A jitted function (server_states, hparams, keys, trial, default_states, round, frozen, rows,
      clients, works) -> client states, leaves [D x K, ...]. States, hparams and keys have an axis
      over trials, `rows` are [D, K, R] training rows, `clients` int32[D, K] their numbers.
    """

    weight = None if own.weights is None else jnp.ones((), own.weights.dtype)
    batch_size = None if own.batch_sizes is None else jnp.median(own.batch_sizes)

    def one_device(server, hparams, default, key, round, frozen, rows: EvalInputs, clients, works):
        algorithm = build(frozen, hparams, round)

        def state_of(each):
            (count, numbers, staged), client, works = each
            job = blank_job(jax.random.fold_in(key, client), weight)
            job = job._replace(client=client, rows=count, round=round)
            batch = batch_of(count, numbers, staged, rows.data)
            return take_part(algorithm, server, default, batch, works, job, batch_size)

        mine = jax.tree.map(lambda leaf: leaf[0], (rows[:2] + (rows.staged,), clients, works))
        return jax.lax.map(state_of, mine)

    each, same = PartitionSpec(AXIS), PartitionSpec()
    sharded = jax.shard_map(
        one_device,
        mesh=mesh,
        in_specs=(*[same] * 6, EvalInputs(each, each, same, each), each, each),
        out_specs=each,
        check_vma=False,
    )

    def states(servers, hparams, keys, trial, defaults, round, frozen, rows, clients, works):
        server, hparams, key, default = jax.tree.map(
            lambda leaf: leaf[trial], (servers, hparams, keys, defaults)
        )
        key = jax.random.fold_in(jax.random.fold_in(key, round), NEW_CLIENT)
        round = jnp.asarray(round, jnp.int32)
        return sharded(server, hparams, default, key, round, frozen, rows, clients, works)

    return jax.jit(states)


def take_part(
    algorithm: Algorithm,
    server: PyTree,
    state: PyTree,
    rows: dict[str, Any],
    works: Sequence[PassWork],
    job: Job,
    batch_size: jax.Array | None = None,
) -> PyTree:
    """Returns the state of a client after it took part alone; as it was where it has no batch.

    Args:
      algorithm: The algorithm.
      server: Its server's state.
      state: The client's.
      rows: All rows of the client in one batch, "mask" among them.
      works: Its local work in each pass, leaves [T, B], [T] and scalars.
      job: Its job, but for steps.
      batch_size: Rows of a batch on average, where batches are drawn, as in `OwnNumbers`.
    """
    examples = {name: leaf for name, leaf in rows.items() if name != "mask"}

    def passed(each: ClientPass, message, state, own: Job, work: PassWork):
        """Returns (contributions, state) of the client after a pass."""

        def step(time, carry):
            places, count = work.positions[time], work.counts[time]
            batch = jax.tree.map(lambda leaf: leaf[places], examples)
            batch["mask"] = jnp.arange(places.shape[0]) < count
            if batch_size is not None:
                batch["size"] = jnp.minimum(batch_size, own.rows.astype(batch_size.dtype))
            after = each.step(message, carry, batch, own._replace(step=time))
            return jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)

        # strongly typed, as what a loop carries must be
        carry = jax.tree.map(_strong, each.start(message, state, own))
        carry = jax.lax.fori_loop(jnp.int32(0), own.steps, step, carry)
        sent, state, _ = each.finish(message, carry, own)
        return sent, jax.tree.map(_strong, state)

    def trained(state):
        aggregates: dict[str, Aggregate] = {}
        for number, (each, work) in enumerate(zip(algorithm.passes, works, strict=True)):
            if each.broadcast is not None:
                message = each.broadcast(server, aggregates)
            own = job._replace(
                steps=work.steps.astype(jnp.int32), key=jax.random.fold_in(job.key, number)
            )
            sent, state = passed(each, message, state, own, work)
            if each.repeats is not None:

                def once_more(state, each=each, message=message, own=own, work=work):
                    return passed(each, message, state, own, work)[1]

                state = jax.lax.while_loop(each.repeats, once_more, state)
            aggregates |= {name: _alone(part, each.num_clusters) for name, part in sent.items()}
        return state

    works_everywhere = jnp.all(jnp.stack([work.steps > 0 for work in works]))
    state = jax.tree.map(_strong, state)
    return jax.lax.cond(works_everywhere, trained, lambda state: state, state)


def _strong(leaf):
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _alone(part: Contribution, num_clusters: int) -> Aggregate:
    """Returns the sums of a cohort of one client."""
    value, weight = summable(part.value), summable(part.weight)
    weighted = jax.tree.map(
        lambda w, v: jax.tree.map(lambda leaf: leaf * beside(w, leaf).astype(leaf.dtype), v),
        weight,
        value,
    )
    alone = Aggregate(weighted, weight, jnp.float32(1))
    if part.cluster is None:
        return alone

    def in_its_cluster(leaf):
        return jnp.zeros((num_clusters, *leaf.shape), leaf.dtype).at[part.cluster].set(leaf)

    return jax.tree.map(in_its_cluster, alone)
