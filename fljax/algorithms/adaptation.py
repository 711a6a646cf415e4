"""Trains a model further on a client's own rows, when its own model is judged."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fljax.algorithms.fedavg import stepped
from fljax.core.algorithm import Variables
from fljax.core.gradients import LocalTask
from fljax.core.precision import widened

PyTree = Any


def adapted(
    task: LocalTask,
    optimizer: optax.GradientTransformation,
    variables: Variables,
    batch: PyTree,
    key: jax.Array,
    *,
    epochs: int,
    batch_size: int,
    trained: PyTree | None = None,
) -> Variables:
    """Returns a model after some epochs on a client's rows, in a new order in each.

    Args:
      task: The bound task.
      optimizer: Of the steps; it starts anew.
      variables: Where training starts.
      batch: All rows of the client in one batch, with padding behind, as `Algorithm.personalize` is
        given them; a client without rows keeps the model as it is.
      key: Of the order of rows and of the steps.
      epochs: How often each row is read.
      batch_size: Rows of a step; the last one of an epoch has those that are left. 0 takes all rows
        at once.
      trained: Pytree of bools like the parameters, which of them change; None for all.
    """
    size = batch["mask"].shape[0]
    width = min(batch_size or size, size)
    rows = batch["mask"].sum()
    steps = -(-rows // width)

    def step(number, carry, order, key):
        params, model_state, opt_state = carry
        places = number * width + jnp.arange(width)
        # what pads the last batch are rows of the client as well, for models that see them
        own = order[places % jnp.maximum(rows, 1)]
        some = {**jax.tree.map(lambda leaf: leaf[own], batch), "mask": places < rows}
        step_key = jax.random.fold_in(key, number)
        grads, _, model_state = task.gradient(params, model_state, some, step_key)
        grads = only(grads, trained)
        new, opt_state = stepped(optimizer, grads, opt_state, params)
        return selected(trained, new, params), model_state, opt_state

    def epoch(number, carry):
        order_key, steps_key = jax.random.split(jax.random.fold_in(key, number))
        draws = jax.random.uniform(order_key, (size,))
        order = jnp.argsort(jnp.where(batch["mask"], draws, 2))
        return jax.lax.fori_loop(
            0, steps, lambda number, carry: step(number, carry, order, steps_key), carry
        )

    start = variables.params, variables.model_state, optimizer.init(widened(variables.params))
    params, model_state, _ = jax.lax.fori_loop(0, epochs, epoch, start)
    return Variables(params, model_state)


def only(grads: PyTree, trained: PyTree | None) -> PyTree:
    """Returns gradients that are zero where nothing is trained.

    Args:
      grads: The gradients.
      trained: As for `selected`.
    """
    return selected(trained, grads, jax.tree.map(jnp.zeros_like, grads))


def selected(trained: PyTree | None, new: PyTree, old: PyTree) -> PyTree:
    """Returns the leaves of `new` where something is trained, and of `old` elsewhere.

    Args:
      trained: Pytree of bools, known or computed, one for each leaf; None is all.
      new, old: Pytrees.
    """
    if trained is None:
        return new

    def leaf_of(is_trained, new, old):
        if isinstance(is_trained, bool):
            return new if is_trained else old
        return jnp.where(is_trained, new, old)

    return jax.tree.map(leaf_of, trained, new, old)
