"""A server of several models, of which each client trains one: the base of clustered algorithms.

A round has two passes. In the first, clients find the loss of every model on all of their rows, and
choose; in the second, each trains the model that it chose, which averages its clients alone. A
model that nobody chose stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import zero_of
from fljax.core.algorithm import (
    Aggregate,
    Algorithm,
    ClientPass,
    Contribution,
    Job,
    Variables,
    step_key,
)
from fljax.core.clusterings import membership
from fljax.core.gradients import LocalTask

PyTree = Any


class ClusterState(NamedTuple):
    """The servers of K models, leaves [K, ...]; how much weight trained each; what else is known.

    The weight is that of the last round that anybody took part in.
    """

    servers: PyTree
    weight: jax.Array
    known: PyTree


class Message(NamedTuple):
    """K models, leaves [K, ...], and what else the server tells clients."""

    models: Variables
    known: PyTree


class LossSums(NamedTuple):
    """Losses of K models, summed over rows, and how much they weigh."""

    losses: jax.Array
    weight: jax.Array


# (message, mean losses [K], job) -> (cluster, further contributions)
Pick = Callable[[Message, jax.Array, Job], tuple[jax.Array, dict[str, Contribution]]]


def by_lowest_loss(message: Message, losses: jax.Array, job: Job):
    """Picks the model with the lowest loss; of equal ones the first."""
    return jnp.argmin(losses), {}


def clustered(
    task: LocalTask,
    algorithm: Algorithm,
    num_models: int,
    *,
    pick: Pick = by_lowest_loss,
    known: PyTree = (),
    learn: Callable[[PyTree, dict[str, Aggregate], jax.Array], PyTree] = lambda known, *_: known,
    allowed: Callable[[PyTree], jax.Array] = lambda known: True,
    divisor: Callable[[jax.Array], jax.Array] = lambda weight: weight,
    num_reported: int | None = None,
) -> Algorithm:
    """Returns an algorithm of one model as one of several, between which clients choose.

    Its client state is the cluster that a client chose last, -1 before it took part. Its global
    model is that of the cluster with the most weight: the best guess for somebody of whom nothing
    is known.

    Args:
      task: The bound task.
      algorithm: Of one model and one pass, such as FedAvg.
      num_models: K.
      pick: How a client chooses.
      known: What the server knows beside the models, at the start.
      learn: (known, aggregates, round) -> known'.
      allowed: (known) -> bool[K], the models that clients still choose from.
      divisor: (weight [K] of clusters' clients) -> [K], by which sums of updates are divided.
      num_reported: The record counts the clients of clusters 0 to `num_reported` - 1; a further
        cluster counts as its number modulo this one. None for K.
    """
    (local,) = algorithm.passes
    reported = num_reported or num_models

    def broadcast(state: ClusterState, aggregates) -> Message:
        return Message(
            jax.vmap(lambda server: local.broadcast(server, {}))(state.servers), state.known
        )

    def choose(message: Message, losses: LossSums, job: Job):
        mean = comparable(losses.losses, allowed(message.known)) / jnp.maximum(losses.weight, 1)
        cluster, sent = pick(message, mean, job)
        return sent, cluster.astype(jnp.int32), {}

    def start(message: Message, cluster, job: Job):
        return cluster, local.start(model_of(message, cluster), (), job)

    def step(message: Message, carry, batch, job: Job):
        cluster, here = carry
        return cluster, local.step(model_of(message, cluster), here, batch, job)

    def finish(message: Message, carry, job: Job):
        cluster, here = carry
        sent, _, stats = local.finish(model_of(message, cluster), here, job)
        sent = {name: part._replace(cluster=cluster) for name, part in sent.items()}
        return sent, cluster, stats | membership(cluster % reported, reported)

    def server_update(state: ClusterState, aggregates, round) -> ClusterState:
        update = aggregates["update"]
        divided = update._replace(weight=divisor(update.weight))
        own = {name: aggregates[name] for name in ("model_state",) if name in aggregates}
        servers = jax.vmap(algorithm.server_update, (0, 0, None))(
            state.servers, own | {"update": divided}, round
        )
        weight = jnp.where(update.weight.sum() > 0, update.weight, state.weight)
        return ClusterState(servers, weight, learn(state.known, aggregates, round))

    def init(models: Variables) -> ClusterState:
        none = jnp.zeros(num_models, zero_of(models.params).dtype)
        return ClusterState(jax.vmap(algorithm.init)(models), none, known)

    def variables(state: ClusterState) -> Variables:
        return model_of(broadcast(state, {}), jnp.argmax(state.weight))

    def personalize(state: ClusterState, cluster, batch, key) -> Variables:
        message = broadcast(state, {})
        losses = losses_of(task, message.models, batch, key)
        best = jnp.argmin(comparable(losses, allowed(state.known)))
        return model_of(message, jnp.where(batch["mask"].any(), best, jnp.argmax(state.weight)))

    return algorithm._replace(
        init=init,
        passes=(
            loss_pass(task, broadcast, choose),
            local._replace(
                broadcast=None, start=start, step=step, finish=finish, num_clusters=num_models
            ),
        ),
        server_update=server_update,
        variables=variables,
        init_client=lambda variables: jnp.int32(-1),
        personalize=personalize,
        cluster=lambda state, cluster: jnp.where(cluster < 0, -1, cluster % reported),
        initial_models=num_models,
    )


def loss_pass(task: LocalTask, broadcast, finish) -> ClientPass:
    """Returns the pass in which a client finds the loss of every model on all of its rows.

    Args:
      task: The bound task.
      broadcast: As in a `ClientPass`; the message has the models.
      finish: (message, LossSums, job) -> ({name: Contribution}, client_state', stats).
    """

    def start(message: Message, client_state, job: Job) -> LossSums:
        zero = zero_of(message.models.params)
        return LossSums(jnp.zeros(len(jax.tree.leaves(message.models)[0]), zero.dtype), zero)

    def step(message: Message, carry: LossSums, batch, job: Job) -> LossSums:
        def loss(model: Variables):
            return task.loss(*model, batch, step_key(job), False)[0]

        sums = jax.vmap(loss)(message.models)
        return LossSums(carry.losses + sums.loss, carry.weight + sums.weight[0])

    return ClientPass(broadcast, start, step, finish, schedule="epoch")


def losses_of(task: LocalTask, models: Variables, batch, key: jax.Array) -> jax.Array:
    """Returns [K], the summed loss of each model on a batch."""
    return jax.vmap(lambda model: task.loss(*model, batch, key, False)[0].loss)(models)


def model_of(message: Message, cluster: jax.Array) -> Variables:
    """Returns one of a message's models."""
    return jax.tree.map(lambda leaf: leaf[cluster], message.models)


def comparable(losses: jax.Array, allowed: jax.Array) -> jax.Array:
    """Returns losses that are the largest number where a model diverged, or is not to be chosen."""
    return jnp.where(jnp.isfinite(losses) & allowed, losses, jnp.finfo(losses.dtype).max)
