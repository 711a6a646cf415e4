"""CFL: a population is cut in two where its clients' updates disagree, again and again.

Sattler et al. 2020, "Clustered federated learning: model-agnostic distributed multitask
optimization under privacy constraints" (arXiv:1910.01991). Clusters train as in FedAvg. A cluster c
of clients with updates d_i and weights n_i, which has come to rest while its clients have not, is
cut into the two parts that are least alike:

    |sum_i n_i d_i / sum_i n_i| < eps1    and    max_i |d_i| > eps2                   when
    c1, c2 = argmin of  a(c1, c2) = max over i in c1, j in c2 of cos(d_i, d_j)        where
    sqrt((1 - a(c1, c2)) / 2) > gamma_max                                             whether

The best cut is that of single linkage, the weakest edge of the tree of greatest similarities (the
authors' code takes complete linkage, which is another one, weighs clients alike and never asks for
gamma_max).

All is decided on the devices, within the round: the server keeps the last update of every client,
population x model numbers, and compares them in a round in which there is something to cut. The
paper has all clients in each round; where they are not, the last update of an absent client counts,
and one that never came trains in the part that keeps its number. One cluster is cut in a round at
most: of those that gamma_max lets be cut, that of the largest update. The paper leads a new client
down the tree of cuts by its update, for which models and updates of all past cuts would be kept;
here it uses the model that fits its rows best. The record counts the models of all clusters as
received; a client needs that of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.algorithms.clusters import Message, comparable, losses_of, model_of
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import check_idle, given_of, hyperparameters
from fljax.core.algorithm import Algorithm, AlgorithmSpec, Job, Variables
from fljax.core.clusterings import membership
from fljax.core.gradients import LocalTask, Population
from fljax.core.settings import ALGORITHM
from fljax.core.trees import beside
from fljax.core.values import checked

PyTree = Any


class CflState(NamedTuple):
    """The servers of K clusters, and what is known of N clients.

    Attributes:
      servers: Leaves [K, ...].
      clusters: int32, how many of them there are.
      assigned: int32[N] cluster of each client.
      updates: [N, parameters] last update of each client.
      weights: [N] their weights; 0 for a client that never came.
    """

    servers: PyTree
    clusters: jax.Array
    assigned: jax.Array
    updates: jax.Array
    weights: jax.Array


def cfl(
    num_clusters: int = 8,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    eps1: float = 0.4,
    eps2: float = 1.6,
    gamma_max: float = 0.0,
    min_rounds: float = 20.0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns CFL.

    `personalize` gives the model of a client's cluster. A client that is in none, since it never
    took part or is new, gets the model of the lowest loss on its rows; without rows the global one,
    which is that of the largest cluster.

    Args:
      num_clusters: The most clusters.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      eps1: A cluster is at rest when the norm of its mean update is smaller.
      eps2: A cluster may be cut when the norm of some client's update is larger.
      gamma_max: How far parts must point apart to be cut; 0 for any.
      min_rounds: Rounds before the first cut.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.cfl(num_clusters=4, eps1=0.1, eps2=0.5).hparams["eps1"]
      0.1
    """
    checked("num_clusters", num_clusters, ALGORITHM["num_clusters"]._replace(optional=False))
    options.setdefault("name", "cfl")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    numbers = {"eps1": eps1, "eps2": eps2, "gamma_max": gamma_max, "min_rounds": min_rounds}
    numbers = hyperparameters("cfl", numbers)
    if num_clusters == 1:
        check_idle(given_of(cfl, numbers), "num_clusters = 1", "set num_clusters, such as 8")
    values = {**plain.hparams, **numbers}

    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        return _algorithm(task, build_fedavg(task, hp), num_clusters, hp)

    return plain._replace(build=build, hparams=values)


def _algorithm(task: LocalTask, algorithm: Algorithm, num_clusters: int, hp) -> Algorithm:
    (local,) = algorithm.passes
    population = (task.population or Population()).num_clients

    def broadcast(state: CflState, aggregates) -> Message:
        models = jax.vmap(lambda server: local.broadcast(server, {}))(state.servers)
        return Message(models, state.assigned)

    def in_training(message: Message, job: Job) -> jax.Array:
        return jnp.maximum(cluster_of(message.known, job.client), 0)  # of a new client the first

    def mine(message: Message, job: Job) -> Variables:
        return model_of(message, in_training(message, job))

    def finish(message: Message, carry, job: Job):
        sent, _, stats = local.finish(mine(message, job), carry, job)
        sent = {name: part._replace(cluster=job.client) for name, part in sent.items()}
        return sent, job.client, stats | membership(in_training(message, job), num_clusters)

    def members(state: CflState) -> jax.Array:
        return state.assigned == jnp.arange(num_clusters)[:, None]

    def server_update(state: CflState, aggregates, round) -> CflState:
        member = members(state)
        by_cluster = {name: total.of_members(member) for name, total in aggregates.items()}
        servers = jax.vmap(algorithm.server_update, (0, 0, None))(state.servers, by_cluster, round)
        came = aggregates["update"].count > 0
        updates = jax.vmap(lambda tree: ravel_pytree(tree)[0])(aggregates["update"].mean())
        state = state._replace(
            servers=servers,
            updates=jnp.where(came[:, None], updates, state.updates),
            weights=jnp.where(came, aggregates["update"].weight, state.weights),
        )
        at_rest, norm = _norms(state, member)
        may_be_cut = (at_rest < hp["eps1"]) & (norm > hp["eps2"])
        may_be_cut &= (round + 1 >= hp["min_rounds"]) & (state.clusters < num_clusters)
        order = jnp.where(may_be_cut, norm, -1)
        cut = lambda state: _cut(state, order, hp["gamma_max"])  # noqa: E731
        return jax.lax.cond(may_be_cut.any(), cut, lambda state: state, state)

    def init(variables: Variables) -> CflState:
        servers = jax.tree.map(
            lambda leaf: jnp.stack([leaf] * num_clusters), algorithm.init(variables)
        )
        flat, _ = ravel_pytree(variables.params)
        flat = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
        return CflState(
            servers,
            clusters=jnp.int32(1),
            assigned=jnp.zeros(population, jnp.int32),
            updates=jnp.zeros((population, flat.size), flat.dtype),
            weights=jnp.zeros(population, flat.dtype),
        )

    def variables(state: CflState) -> Variables:
        return model_of(broadcast(state, {}), largest(state))

    def largest(state: CflState) -> jax.Array:
        return jnp.argmax((members(state) * state.weights).sum(1))

    def personalize(state: CflState, number, batch, key) -> Variables:
        message, cluster = broadcast(state, {}), cluster_of(state.assigned, number)

        def best_of_rows():
            losses = losses_of(task, message.models, batch, key)
            there_is = jnp.arange(num_clusters) < state.clusters
            best = jnp.argmin(comparable(losses, there_is))
            return jnp.where(batch["mask"].any(), best, largest(state)).astype(cluster.dtype)

        return model_of(message, jax.lax.cond(cluster < 0, best_of_rows, lambda: cluster))

    return algorithm._replace(
        init=init,
        passes=(
            local._replace(
                broadcast=broadcast,
                start=lambda message, number, job: local.start(mine(message, job), (), job),
                step=lambda message, carry, batch, job: local.step(
                    mine(message, job), carry, batch, job
                ),
                finish=finish,
                num_clusters=population,
                members=members,
            ),
        ),
        server_update=server_update,
        variables=variables,
        init_client=lambda variables: jnp.int32(-1),
        personalize=personalize,
        cluster=lambda state, number: cluster_of(state.assigned, number),
    )


def cluster_of(assigned: jax.Array, number: jax.Array) -> jax.Array:
    """Returns the cluster of a client; -1 of one that has no number or one beyond the population.

    Example:
      >>> [int(cluster_of(jnp.array([4, 5]), number)) for number in (1, 2, -1)]
      [5, -1, -1]
    """
    known = (number >= 0) & (number < len(assigned))
    return jnp.where(known, assigned[number], -1)


def _norms(state: CflState, member: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns [K], the norm of the mean update of each cluster, and [K] the largest of a client.

    The first is infinite where fewer than three clients are known, which are never cut.
    """
    weights = member * state.weights
    mean = weights @ state.updates / jnp.maximum(weights.sum(1), 1e-12)[:, None]
    enough = (weights > 0).sum(1) > 2
    at_rest = jnp.where(enough, jnp.linalg.norm(mean, axis=1), jnp.inf)
    return at_rest, jnp.max(jnp.where(weights > 0, jnp.linalg.norm(state.updates, axis=1), 0), 1)


def _cut(state: CflState, order: jax.Array, gamma_max: jax.Array) -> CflState:
    """Returns the state after the first cluster was cut whose parts are not too much alike.

    Args:
      state: The state.
      order: [K], which cluster is tried before which, the largest first; those below 0 are not.
      gamma_max: As for `cfl`.
    """
    norms = jnp.linalg.norm(state.updates, axis=1, keepdims=True)
    unit = state.updates / jnp.maximum(norms, 1e-12)
    similarity = unit @ unit.T

    def goes_on(tried):
        left, _, part = tried
        return (left >= 0).any() & ~part.any()

    def next_one(tried):
        left, _, _ = tried
        cluster = jnp.argmax(left)
        member = (state.assigned == cluster) & (state.weights > 0)
        part, across = bipartition(similarity, member)
        part &= jnp.sqrt((1 - jnp.minimum(across, 1)) / 2) > gamma_max
        return left.at[cluster].set(-1), cluster, part

    nobody = jnp.zeros_like(state.assigned, bool)
    start = order, jnp.argmax(order), nobody
    _, cluster, part = jax.lax.while_loop(goes_on, next_one, start)
    new, is_new = state.clusters, part.any()

    def copied(leaf):
        return leaf.at[new].set(jnp.where(beside(is_new, leaf[0]), leaf[cluster], leaf[new]))

    return state._replace(
        servers=jax.tree.map(copied, state.servers),
        clusters=new + is_new.astype(new.dtype),
        assigned=jnp.where(part, new, state.assigned),
    )


def bipartition(similarity: jax.Array, member: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cuts members in two so that the greatest similarity across the cut is as small as can be.

    Args:
      similarity: [N, N], symmetric.
      member: bool[N], whom to divide; two or more.

    Returns:
      (bool[N] one of the two parts, without the first member; the greatest similarity across).

    Example:
      >>> part, across = bipartition(jnp.array([[1, 0.9, 0], [0.9, 1, 0.2], [0, 0.2, 1]]),
      ...                            jnp.array([True, True, True]))
      >>> part.tolist(), round(float(across), 1)
      ([False, False, True], 0.2)
    """
    lowest = jnp.finfo(similarity.dtype).min
    root = jnp.argmax(member)

    def join(tree, _):
        """Adds the member that is most like one of the tree; returns who, by whom, how much."""
        inside, nearest, likeness = tree
        who = jnp.argmax(jnp.where(member & ~inside, likeness, lowest))
        there_is = (member & ~inside).any()
        edge = who, nearest[who], jnp.where(there_is, likeness[who], jnp.inf)
        closer = similarity[who] > likeness
        nearest = jnp.where(there_is & closer, who, nearest)
        likeness = jnp.where(there_is & closer, similarity[who], likeness)
        return (inside.at[who].set(inside[who] | there_is), nearest, likeness), edge

    nobody = jnp.zeros_like(member).at[root].set(True)
    start = nobody, jnp.full(len(member), root), similarity[root]
    _, (who, by, likeness) = jax.lax.scan(join, start, length=len(member) - 1)
    weakest = jnp.argmin(likeness)

    def follow(part, edge):
        number, child, parent, is_edge = edge
        beyond = is_edge & ((number == weakest) | part[parent])
        return part.at[child].set(part[child] | beyond), None

    edges = jnp.arange(len(who)), who, by, jnp.isfinite(likeness)
    part, _ = jax.lax.scan(follow, jnp.zeros_like(member), edges)
    return part, likeness[weakest]
