"""FedSoft: clients belong to every cluster in part, and pull their own model to its centers.

Ruan and Joe-Wong 2022, "FedSoft: soft clustered federated learning with proximal local updating"
(arXiv:2112.06053), Algorithms 1 and 2. With centers c_1 .. c_K and a client of n rows, of which n_s
have their lowest loss under c_s:

    clients   u_s = max(n_s / n, smoothing)                          estimated in each participation
              w  <- w - lr (g(w) + mu sum_s u_s (w - c_s))           from the client's own w on
    server    c_s <- mean of w over the cohort, weighted by u_s n

The paper draws a cohort for each cluster with probabilities u_s n and takes the plain mean; here
one cohort serves all clusters, with these numbers as weights, which is the same on the average and,
with all clients in the cohort, what the authors' code does without selection. (That code puts
`smoothing` in the place of importances of zero alone.) The record counts K models from each client,
since sums are made of as many; a client has to send but one, with K weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.clusters import ClusterState, Message, model_of
from fljax.algorithms.fedavg import (
    LocalState,
    check_weighting,
    contributions,
    job_weight,
    loss_stats,
    sgd,
    sgd_step,
    start_local,
    start_server,
    step_server,
    zero_of,
)
from fljax.algorithms.optimizer_arguments import check_idle, given_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Job, Variables
from fljax.core.clusterings import membership
from fljax.core.gradients import LocalTask
from fljax.core.precision import difference, state_change, widened
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Client(NamedTuple):
    """A client's own model, and its importances u [K]."""

    own: Variables
    importance: jax.Array


class Pulled(NamedTuple):
    """Local training, what it is pulled by: u [K], and sum_s u_s c_s."""

    local: LocalState
    importance: jax.Array
    pull: PyTree


def fedsoft(
    num_clusters: int = 2,
    mu: float = 0.1,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    smoothing: float = 1e-4,
    client_momentum: float | None = None,
    weighting: str = "examples",
) -> AlgorithmSpec:
    """Returns FedSoft.

    `personalize` gives the model that a client has trained, the initial one before it took part;
    the global model is the center of the most weight. The record counts clients by the cluster of
    their largest importance.

    Args:
      num_clusters: K.
      mu: How strongly a client's model is pulled to the centers, the paper's lambda.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      smoothing: The least importance of a center for a client, the paper's sigma.
      client_momentum: Momentum of the clients' SGD, starting from zero in each round.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.fedsoft(num_clusters=2, mu=0.1).hparams["smoothing"]
      0.0001
    """
    checked("num_clusters", num_clusters, ALGORITHM["num_clusters"]._replace(optional=False))
    check_weighting(weighting)
    values = hyperparameters(
        "fedsoft",
        {"mu": mu, "client_lr": client_lr, "server_lr": server_lr, "smoothing": smoothing},
        client_momentum=client_momentum,
    )
    if num_clusters == 1:
        idle = given_of(fedsoft, {"smoothing": values["smoothing"]})
        check_idle(idle, "num_clusters = 1", "set num_clusters, such as 2")
    client_optimizer = sgd(client_momentum)

    def build(task: LocalTask, hp) -> Algorithm:
        return _algorithm(task, hp, num_clusters, weighting, client_optimizer(hp))

    return AlgorithmSpec("fedsoft", build, values, client_optimizer)


def _algorithm(task: LocalTask, hp, num_clusters: int, weighting: str, optimizer) -> Algorithm:
    server_optimizer = optax.sgd(hp["server_lr"])

    def broadcast(state: ClusterState, aggregates) -> Message:
        return Message(state.servers.variables, ())

    def start(message: Message, client: Client, job: Job) -> Pulled:
        local = start_local(client.own, optimizer)
        pull = jax.tree.map(
            lambda c: jnp.tensordot(client.importance.astype(c.dtype), c, 1),
            widened(message.models.params),
        )
        return Pulled(local, client.importance, pull)

    def step(message: Message, carry: Pulled, batch, job: Job) -> Pulled:
        def correct(grads, params, message):
            return jax.tree.map(
                lambda g, w, c: g + hp["mu"] * (carry.importance.sum() * w - c),
                grads,
                widened(params),
                carry.pull,
            )

        local = sgd_step(task, optimizer, message, carry.local, batch, job, correct)
        return carry._replace(local=local)

    def finish(message: Message, carry: Pulled, job: Job):
        local, importance = carry.local, carry.importance

        def change(center: Variables):
            state = state_change(local.model_state, center.model_state, task.state_changes)
            return difference(local.params, center.params), state

        weight = job_weight(weighting, job, importance) * importance
        update, state = jax.vmap(change)(message.models)
        sent = contributions(update, state, weight)
        client = Client(Variables(local.params, local.model_state), importance)
        member = membership(jnp.argmax(importance), num_clusters)
        return sent, client, loss_stats(local) | member

    def server_update(state: ClusterState, aggregates, round) -> ClusterState:
        def one_center(server, *sums):
            return step_server(server, dict(zip(aggregates, sums, strict=True)), server_optimizer)

        each = (
            total._replace(count=jnp.broadcast_to(total.count, num_clusters))
            for total in aggregates.values()
        )
        weight = aggregates["update"].weight
        kept = jnp.where(weight.sum() > 0, weight, state.weight)
        return ClusterState(jax.vmap(one_center)(state.servers, *each), kept, ())

    def init(centers: Variables) -> ClusterState:
        servers = jax.vmap(lambda center: start_server(center, server_optimizer))(centers)
        return ClusterState(servers, jnp.zeros(num_clusters, zero_of(centers.params).dtype), ())

    def variables(state: ClusterState) -> Variables:
        return model_of(broadcast(state, {}), jnp.argmax(state.weight))

    def init_client(variables: Variables) -> Client:
        return Client(variables, jnp.zeros(num_clusters, zero_of(variables.params).dtype))

    return Algorithm(
        init=_of_one(init) if num_clusters == 1 else init,
        passes=(
            _importance_pass(task, broadcast, num_clusters, hp["smoothing"]),
            ClientPass(None, start, step, finish),
        ),
        server_update=server_update,
        variables=variables,
        init_client=init_client,
        personalize=lambda state, client, batch, key: client.own,
        cluster=lambda state, client: jnp.where(
            client.importance.any(), jnp.argmax(client.importance), -1
        ),
        initial_models=num_clusters,
    )


def _of_one(init):
    """Returns an `init` of one model, which has no axis over models."""
    return lambda variables: init(jax.tree.map(lambda leaf: leaf[None], variables))


def _importance_pass(task: LocalTask, broadcast, num_clusters: int, smoothing) -> ClientPass:
    """Returns the pass in which clients count the rows that have their lowest loss in a cluster."""

    def start(message: Message, client: Client, job: Job):
        return client, jnp.zeros_like(client.importance)

    def step(message: Message, carry, batch, job: Job):
        client, counts = carry

        def losses(model: Variables):
            value, weight = task.measure(*model, batch).sums["loss"]
            return value / jnp.maximum(weight, 1)

        best = jnp.argmin(jax.vmap(losses)(message.models), 0)
        member = (best == jnp.arange(num_clusters)[:, None]) & batch["mask"]
        return client, counts + member.sum(1)

    def finish(message: Message, carry, job: Job):
        client, counts = carry
        share = counts / jnp.maximum(counts.sum(), 1)
        return {}, client._replace(importance=jnp.maximum(share, smoothing)), {}

    return ClientPass(broadcast, start, step, finish, schedule="epoch")
