"""Draws what a released model holds to be typical of each class, from the model alone.

Fredrikson, Jha and Ristenpart 2015, "Model inversion attacks that exploit confidence information
and basic countermeasures", algorithm 1 (MI-FACE): gradient descent on the cost 1 - f_c(x), where
f_c(x) is the probability that the model gives class c. It finds no row of anybody: where classes
are people it finds a person, else an image of what the class has in common.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax.audits.reconstruction.objectives import total_variation as variation
from fljax.audits.reconstruction.similarity import psnr
from fljax.core.values import COUNT, FACTOR, FINITE, NON_NEGATIVE, POSITIVE, Field, checked, wrong

__all__ = ["ClassLikeness", "InvertedClasses", "invert_classes", "likeness_of_means"]

PyTree = Any


class InvertedClasses(NamedTuple):
    """Rows that a model holds to be typical of its classes.

    Attributes:
      x: float32[C, ...], of the least cost among those tried.
      scores: float64[C], the probability that the model gives the class there.
      steps: int64[C], taken until the search ended.
    """

    x: np.ndarray
    scores: np.ndarray
    steps: np.ndarray


def invert_classes(
    logits: Callable[[PyTree, jax.Array], jax.Array],
    params: PyTree,
    shape: Sequence[int],
    num_classes: int,
    *,
    learning_rate: float = 0.1,
    steps: int = 5000,
    patience: int = 100,
    enough: float = 0.99,
    total_variation: float = 0.0,
    box: tuple[float, float] | None = (0.0, 1.0),
    start: float = 0.0,
    cost: str = "score",
) -> InvertedClasses:
    """Returns an input of each class that the model is as sure of as can be; all side by side.

    Numbers are those of the paper. It stops at a cost below 0.99, which is nearly always so; here
    0.99 is the score at which a class is done. Its processing between steps is the box here.

    Args:
      logits: (params, x [B, ...]) -> float[B, C].
      params: Of the released model.
      shape: That of one row.
      num_classes: C.
      learning_rate: Of gradient descent.
      steps: At most.
      patience: How many steps may pass without a cost below the largest of them.
      enough: The score at which a class is done.
      total_variation: Weight of the total variation of images in the cost.
      box: (least, largest) value of x, into which each step is projected; None for none.
      start: All of x at first: 0, or the mean of all data if the attacker knows it.
      cost: "score" for 1 - f, as in the paper, or "log" for -log f, whose gradient does not vanish
        where a model is sure of other classes.

    Raises:
      ValueError: For values out of range.

    Example:
      >>> found = invert_classes(lambda w, x: x @ w, 9 * jnp.eye(2), (2,), 2, steps=500)
      >>> found.x.argmax(1).tolist(), bool((found.scores > 0.98).all())
      ([0, 1], True)
    """
    numbers = {
        "learning_rate": checked("learning_rate", learning_rate, Field(None, float, POSITIVE)),
        "enough": checked("enough", enough, Field(None, float, FACTOR)),
        "weight": checked("total_variation", total_variation, Field(None, float, NON_NEGATIVE)),
        "start": checked("start", start, Field(None, float, FINITE)),
    }
    for name, value in (("num_classes", num_classes), ("steps", steps), ("patience", patience)):
        checked(name, value, Field(None, int, COUNT))
    checked("cost", cost, Field(None, str, ("score", "log")))
    if box is not None and (len(box) != 2 or not box[0] < box[1]):
        raise wrong("box", box, "(least, largest)")
    shape = tuple(shape)
    if total_variation and len(shape) not in (2, 3):
        raise ValueError(
            f"total_variation = {total_variation:g} is a prior of images [H, W] or [H, W, C], and "
            f"a row has the shape {shape}: leave it out."
        )
    x, scores, taken = _invert(
        params, numbers, logits, shape, num_classes, steps, patience,
        None if box is None else tuple(box), cost, bool(total_variation),
    )  # fmt: skip
    return InvertedClasses(
        np.asarray(x), np.asarray(scores, np.float64), np.asarray(taken, np.int64)
    )


class _Descent(NamedTuple):
    x: jax.Array
    best: jax.Array
    best_cost: jax.Array
    best_score: jax.Array
    costs: jax.Array
    step: jax.Array
    ended: jax.Array


@functools.partial(jax.jit, static_argnums=tuple(range(2, 10)))
def _invert(params, numbers, logits, shape, num_classes, steps, patience, box, cost, has_variation):
    def cost_of(x, label):
        log_score = jax.nn.log_softmax(logits(params, x[None])[0])[label]
        value = 1 - jnp.exp(log_score) if cost == "score" else -log_score
        if has_variation:
            value += numbers["weight"] * variation(x[None])
        return value, jnp.exp(log_score)

    def descend(label):
        def turn(now: _Descent):
            (value, score), slope = jax.value_and_grad(cost_of, has_aux=True)(now.x, label)
            better = value < now.best_cost
            stuck = (now.step > 0) & ~(value < now.costs.max())
            x = now.x - numbers["learning_rate"] * slope
            return _Descent(
                x if box is None else jnp.clip(x, *box),
                jnp.where(better, now.x, now.best),
                jnp.where(better, value, now.best_cost),
                jnp.where(better, score, now.best_score),
                now.costs.at[now.step % patience].set(value),
                now.step + 1,
                stuck | (score >= numbers["enough"]),
            )

        x = jnp.full(shape, numbers["start"], jnp.float32)
        number = jnp.zeros(())
        start = _Descent(
            x, x, number + jnp.inf, number, jnp.full(patience, -jnp.inf),
            jnp.zeros((), jnp.int32), jnp.bool_(False),
        )  # fmt: skip
        # the start and what each step leads to are looked at
        end = jax.lax.while_loop(lambda now: (now.step <= steps) & ~now.ended, turn, start)
        return end.best, end.best_score, end.step - 1

    return jax.vmap(descend)(jnp.arange(num_classes))


class ClassLikeness(NamedTuple):
    """Nearness of inverted classes to the means of the true ones.

    Attributes:
      psnr: float64[C], of each inverted class and its class's mean, dB.
      correlation: float64[C, C], Pearson's, of inverted classes and the means of all classes; NaN
        for what is constant.
      nearest: int64[C], the class whose mean each correlates with most; -1 where none does.
    """

    psnr: np.ndarray
    correlation: np.ndarray
    nearest: np.ndarray


def likeness_of_means(found: Any, means: Any, data_range: float = 1.0) -> ClassLikeness:
    """Returns how near inverted classes come to the means of the true ones.

    Args:
      found: [C, ...] inverted classes.
      means: [C, ...] the mean row of each class.
      data_range: Largest less least value that data may have.

    Raises:
      ValueError: For shapes that differ.

    Example:
      >>> likeness_of_means(np.eye(2), np.eye(2) / 2).nearest.tolist()
      [0, 1]
    """
    each = psnr(found, means, data_range)
    first, second = (_standardized(rows) for rows in (found, means))
    correlation = first @ second.T
    known = np.where(np.isnan(correlation), -np.inf, correlation)
    nearest = np.where(np.isfinite(known.max(1)), known.argmax(1), -1)
    return ClassLikeness(each, correlation, nearest)


def _standardized(rows: Any) -> np.ndarray:
    """Returns rows [C, D] of mean 0 and norm 1; NaN for what is constant."""
    rows = np.asarray(rows, np.float64)
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norms > 0, rows / norms, np.nan)
