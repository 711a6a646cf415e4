"""Makes algorithms of queries: what the engine runs in the place of training.

The statistic takes the place of the model, and a client's message that of its update. A question
is put to one cohort after another; the server adds up what they send, and behind the last of them
asks the next question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.analytics.query import Query
from fljax.core.algorithm import Algorithm, AlgorithmSpec, ClientPass, Contribution, Variables
from fljax.core.metrics import LOSS
from fljax.core.task import Measured, Task
from fljax.core.transforms import UPDATE

PyTree = Any


class Heard(NamedTuple):
    """The server's state.

    Attributes:
      question: The one that is asked.
      total: The sum of its messages so far.
      cohorts: The sums of its cohorts, leaves [G, ...]; () where they are not told apart.
    """

    question: PyTree
    total: PyTree
    cohorts: PyTree


class Read(NamedTuple):
    """A client's reading so far: the query's carry, and how many rows count, and do not."""

    carry: PyTree
    rows: jax.Array
    left_out: jax.Array


def algorithm_of(
    query: Query,
    values_of: Callable[[Mapping[str, Any]], jax.Array],
    cohorts: int = 1,
    *,
    apart: bool = False,
) -> AlgorithmSpec:
    """Returns the algorithm that asks a query.

    Rows that are not finite do not count; the record has how many they are.

    Args:
      query: What is asked.
      values_of: (batch) -> [B, ...], the values of its rows.
      cohorts: Rounds of a question.
      apart: Whether the sums of the cohorts of a question are kept.

    Example:
      >>> from fljax.analytics.moments import mean
      >>> spec = algorithm_of(mean(), lambda batch: batch["y"])
      >>> spec.name, spec.build(None, {}).passes[0].schedule
      ('mean', 'epoch')
    """
    rounds = query.questions * cohorts

    def build(task, hparams) -> Algorithm:
        del task, hparams

        def start(told, client_state, job):
            del client_state
            return Read(query.start(told, job), jnp.int32(0), jnp.int32(0))

        def step(told, read: Read, batch, job):
            values, mask = values_of(batch), batch["mask"]
            counts = mask & _is_finite(values)
            carry = query.fold(told, read.carry, values, counts, job)
            rows = counts.sum(dtype=jnp.int32)
            left_out = mask.sum(dtype=jnp.int32) - rows
            return Read(carry, read.rows + rows, read.left_out + left_out)

        def finish(told, read: Read, job):
            message = query.send(told, read.carry, job)
            sent = Contribution(message, jnp.ones((), jnp.float32))
            return {UPDATE: sent}, (), {"rows": read.rows, "left_out": read.left_out}

        def server_update(state: Heard, aggregates, round):
            turn = round % cohorts
            sums = aggregates[UPDATE].sum
            total = jax.tree.map(lambda t, m: jnp.where(turn == 0, 0, t) + m, state.total, sums)
            kept = ()
            if apart:
                kept = jax.tree.map(lambda all, m: all.at[turn].set(m), state.cohorts, sums)
            # what is heard last is left for the answer
            goes_on = (turn == cohorts - 1) & (round < rounds - 1)
            question = jax.tree.map(
                lambda new, old: jnp.where(goes_on, new, old),
                query.follow(state.question, total),
                state.question,
            )
            return Heard(question, total, kept)

        def init(variables: Variables) -> Heard:
            question = jax.tree.map(jnp.asarray, query.question)
            stack = lambda leaf: jnp.zeros((cohorts, *leaf.shape), leaf.dtype)  # noqa: E731
            kept = jax.tree.map(stack, variables.params) if apart else ()
            return Heard(question, variables.params, kept)

        reading = ClientPass(
            broadcast=lambda state, aggregates: query.tell(state.question),
            start=start,
            step=step,
            finish=finish,
            schedule="epoch",
        )
        return Algorithm(
            init=init,
            passes=(reading,),
            server_update=server_update,
            variables=lambda state: Variables(state.total, {}),
        )

    return AlgorithmSpec(query.name, build, {})


def _is_finite(values: jax.Array) -> jax.Array:
    """Returns bool[B], whether all of a row is finite."""
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        return jnp.ones(values.shape[:1], bool)
    return jnp.isfinite(values).reshape(len(values), -1).all(1)


def task_of(query: Query) -> Task:
    """Returns the task that stands for a query: its statistic is the model, and nothing is learned.

    Example:
      >>> from fljax.analytics.moments import mean
      >>> params, frozen, model_state = task_of(mean()).init(None)
      >>> sorted(params), frozen, model_state
      (['count', 'sum'], {}, {})
    """

    def init(key):
        del key
        wide = jnp.result_type(float)
        return jax.tree.map(lambda like: jnp.zeros(like.shape, wide), query.message), {}, {}

    def loss(params, frozen, model_state, batch, key, train):
        mask = batch["mask"]
        return (jnp.zeros(mask.shape), mask.astype(jnp.int32)), model_state

    def measure(params, frozen, model_state, batch):
        mask = batch["mask"]
        return Measured({LOSS.name: (jnp.zeros(mask.shape), mask.astype(jnp.int32))})

    return Task(init, loss, measure, (LOSS,), "analytics")
