"""Searches for the least value of a function from one start, as one loop on the device.

Each turn of the loop evaluates the function once, and an optimizer says where next. So the function
is compiled once, and many starts under `jax.vmap` never wait for one another's line searches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["Optimizer", "adam", "lbfgs", "search"]

# Of the line search: what share of the promised decrease is enough, and of the slope little enough.
_DECREASE, _CURVATURE = 1e-4, 0.9
# Trials along one direction, after which floats do not tell values apart any more.
_MOST_TRIALS = 25
_MEMORY = 10


class Optimizer(NamedTuple):
    """A rule that says where a function is evaluated next.

    Attributes:
      init: (start float[n]) -> state.
      trial: (state) -> float[n], the point to evaluate.
      update: (state, point, value, gradient) -> state'.
      ended: (state) -> bool scalar, whether nothing is left to try.
    """

    init: Callable[[jax.Array], Any]
    trial: Callable[[Any], jax.Array]
    update: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
    ended: Callable[[Any], jax.Array]


def search(
    function: Callable[[jax.Array], jax.Array],
    optimizer: Optimizer,
    start: jax.Array,
    steps: int,
    tolerance: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Returns the best of the points that were evaluated, and the function's value there.

    Args:
      function: (float[n]) -> scalar.
      optimizer: Says where next.
      start: float[n], where the search begins.
      steps: Evaluations at most.
      tolerance: A value below which the search ends.

    Returns:
      float[n], the best point, and its value, which is infinite where no value was a number.

    Example:
      >>> best, value = search(lambda x: ((x - 3) ** 2).sum(), lbfgs(), jnp.zeros(2), 20)
      >>> best.tolist()
      [3.0, 3.0]
    """

    def goes_on(carry):
        state, _, best_value, step = carry
        return (step < steps) & (best_value > tolerance) & ~optimizer.ended(state)

    def turn(carry):
        state, best, best_value, step = carry
        point = optimizer.trial(state)
        value, slope = jax.value_and_grad(function)(point)
        better = value < best_value
        best = jnp.where(better, point, best)
        state = optimizer.update(state, point, value, slope)
        return state, best, jnp.where(better, value, best_value), step + 1

    infinite = jnp.full((), jnp.inf, jax.eval_shape(function, start).dtype)
    carry = optimizer.init(start), start, infinite, 0
    _, best, value, _ = jax.lax.while_loop(goes_on, turn, carry)
    return best, value


class _Adam(NamedTuple):
    point: jax.Array
    inner: Any
    ended: jax.Array


def adam(
    learning_rate: float | Callable,
    transform: Callable[[jax.Array], jax.Array] = lambda gradient: gradient,
    project: Callable[[jax.Array], jax.Array] = lambda point: point,
) -> Optimizer:
    """Returns Adam with a transform of gradients before it, and a projection of points behind it.

    Args:
      learning_rate: A number, or a schedule of optax.
      transform: (gradient) -> gradient, such as signs.
      project: (point) -> point, such as a box.

    Example:
      >>> found, value = search(lambda x: (x - 3) ** 2, adam(0.5), jnp.zeros(()), 200)
      >>> bool(value < 1e-3)
      True
    """
    inner = optax.adam(learning_rate)

    def update(state, point, value, gradient):
        moved, after = inner.update(transform(gradient), state.inner)
        ended = ~jnp.isfinite(value)
        return _Adam(project(optax.apply_updates(point, moved)), after, ended)

    return Optimizer(
        init=lambda start: _Adam(start, inner.init(start), jnp.bool_(False)),
        trial=lambda state: state.point,
        update=update,
        ended=lambda state: state.ended,
    )


class _Line(NamedTuple):
    """A line search of L-BFGS: where it began, and what is known of the step's length."""

    point: jax.Array
    value: jax.Array
    direction: jax.Array
    slope: jax.Array
    length: jax.Array
    low: jax.Array
    high: jax.Array
    trials: jax.Array
    memory: Any


def lbfgs() -> Optimizer:
    """Returns L-BFGS with the bracketing line search of Lewis and Overton (2013).

    A step's length is doubled until the slope is little enough, and halved between the bounds known
    by then; both conditions of Wolfe hold for the steps that are taken, which keeps the
    approximation of the Hessian positive. The two loops are optax's, of 10 pairs.

    Example:
      >>> rosenbrock = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
      >>> found, value = search(rosenbrock, lbfgs(), jnp.array([-1.2, 1.0]), 100)
      >>> bool(value < 1e-6)
      True
    """
    hessian = optax.scale_by_lbfgs(memory_size=_MEMORY)

    def init(point):
        number = jnp.zeros((), point.dtype)
        # the first trial is the start itself, which nothing is asked of
        return _Line(
            point, number, jnp.zeros_like(point), number, number, number, number + jnp.inf,
            jnp.zeros((), jnp.int32), hessian.init(point),
        )  # fmt: skip

    def update(state, point, value, gradient):
        first = state.length == 0
        lower = value <= state.value + _DECREASE * state.length * state.slope
        flatter = gradient @ state.direction >= _CURVATURE * state.slope
        taken = first | (lower & flatter)
        low = jnp.where(lower, state.length, state.low)
        high = jnp.where(lower, state.high, state.length)
        middle = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low)
        same_line = state._replace(length=middle, low=low, high=high, trials=state.trials + 1)
        next_line = _next_line(hessian, state, point, value, gradient)
        return jax.tree.map(lambda new, old: jnp.where(taken, new, old), next_line, same_line)

    return Optimizer(
        init=init,
        trial=lambda state: state.point + state.length * state.direction,
        update=update,
        ended=lambda state: (state.trials > _MOST_TRIALS) | ~jnp.isfinite(state.value),
    )


def _next_line(hessian, state: _Line, point, value, gradient) -> _Line:
    """Returns the line search from a new point on, along the direction that L-BFGS proposes."""
    moved, memory = hessian.update(gradient, state.memory, point)
    slope = -(gradient @ moved)
    descends = slope < 0
    # what was remembered misleads where rounding made it so
    steepest = gradient * jnp.minimum(1, 1 / jnp.linalg.norm(gradient))
    moved = jnp.where(descends, moved, steepest)
    fresh = hessian.init(point)._replace(
        count=jnp.ones((), jnp.int32), params=point, updates=gradient
    )
    memory = jax.tree.map(lambda new, old: jnp.where(descends, new, old), memory, fresh)
    zero = jnp.zeros_like(value)
    return _Line(
        point, value, -moved, jnp.where(descends, slope, -(gradient @ steepest)), zero + 1, zero,
        zero + jnp.inf, jnp.zeros((), jnp.int32), memory,
    )  # fmt: skip
