"""HypCluster: several hypotheses, each trained by the clients that it fits best.

Mansour et al. 2020, "Three approaches for personalization with applications to federated learning"
(arXiv:2002.10619), Algorithm 1. It is IFCA that averages models (`fljax.algorithms.ifca`), but for
its start: the hypotheses begin as one model each trained on a random sample of clients. Here each
client of the first `warmup_rounds` rounds trains a hypothesis drawn at random; from then on

    clients   j(i) = argmin_j F_i(h_j)              the loss over all rows of the client
    server    h_j <- weighted mean of the models of clients with j(i) = j
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fljax.algorithms.clusters import Message, by_lowest_loss, clustered
from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import check_idle, given_of, hyperparameters
from fljax.core.algorithm import AlgorithmSpec, Job, Variables
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked


def hypcluster(
    num_clusters: int = 2,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    warmup_rounds: float = 1.0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns HypCluster.

    All hypotheses start as the run's initial model, which may be given (`initial_params`).
    `personalize` gives the one with the lowest loss on a client's training rows; the global model
    is that of the largest cluster.

    Args:
      num_clusters: Hypotheses.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      warmup_rounds: Rounds whose clients train hypotheses drawn at random; at least 1, or all would
        stay alike.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`.

    Example:
      >>> algorithms.hypcluster(num_clusters=4).hparams
      {'client_lr': 0.1, 'server_lr': 1.0, 'warmup_rounds': 1.0}
    """
    checked("num_clusters", num_clusters, ALGORITHM["num_clusters"]._replace(optional=False))
    options.setdefault("name", "hypcluster")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    values = hyperparameters("hypcluster", {"warmup_rounds": warmup_rounds})
    if num_clusters == 1:
        idle = given_of(hypcluster, values)
        check_idle(idle, "num_clusters = 1", "set num_clusters, such as 2")

    build_fedavg = plain.build

    def build(task, hp):
        def pick(message: Message, losses: jax.Array, job: Job):
            best, sent = by_lowest_loss(message, losses, job)
            drawn = jax.random.randint(job.key, (), 0, num_clusters, jnp.int32)
            return jnp.where(job.round < hp["warmup_rounds"], drawn, best), sent

        algorithm = clustered(task, build_fedavg(task, hp), num_clusters, pick=pick)

        def init(variables: Variables):
            alike = jax.tree.map(lambda leaf: jnp.stack([leaf] * num_clusters), variables)
            return algorithm.init(alike)

        return algorithm._replace(init=init, initial_models=1)

    return plain._replace(build=build, hparams={**plain.hparams, **values})
