"""Weights of narrow dense layers kept transposed during local training.

A layer of few outputs has tall, narrow weights, and XLA's CPU backend takes far longer for their
gradient, `x.T @ g` [in, out], than for its transpose `g.T @ x` [out, in]: for 784 x 10 a whole step
of softmax regression takes twice as long. Such weights, and whatever is combined with them entry by
entry (gradients, momentum, the client's message, its update), may therefore be held transposed from
the broadcast to the sum over clients. What a job does is rewritten for it, so that algorithms and
models know nothing of it; only the order of sums changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.algorithm import Aggregate
from fljax.engine.program.accumulators import Finished
from fljax.engine.program.transposition import Traced, call, is_matrix, rewrite, trace

PyTree = Any

# Weights of more outputs gain nothing (measured at 200), nor do tiny ones.
_MAX_OUTPUTS = 32
_MIN_SIZE = 256


class Work(NamedTuple):
    """The work of one job.

    Attributes:
      start: (message, index, client rows) -> carry.
      step: (message, carry, index, *more) -> carry.
      finish: (message, carry, index, client rows) -> Finished.
      waits: Whether a step without rows leaves the carry as it is.
    """

    start: Callable[..., PyTree]
    step: Callable[..., PyTree]
    finish: Callable[..., Finished]
    waits: bool = False


class WeightLayout(NamedTuple):
    """The work of one job, in another layout.

    Attributes:
      work: As it was given, with packed messages, carries and values of contributions.
      pack: messages [S, ...] -> packed messages.
      unpack: {name: Aggregate of packed values [S, ...]} -> {name: Aggregate}.
    """

    work: Work
    pack: Callable[[PyTree], PyTree]
    unpack: Callable[[dict[str, Aggregate]], dict[str, Aggregate]]


def as_given(work: Work, *arguments: Any) -> WeightLayout:
    """Returns the layout that changes nothing; the arguments are those of `transposed_weights`."""
    del arguments
    return WeightLayout(work, lambda messages: messages, lambda sums: sums)


def transposed_weights(
    work: Work, message: PyTree, client_rows: PyTree, arguments: tuple, summed: bool
) -> WeightLayout:
    """Returns the layout that holds the weights of narrow dense layers transposed.

    Args:
      work: What a job does.
      message: Arrays or shapes of one job's message.
      client_rows: Arrays or shapes of what one job's client keeps.
      arguments: Arrays or shapes of `index, *more`.
      summed: Whether nothing but sums is taken of contributions; otherwise they stay as they are,
        and so do those with one weight an entry.
    """
    index, *_ = arguments
    starting = call(work.start, message, index, client_rows)
    carry = starting.shapes
    if not any(map(_is_narrow, jax.tree.leaves(carry))):
        return as_given(work)
    step = trace(work.step, message, carry, *arguments)
    if step.results != jax.tree.structure(carry):
        return as_given(work)  # the loop over steps says best what is wrong
    chosen = _narrow_weights(step)
    if not any(jax.tree.leaves(chosen)):
        return as_given(work)

    start, ending = starting.written_out(), call(work.finish, message, carry, index, client_rows)
    finish, result = ending.written_out(), ending.shapes
    still = lambda tree: jax.tree.map(lambda _: False, tree)  # noqa: E731
    job = False, still(client_rows)
    in_start = start.containing((still(message), *job), chosen)
    in_step = step.containing((still(message), chosen, *still(arguments)), chosen)
    in_step |= step.factors(in_step)
    in_finish = finish.containing((still(message), chosen, *job), still(result))
    (start_message, *_), _ = start.members(in_start)
    (step_message, *_), _ = step.members(in_step)
    (finish_message, *_), held = finish.members(in_finish)
    sent = jax.tree.map(lambda *uses: any(uses), start_message, step_message, finish_message)
    moved = {
        name: value if summed and _are_numbers(result.weights[name]) else still(value)
        for name, value in held.values.items()
    }
    return WeightLayout(
        Work(
            rewrite(start, in_start, (sent, *job), chosen),
            rewrite(step, in_step, (sent, chosen, *still(arguments)), chosen),
            rewrite(finish, in_finish, (sent, chosen, *job), still(result)._replace(values=moved)),
        ),
        pack=lambda messages: _flip(sent, messages),
        unpack=lambda sums: {
            name: total._replace(sum=_flip(moved[name], total.sum)) for name, total in sums.items()
        },
    )


def _narrow_weights(step: Traced) -> PyTree:
    """Returns a tree of bool that marks the parts of the carry to hold transposed."""
    message, carry, *_ = step.arguments.children()
    before = step.jaxpr.invars[message.num_leaves :][: carry.num_leaves]
    products, of = step.products(), step.groups.of
    marks = [
        _is_narrow(old.aval) and is_matrix(new) and of(old) == of(new) and of(old) in products
        for old, new in zip(before, step.jaxpr.outvars, strict=True)
    ]
    return step.results.unflatten(marks)


def _is_narrow(leaf: Any) -> bool:
    if leaf.ndim != 2 or leaf.size < _MIN_SIZE:
        return False
    inputs, outputs = leaf.shape
    return 1 < outputs <= min(_MAX_OUTPUTS, inputs // 2)


def _are_numbers(weights: PyTree) -> bool:
    return not any(leaf.shape for leaf in jax.tree.leaves(weights))


def _flip(transposed: PyTree, tree: PyTree) -> PyTree:
    """Exchanges the last two axes of the leaves that are marked."""
    return jax.tree.map(
        lambda yes, leaf: jnp.swapaxes(leaf, -1, -2) if yes else leaf, transposed, tree
    )
