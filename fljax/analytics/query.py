"""The contract of a query: a statistic of what clients hold, asked for in sums of their messages.

A query is put in one or more questions. For each of them clients read every row once and send one
message; the server adds messages up, and makes the next question, or the answer, of their total.
Nothing but these sums is needed of a client, so that clipping, noise, compression and secure
aggregation do to them what they do to updates of models.

  >>> from fljax.analytics.moments import mean
  >>> query = mean(low=0.0, high=10.0, weight_cap=1.0)
  >>> rows, mask = jnp.array([2.0, 4.0, 99.0]), jnp.array([True, True, False])
  >>> local = query.fold((), query.start((), None), rows, mask, None)
  >>> {name: float(value) for name, value in query.send((), local, None).items()}
  {'count': 1.0, 'sum': -0.4000000059604645}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Asked(NamedTuple):
    """Facts on the host about those who have answered a question.

    Attributes:
      clients: How many the population has.
      share: Of the population that was asked, 1 for everybody; those who are drawn several times
        count as often.
      noise: Standard deviation of the noise in each number of the total; 0 for none, None where
        nobody knows.
      cohorts: The totals of cohorts that were drawn alike, leaves [G, ...], for the error of a
        sample; None where everybody was asked.
      replaced: Whether cohorts are drawn anew each time, so that they may share clients.
    """

    clients: int
    share: float = 1.0
    noise: float | None = 0.0
    cohorts: PyTree = None
    replaced: bool = False


class Answer(NamedTuple):
    """An answer, in plain values.

    Attributes:
      value: A number, or an array, list or dict of such, as the query says.
      standard_error: Like `value`; 0 where it is exact, None where no theory says it.
      unit: Of both: "value" for that of the rows, "rows", "clients", "items", ...
      theory: What the standard error, or what stands in its place, follows from, in a sentence.
      details: {name: value} of what else was found.
    """

    value: Any
    standard_error: Any
    unit: str
    theory: str
    details: dict[str, Any] = {}


class Query(NamedTuple):
    """A statistic, and how it is asked for. The functions but `answer` run inside a trace.

    Attributes:
      name: For records.
      message: Shapes and types of what a client sends, a tree of `jax.ShapeDtypeStruct`.
      question: The first question, a pytree of arrays; () where there is nothing to say.
      start: (told, job) -> carry of a client before its first row; `told` is what `tell` returns.
      fold: (told, carry, values[B, ...], mask[B], job) -> carry after some rows. Of rows whose mask
        is false, padding and such as are not finite, `values` holds anything.
      send: (told, carry, job) -> message.
      follow: (question, total) -> the next question.
      answer: (the last question, its total, Asked) -> Answer, on the host, in NumPy; the total is
        not scaled to the population.
      questions: How many there are.
      sensitivity: Bound of the norm of a message, whatever a client holds: what the clip norm must
        be under differential privacy. Infinity where there is none.
      bounds: What would bound it, for messages.
      largest: Bound of each number of a message.
      whole: Whether messages are whole numbers.
      cohort: How many clients, drawn at random, each question is put to, where the query says so
        itself; None for whomever the caller asks.
      promise: What the query promises by itself of privacy, without noise; None for nothing.
      everybody: Whether a sample of the clients says nothing about the others.
      most_noise: Standard deviation of the noise in a total beyond which it says nothing.
      tell: (question) -> what clients are told of it; by default all.
    """

    name: str
    message: PyTree
    question: PyTree
    start: Callable[[PyTree, Any], PyTree]
    fold: Callable[[PyTree, PyTree, jax.Array, jax.Array, Any], PyTree]
    send: Callable[[PyTree, PyTree, Any], PyTree]
    follow: Callable[[PyTree, PyTree], PyTree]
    answer: Callable[[PyTree, PyTree, Asked], Answer]
    questions: int = 1
    sensitivity: float = math.inf
    bounds: str = ""
    largest: float = math.inf
    whole: bool = False
    cohort: int | None = None
    promise: Promise | None = None
    everybody: bool = False
    most_noise: float = math.inf
    tell: Callable[[PyTree], PyTree] = lambda question: question


class Promise(NamedTuple):
    """The privacy of a query by the way it is put, without noise.

    Attributes:
      epsilon, delta: Of all questions together.
      covers: Whom it covers, and by which theorem.
    """

    epsilon: float
    delta: float
    covers: str


SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


def unchanged(question: PyTree, total: PyTree) -> PyTree:
    """Returns the question itself: for queries that have one.

    Example:
      >>> unchanged(3, None)
      3
    """
    del total
    return question
