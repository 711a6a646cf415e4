"""IFCA: the server has several models, and each client trains the one that fits its data best.

Ghosh et al. 2020, "An efficient framework for clustered federated learning" (arXiv:2006.04088),
Algorithm 1. In each round, with models w_1 .. w_k and clients i of sizes n_i:

    clients   j(i) = argmin_j F_i(w_j)              the loss over all rows of the client
              y_i  = some steps of SGD on F_i from w_j(i)
    server    w_j <- w_j + server_lr mean of y_i - w_j over clients with j(i) = j

or, with averaging="gradients", w_j <- w_j - server_lr sum of n_i / n grad F_i(w_j) over these
clients, where n counts the rows of the whole cohort: small clusters take small steps. A model that
nobody chose stays as it is, so that of more clusters than there are some stay empty. One cluster is
FedAvg (FedSGD). (FedLab's client cuts the list of models to nothing before it compares them, so
that it never clusters.)

The result depends on the first models, which are drawn independently: clusters that begin in one
model may never part. The paper starts several times. Here `restarts` sets of k models compete
inside one run: for `restart_rounds` rounds each client trains for a set that is drawn anew, so that
there is no more training than without; then the set with the lowest loss goes on alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.algorithms.clusters import Message, clustered
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.fedsgd import fedsgd
from fljax.algorithms.optimizer_arguments import (
    check_idle,
    defaults_of,
    given_of,
    hyperparameters,
)
from fljax.core.algorithm import AlgorithmSpec, Contribution, Job
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked


def ifca(
    num_clusters: int = 2,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    averaging: str = "models",
    restarts: int = 1,
    restart_rounds: float = 8.0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns IFCA.

    `personalize` gives the model with the lowest loss on a client's training rows; the global model
    is that of the largest cluster. The record has `train/cluster_0` and so on, the clients of each.
    Each client receives all models, in either pass of a round.

    Args:
      num_clusters: k.
      client_lr: Learning rate of the clients; of no use where gradients are averaged.
      server_lr: Learning rate of the server.
      averaging: "models" or "gradients".
      restarts: Sets of k models that compete at the start.
      restart_rounds: For so many rounds; of no use with one restart.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`, or of `fedsgd` where gradients are averaged.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.ifca(num_clusters=4, client_lr=0.1).hparams
      {'client_lr': 0.1, 'server_lr': 1.0}
    """
    for name, value in (("num_clusters", num_clusters), ("restarts", restarts)):
        checked(name, value, ALGORITHM[name]._replace(optional=False))
    checked("averaging", averaging, ALGORITHM["averaging"]._replace(optional=False))
    options.setdefault("name", "ifca")
    if averaging == "models":
        plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    else:
        plain = _gradients(client_lr, server_lr, weighting=weighting, **options)
    values, defaults = dict(plain.hparams), {**plain.defaults}
    of_restarts = hyperparameters("ifca", {"restart_rounds": restart_rounds})
    if restarts > 1:
        values |= of_restarts
    else:
        check_idle(given_of(ifca, of_restarts), "restarts = 1", "set restarts, such as 4")

    build_plain = plain.build

    def build(task, hp):
        algorithm = build_plain(task, hp)
        if num_clusters * restarts == 1:
            return algorithm._replace(
                personalize=lambda server, own, batch, key: algorithm.variables(server)
            )
        competing = {} if restarts == 1 else _competition(restarts, num_clusters, hp)
        return clustered(
            task,
            algorithm,
            restarts * num_clusters,
            divisor=(lambda weight: weight) if averaging == "models" else _of_the_cohort,
            num_reported=num_clusters,
            **competing,
        )

    return plain._replace(build=build, hparams=values, defaults=defaults)


def _gradients(client_lr: float, server_lr: float, **options) -> AlgorithmSpec:
    """Returns FedSGD; a client_lr that nobody would read is refused when the run is checked."""
    name = options.pop("name")
    plain = fedsgd(server_lr, **options)
    default = defaults_of(ifca)["client_lr"]
    return plain._replace(
        name=name,
        hparams={**plain.hparams, "client_lr": client_lr},
        defaults={**plain.defaults, "client_lr": default},
    )


def _of_the_cohort(weight: jax.Array) -> jax.Array:
    """Returns the weight of the whole cohort, for each cluster."""
    return jnp.full_like(weight, weight.sum())


def _competition(restarts: int, num_clusters: int, hp) -> dict:
    """Returns how clients serve one of several sets of models until the best one is known.

    What the server knows is the number of that set, -1 at first.
    """

    def pick(message: Message, losses: jax.Array, job: Job):
        by_set = losses.reshape(restarts, num_clusters)
        drawn = jax.random.randint(job.key, (), 0, restarts, jnp.int32)
        own = jnp.where(message.known < 0, drawn, message.known)
        lowest = Contribution(by_set.min(1), job.rows.astype(losses.dtype))
        return own * num_clusters + jnp.argmin(by_set[own]), {"losses": lowest}

    def learn(kept, aggregates, round):
        losses = aggregates["losses"]
        is_time = (kept < 0) & (round + 1 >= hp["restart_rounds"]) & (losses.count > 0)
        return jnp.where(is_time, jnp.argmin(losses.mean()).astype(jnp.int32), kept)

    def allowed(kept):
        return (kept < 0) | (jnp.arange(restarts * num_clusters) // num_clusters == kept)

    return {"pick": pick, "known": jnp.int32(-1), "learn": learn, "allowed": allowed}
