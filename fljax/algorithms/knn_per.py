"""kNN-Per: the global model's predictions, mixed with those of a client's own nearest rows.

Marfoq et al. 2022, "Personalized federated learning through local memorization" (arXiv:2111.09360).
Training is FedAvg. At evaluation a client holds the representations r_j of its training rows, what
the last layer reads, and of a new row x with representation r predicts

    p(y | x) = knn_weight q(y | x) + (1 - knn_weight) p_global(y | x)
    q(y | x) ~ sum of exp(-|r - r_j|^2 / (dim(r) knn_scale)) over the k nearest rows with y_j = y

The kernel is that of the authors' code, whose distances are squared too. A client with fewer than k
rows uses all of them; one without rows the global model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import hyperparameters
from fljax.algorithms.representations import check_classifies, labels_of, represented
from fljax.core.algorithm import Algorithm, AlgorithmSpec
from fljax.core.gradients import LocalTask
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Memory(NamedTuple):
    """The global model and a client's training rows: float[R, D], their classes, which are real."""

    params: PyTree
    model_state: PyTree
    rows: jax.Array
    labels: jax.Array
    mask: jax.Array


def knn_per(
    knn_weight: float = 0.5,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    num_neighbors: int = 10,
    knn_scale: float = 1.0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns kNN-Per; `personalize` gives the global model with the memory of a client's rows.

    Args:
      knn_weight: The paper's lambda: the weight of the nearest rows, in [0, 1]. The paper chooses
        one for each client on validation rows; here all have one, which a sweep chooses.
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      num_neighbors: Nearest rows, the paper's k; a sweep over it compiles for each value.
      knn_scale: Width of the kernel, a temperature.
      weighting: "examples" weights a client by its rows, "uniform" counts clients alike.
      **options: Further arguments of `fedavg`.

    Raises:
      TypeError, ValueError: As `fedavg`; for tasks other than classification.

    Example:
      >>> algorithms.knn_per(knn_weight=0.5, client_lr=0.05).hparams
      {'client_lr': 0.05, 'server_lr': 1.0, 'knn_weight': 0.5, 'knn_scale': 1.0}
    """
    checked("num_neighbors", num_neighbors, ALGORITHM["num_neighbors"]._replace(optional=False))
    options.setdefault("name", "knn_per")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        check_classifies("knn_per", task)
        algorithm = build_fedavg(task, hp)
        weight_of_rows, scale = hp["knn_weight"], hp["knn_scale"]

        def personalize(server, own, batch, key) -> Memory:
            model = algorithm.variables(server)
            rows = represented(task, model, batch)
            labels = labels_of(task, batch)
            return Memory(model.params, model.model_state, rows, labels, batch["mask"])

        def predict(server, memory: Memory, batch) -> jax.Array:
            model = memory[:2]
            of_model = jax.nn.softmax(task.outputs(*model, batch))
            of_rows = nearest_classes(
                represented(task, model, batch), memory, num_neighbors, scale, of_model
            )
            weight = jnp.where(memory.mask.any(), weight_of_rows, 0)
            mixture = weight * of_rows + (1 - weight) * of_model
            return jnp.log(jnp.maximum(mixture, jnp.finfo(mixture.dtype).tiny))

        return algorithm._replace(personalize=personalize, predict=predict)

    values = hyperparameters("knn_per", {"knn_weight": knn_weight, "knn_scale": knn_scale})
    return plain._replace(build=build, hparams={**plain.hparams, **values})


def nearest_classes(
    rows: jax.Array, memory: Memory, number: int, scale: jax.Array, like: jax.Array
) -> jax.Array:
    """Returns [B, C], how probable the nearest rows of a memory make each class.

    Args:
      rows: float[B, D] representations.
      memory: Of the client.
      number: How many rows are asked, if there are so many.
      scale: Of the kernel.
      like: [B, C].
    """
    squares = jnp.sum(memory.rows**2, 1) - 2 * rows @ memory.rows.T
    distances = jnp.where(memory.mask, squares, jnp.inf)
    far, places = jax.lax.top_k(-distances, min(number, len(memory.mask)))
    # the nearest one has weight 1, so that not all vanish
    weights = jnp.exp((far - far[:, :1]) / (rows.shape[1] * scale))
    weights = jnp.where(memory.mask[places], weights, 0)
    classes = jax.nn.one_hot(memory.labels[places], like.shape[1], dtype=weights.dtype)
    votes = jnp.sum(weights[..., None] * classes, 1)
    return votes / jnp.maximum(votes.sum(1, keepdims=True), jnp.finfo(votes.dtype).tiny)
