"""A client's message as a function of its rows: a gradient, or an update after local training.

An attacker who knows the model and how clients train tries rows in such a function until they send
what was observed. A client is (params, x, y) -> what would have been sent, differentiable in x.
Labels y are int32[B] where the attacker knows them; where it searches for them too, they are
float32[B, C], the probability of each class, and the loss of a row is its mean under these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fljax.core import random
from fljax.core.values import COUNT, Field, checked

__all__ = ["batches_in_order", "gradient", "local_training", "mean_loss", "summed"]

PyTree = Any
# (params, x [B, ...], y int[B]) -> float[B], the loss of each row
Losses = Callable[[PyTree, jax.Array, jax.Array], jax.Array]
# (params, x [B, ...], y int32[B] or float32[B, C]) -> what is sent
Client = Callable[[PyTree, jax.Array, jax.Array], PyTree]


def mean_loss(
    losses: Losses, params: PyTree, x: jax.Array, y: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Returns the mean loss of rows, whose labels are numbers or probabilities.

    Args:
      losses: (params, x, y int[B]) -> float[B].
      params: Of the model.
      x: [B, ...].
      y: int[B] labels, or float[B, C] probabilities.
      weights: float[B] of the rows; None for a plain mean.

    Example:
      >>> losses = lambda params, x, y: (params - x[:, 0] - y) ** 2
      >>> x, y = jnp.ones((1, 1)), jnp.array([[0.5, 0.5]])
      >>> float(mean_loss(losses, 1.0, x, jnp.array([1]))), float(mean_loss(losses, 1.0, x, y))
      (1.0, 0.5)
    """
    if jnp.issubdtype(y.dtype, jnp.integer):
        each = losses(params, x, y)
    else:
        # what depends on x alone has no axis of classes, and is computed once
        def of_class(label):
            return losses(params, x, jnp.full(len(x), label))

        each = (y.T * jax.vmap(of_class)(jnp.arange(y.shape[1]))).sum(0)
    if weights is None:
        return each.mean()
    return (weights * each).sum() / weights.sum()


def gradient(losses: Losses) -> Client:
    """Returns the client that sends the gradient of the mean loss of its rows.

    Args:
      losses: (params, x, y int[B]) -> float[B].

    Example:
      >>> client = gradient(lambda params, x, y: params * x[:, 0] * y)
      >>> float(client(1.0, jnp.array([[2.0], [4.0]]), jnp.array([1, 2])))
      5.0
    """

    def client(params, x, y):
        return jax.grad(lambda params: mean_loss(losses, params, x, y))(params)

    return client


def local_training(
    losses: Losses, optimizer: optax.GradientTransformation, batches: np.ndarray
) -> Client:
    """Returns the client that trains on batches, and sends the new parameters less the old ones.

    All steps are unrolled, so that x is differentiated through them (Geiping et al. 2020,
    arXiv:2003.14053, section 6).

    Args:
      losses: (params, x, y int[B]) -> float[B].
      optimizer: Of the client, such as `optax.sgd(0.1)`.
      batches: int[S, b], the rows of each of S steps; -1 where a batch has no more.

    Raises:
      ValueError: For batches that are no such array.

    Example:
      >>> losses = lambda params, x, y: (params * x[:, 0]) ** 2 / 2
      >>> client = local_training(losses, optax.sgd(0.5), np.array([[0], [0]]))
      >>> float(client(1.0, jnp.array([[1.0]]), jnp.array([0])))
      -0.75
    """
    batches = np.asarray(batches)
    if batches.ndim != 2 or batches.dtype.kind not in "iu" or not (batches >= 0).any(1).all():
        raise ValueError(
            f"batches have the shape {batches.shape} and the type {batches.dtype}; give the rows "
            "of each step, int[S, b], with -1 behind the last row of a smaller batch."
        )

    def client(params, x, y):
        def step(carry, rows):
            now, state = carry
            taken = jnp.maximum(rows, 0)
            weights = (rows >= 0).astype(x.dtype)
            moved = jax.grad(lambda now: mean_loss(losses, now, x[taken], y[taken], weights))(now)
            moved, state = optimizer.update(moved, state, now)
            return (optax.apply_updates(now, moved), state), None

        start = (params, optimizer.init(params))
        (after, _), _ = jax.lax.scan(step, start, jnp.asarray(batches, jnp.int32))
        return jax.tree.map(jnp.subtract, after, params)

    return client


def batches_in_order(
    num_rows: int, batch_size: int, epochs: int = 1, seed: int | None = None
) -> np.ndarray:
    """Returns the rows of each step of local training: in order, or in an order of each epoch.

    Args:
      num_rows: Rows of the client.
      batch_size: Rows of a step; the last one of an epoch may have fewer.
      epochs: Passes over the rows.
      seed: Draws the order of each epoch; None takes rows as they come. An attacker who does not
        know the order assumes one.

    Returns:
      int32[epochs * ceil(num_rows / batch_size), batch_size], for `local_training`.

    Example:
      >>> batches_in_order(3, 2).tolist()
      [[0, 1], [2, -1]]
    """
    for name, value in (("num_rows", num_rows), ("batch_size", batch_size), ("epochs", epochs)):
        checked(name, value, Field(None, int, COUNT))
    orders = np.tile(np.arange(num_rows), (epochs, 1))
    if seed is not None:
        words = random.bits(seed, "batches", np.arange(epochs)[:, None], orders)
        orders = np.argsort(words, axis=1, kind="stable")
    missing = -num_rows % batch_size
    padded = np.pad(orders, ((0, 0), (0, missing)), constant_values=-1)
    return padded.reshape(-1, batch_size).astype(np.int32)


def summed(client: Client, num_clients: int) -> Client:
    """Returns the sum of what clients send, as an attacker sees it behind secure aggregation.

    Args:
      client: What each does with its rows.
      num_clients: Among whom the rows are divided, in order and equally.

    Example:
      >>> both = summed(gradient(lambda params, x, y: params * x[:, 0]), 2)
      >>> float(both(1.0, jnp.array([[2.0], [4.0]]), jnp.array([0, 0])))
      6.0
    """
    checked("num_clients", num_clients, Field(None, int, COUNT))

    def together(params, x, y):
        if len(x) % num_clients:
            raise ValueError(
                f"{len(x)} rows cannot be divided among {num_clients} clients equally: give a "
                "multiple of rows."
            )
        x, y = (part.reshape(num_clients, -1, *part.shape[1:]) for part in (x, y))
        sent = jax.vmap(client, (None, 0, 0))(params, x, y)
        return jax.tree.map(lambda leaf: leaf.sum(0), sent)

    return together
