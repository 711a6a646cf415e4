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
and one that never came stays in the part that keeps its number. One cluster is cut in a round at
most. The record counts the models of all clusters as received; a client needs that of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.algorithms.clusters import Message, model_of
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.core.algorithm import Aggregate, Algorithm, AlgorithmSpec, Job, Variables
from fljax.core.clusterings import membership
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
    population: int = 100,
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

    `personalize` gives the model of a client's cluster, of one that never took part that of the
    first; the global model is that of the largest cluster.

    Args:
      population: At least the clients of the data set; the server keeps an update of each.
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
      TypeError, ValueError: As `fedavg`; before the first round, if more clients take part.

    Example:
      >>> algorithms.cfl(population=100, eps1=0.1, eps2=0.5).hparams["eps1"]
      0.1
    """
    for name, value in (("population", population), ("num_clusters", num_clusters)):
        checked(name, value, ALGORITHM[name]._replace(optional=False))
    options.setdefault("name", "cfl")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    numbers = {"eps1": eps1, "eps2": eps2, "gamma_max": gamma_max, "min_rounds": min_rounds}
    values = {**plain.hparams, **hyperparameters("cfl", numbers)}

    build_fedavg = plain.build

    def build(task, hp) -> Algorithm:
        clients = hp["num_clients"]
        if not isinstance(clients, jax.core.Tracer) and int(clients) > population:
            raise ValueError(
                f"population = {population}, and {int(clients)} clients may take part. Set it to "
                "the number of clients of the data set."
            )
        return _algorithm(build_fedavg(task, hp), population, num_clusters, hp)

    return plain._replace(build=build, hparams=values)


def _algorithm(algorithm: Algorithm, population: int, num_clusters: int, hp) -> Algorithm:
    (local,) = algorithm.passes

    def broadcast(state: CflState, aggregates) -> Message:
        models = jax.vmap(lambda server: local.broadcast(server, {}))(state.servers)
        return Message(models, state.assigned)

    def mine(message: Message, job: Job) -> Variables:
        return model_of(message, message.known[job.client])

    def finish(message: Message, carry, job: Job):
        sent, _, stats = local.finish(mine(message, job), carry, job)
        sent = {name: part._replace(cluster=job.client) for name, part in sent.items()}
        return sent, job.client, stats | membership(message.known[job.client], num_clusters)

    def server_update(state: CflState, aggregates, round) -> CflState:
        member = state.assigned == jnp.arange(num_clusters)[:, None]
        by_cluster = {name: _summed(total, member) for name, total in aggregates.items()}
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
        chosen = jnp.argmax(jnp.where(may_be_cut, norm, -1))
        cut = lambda state: _cut(state, chosen, hp["gamma_max"])  # noqa: E731
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
        member = state.assigned == jnp.arange(num_clusters)[:, None]
        return model_of(broadcast(state, {}), jnp.argmax((member * state.weights).sum(1)))

    def personalize(state: CflState, number, batch, key) -> Variables:
        cluster = jnp.where(number < 0, 0, state.assigned[number])
        return model_of(broadcast(state, {}), cluster)

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
            ),
        ),
        server_update=server_update,
        variables=variables,
        init_client=lambda variables: jnp.int32(-1),
        personalize=personalize,
        cluster=lambda state, number: jnp.where(number < 0, -1, state.assigned[number]),
    )


def _summed(total: Aggregate, member: jax.Array) -> Aggregate:
    """Returns the sums over the clients of each cluster, leaves [K, ...] of leaves [N, ...]."""
    return jax.tree.map(lambda x: jnp.tensordot(member.astype(x.dtype), x, 1), total)


def _norms(state: CflState, member: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns [K], the norm of the mean update of each cluster, and [K] the largest of a client.

    The first is infinite where fewer than three clients are known, which are never cut.
    """
    weights = member * state.weights
    mean = weights @ state.updates / jnp.maximum(weights.sum(1), 1e-12)[:, None]
    enough = (weights > 0).sum(1) > 2
    at_rest = jnp.where(enough, jnp.linalg.norm(mean, axis=1), jnp.inf)
    return at_rest, jnp.max(jnp.where(weights > 0, jnp.linalg.norm(state.updates, axis=1), 0), 1)


def _cut(state: CflState, cluster: jax.Array, gamma_max: jax.Array) -> CflState:
    """Returns the state after one cluster was cut, unless its parts are too much alike."""
    norms = jnp.linalg.norm(state.updates, axis=1, keepdims=True)
    unit = state.updates / jnp.maximum(norms, 1e-12)
    member = (state.assigned == cluster) & (state.weights > 0)
    part, across = bipartition(unit @ unit.T, member)
    part &= jnp.sqrt((1 - jnp.minimum(across, 1)) / 2) > gamma_max
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
