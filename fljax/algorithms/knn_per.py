"""kNN-Per: the global model's predictions, mixed with those of a client's own nearest rows.

Marfoq et al. 2022, "Personalized federated learning through local memorization" (arXiv:2111.09360).
Training is FedAvg. At evaluation a client holds the representations r_j of its training rows, what
the last layer reads, and of a new row x with representation r predicts

    p(y | x) = knn_weight q(y | x) + (1 - knn_weight) p_global(y | x)
    q(y | x) ~ sum of exp(-|r - r_j|^2 / (dim(r) knn_scale)) over the k nearest rows with y_j = y

The kernel is that of the authors' code, whose distances are squared too. A client with fewer than k
rows uses all of them; one without rows the global model. Each client's weight is that of 0, 0.1,
..., 1 which predicts most of its validation rows (`adaptive_knn_weight`), or all have one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.algorithms.fedavg import fedavg
from fljax.algorithms.optimizer_arguments import given_of, hyperparameters
from fljax.algorithms.representations import check_classifies, labels_of, represented
from fljax.core.algorithm import Algorithm, AlgorithmSpec
from fljax.core.gradients import LocalTask
from fljax.core.settings import ALGORITHM
from fljax.core.values import checked

PyTree = Any


class Memory(NamedTuple):
    """The global model, and what a client remembers.

    Attributes:
      params, model_state: Of the global model.
      rows: float[R, D], its training rows as the last layer reads them.
      labels: int[R], their classes.
      mask: bool[R], which of them are real.
      weight: What the nearest rows weigh.
    """

    params: PyTree
    model_state: PyTree
    rows: jax.Array
    labels: jax.Array
    mask: jax.Array
    weight: jax.Array


# What clients choose from, as in the authors' evaluation.
WEIGHTS = tuple(tenths / 10 for tenths in range(11))


def knn_per(
    knn_weight: float = 0.5,
    client_lr: float = 0.1,
    server_lr: float = 1.0,
    *,
    adaptive_knn_weight: bool = False,
    num_neighbors: int = 10,
    knn_scale: float = 1.0,
    weighting: str = "examples",
    **options,
) -> AlgorithmSpec:
    """Returns kNN-Per; `personalize` gives the global model with the memory of a client's rows.

    Args:
      knn_weight: The paper's lambda: the weight of the nearest rows, in [0, 1].
      client_lr: Learning rate of the clients.
      server_lr: Learning rate of the server.
      adaptive_knn_weight: Whether each client has a weight of its own, as in the paper: that which
        is right most often on its validation rows, and of equal ones that of the lowest loss there.
        Clients without such rows, and new ones, have `knn_weight`. Own models are then judged on
        own test rows (`own_test_fraction` beside `val_fraction`), or refused.
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
    field = ALGORITHM["adaptive_knn_weight"]._replace(optional=False)
    checked("adaptive_knn_weight", adaptive_knn_weight, field)
    judging = {
        "knn_weight": knn_weight,
        "adaptive_knn_weight": adaptive_knn_weight,
        "num_neighbors": num_neighbors,
        "knn_scale": knn_scale,
    }
    options.setdefault("name", "knn_per")
    plain = fedavg(client_lr, server_lr, weighting=weighting, **options)
    build_fedavg = plain.build

    def build(task: LocalTask, hp) -> Algorithm:
        check_classifies("knn_per", task)
        algorithm = build_fedavg(task, hp)
        weight_of_rows, scale = hp["knn_weight"], hp["knn_scale"]

        def personalize(server, own, batch, key) -> Memory:
            params, model_state = algorithm.variables(server)
            rows = represented(task, (params, model_state), batch)
            labels = labels_of(task, batch)
            return Memory(params, model_state, rows, labels, batch["mask"], weight_of_rows)

        def both(memory: Memory, batch) -> tuple[jax.Array, jax.Array]:
            """Returns [B, C] twice: the probabilities of the nearest rows, those of the model."""
            model = memory[:2]
            of_model = jax.nn.softmax(task.outputs(*model, batch))
            rows = represented(task, model, batch)
            return nearest_classes(rows, memory, num_neighbors, scale, of_model), of_model

        def predict(server, memory: Memory, batch) -> jax.Array:
            return mixed(*both(memory, batch), jnp.where(memory.mask.any(), memory.weight, 0))

        def tune(server, memory: Memory, batch) -> Memory:
            weights = jnp.asarray(WEIGHTS, memory.rows.dtype)
            predictions = jax.vmap(mixed, (None, None, 0))(*both(memory, batch), weights)
            best = weights[most_right(predictions, labels_of(task, batch), batch["mask"])]
            return memory._replace(weight=jnp.where(batch["mask"].any(), best, memory.weight))

        tuned = tune if adaptive_knn_weight else None
        return algorithm._replace(personalize=personalize, predict=predict, tune=tuned)

    values = hyperparameters("knn_per", {"knn_weight": knn_weight, "knn_scale": knn_scale})
    values = {**plain.hparams, **values}
    return plain._replace(build=build, hparams=values, judging=given_of(knn_per, judging))


def mixed(of_rows: jax.Array, of_model: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the logarithms of probabilities that are mixed, those of rows by `weight`."""
    mixture = weight * of_rows + (1 - weight) * of_model
    return jnp.log(jnp.maximum(mixture, jnp.finfo(mixture.dtype).tiny))


def most_right(predictions: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns which of [N, B, C] predictions are right most often, then of the lowest loss."""
    right = ((predictions.argmax(-1) == labels) & mask).sum(1)
    of_labels = jnp.take_along_axis(predictions, labels[None, :, None], 2)[..., 0]
    likelihood = jnp.where(mask, of_labels, 0).sum(1)
    return jnp.argmax(jnp.where(right == right.max(), likelihood, -jnp.inf))


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
