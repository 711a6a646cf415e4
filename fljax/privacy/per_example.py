"""Clips the gradient of each example, and adds noise to their sum: the gradient of DP-SGD.

Abadi et al. 2016, "Deep learning with differential privacy" (arXiv:1607.00133). What a step of
local training adds to the model depends on one example by clip_norm / (rows of a batch on average)
at most, whatever that example is, and the noise is clip_norm x noise_multiplier in the same units.
The denominator is what batches have on average, never what this one has, which would tell whether
an example is in it; a batch that happens to be empty is noise alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fljax.core.gradients import LossSums
from fljax.privacy.ghost import factored, square_norms, weighted_sum

__all__ = ["clipped_gradients"]

PyTree = Any
Estimator = Callable[[Callable], Callable]
# Purposes of random numbers beside those of a model, whose key is the step's own.
_EXAMPLES, _NOISE = 0x6578616D, 0x6E6F6973
# What is wrong with models that keep statistics of their batches.
MIXES_EXAMPLES = (
    "the model keeps a state that training updates, such as BatchNorm's statistics, which mix the "
    "examples of a batch: no clipping bounds what one of them changes there. Use a model without, "
    "such as one with GroupNorm or LayerNorm (resnet18_gn)."
)
# So that no sum of losses, which the record alone has, leaves the range of float32.
_LARGEST_LOSS = 1e30
# Norms are sums of squares in float32; what they may be too small by.
_SLACK = 1 - 2.0**-20


def clipped_gradients(clip_norm: Any, noise_multiplier: Any, microbatch: int = 0) -> Estimator:
    """Returns the gradient estimator of DP-SGD, as `fljax.core.gradients.plain` is one.

    The gradient of each example's mean loss is clipped to a norm; one that is not finite counts as
    zero. To their sum, noise is added, and it is divided by the batch's "size", the number of its
    rows on average, or by its width where it has none.

    Args:
      clip_norm: Bound of an example's gradient, all layers together; may be traced.
      noise_multiplier: Standard deviation of the noise, in units of the clip norm; may be traced.
      microbatch: Examples whose gradients are there at once; 0 for all of a batch. Fewer take less
        memory and more time. Dense layers take little memory in any case.

    Returns:
      (loss) -> ((params, model_state, batch, key) -> (gradient, LossSums, model_state)).

    Raises:
      ValueError: In the estimator, for a model with a state: statistics of a batch (BatchNorm)
        depend on all its examples, and clipping bounds the influence of none of them.

    Example:
      >>> def loss(params, model_state, batch, key, train):
      ...     errors = jnp.square(batch["x"] @ params - batch["y"]) / 2
      ...     return LossSums(errors.sum(), batch["mask"].sum()), model_state
      >>> batch = {"x": jnp.array([[9.0], [0.5]]), "y": jnp.zeros(2), "mask": jnp.ones(2, bool)}
      >>> gradient = clipped_gradients(clip_norm=1.0, noise_multiplier=0.0)(loss)
      >>> print(gradient(jnp.ones(1), {}, batch, jax.random.key(0))[0].round(4))
      [0.625]
    """

    def estimator(loss):
        def example_gradient(params, example, key):
            def mean_loss(params):
                row = jax.tree.map(lambda leaf: leaf[None], example)
                sums, _ = loss(params, {}, row, key, True)
                return sums.loss / jnp.maximum(sums.weight, 1), sums

            return jax.grad(mean_loss, has_aux=True)(params)

        each = jax.vmap(factored(example_gradient), (None, 0, 0))

        def clipped_sum(params, examples, keys):
            """Returns (list of leaves, LossSums), sums over examples."""
            leaves, sums = each(params, examples, keys)
            squares = sum(map(square_norms, leaves))
            counts = examples["mask"] & jnp.isfinite(squares) & jnp.isfinite(sums.loss)
            factors = _clip_factors(squares, clip_norm, counts)
            total = [weighted_sum(leaf, factors) for leaf in leaves]
            losses = jnp.clip(sums.loss, -_LARGEST_LOSS, _LARGEST_LOSS)
            loss_sum = jnp.where(counts, losses, 0).sum()
            return total, LossSums(loss_sum, jnp.where(counts, sums.weight, 0).sum())

        def gradient(params, model_state, batch, key):
            _check_stateless(model_state)
            examples = {name: part for name, part in batch.items() if name != "size"}
            size = batch.get("size", batch["mask"].shape[0])
            keys = jax.random.split(jax.random.fold_in(key, _EXAMPLES), batch["mask"].shape[0])
            total, sums = _in_parts(clipped_sum, params, examples, keys, microbatch)
            leaves, structure = jax.tree.flatten(params)
            noise_keys = jax.random.split(jax.random.fold_in(key, _NOISE), len(leaves))
            scale = jnp.where(noise_multiplier == 0, 0, clip_norm * noise_multiplier)
            grads = [
                ((part + scale * jax.random.normal(key, leaf.shape, part.dtype)) / size).astype(
                    leaf.dtype
                )
                for part, leaf, key in zip(total, leaves, noise_keys, strict=True)
            ]
            return jax.tree.unflatten(structure, grads), sums, model_state

        return gradient

    return estimator


def _clip_factors(squares: jax.Array, clip_norm: Any, counts: jax.Array) -> jax.Array:
    """Returns what each example's gradient is multiplied by; 0 where it does not count."""
    norms = jnp.sqrt(jnp.where(counts, squares, 0))
    bound = jnp.asarray(clip_norm, norms.dtype) * _SLACK
    factors = jnp.where(norms > bound, bound / jnp.where(norms > 0, norms, 1), 1)
    return jnp.where(counts, factors, 0)


def _in_parts(clipped_sum: Callable, params, examples, keys, microbatch: int):
    """Returns the sums over a batch, found a few examples at a time as far as there are real ones.

    Real rows are as a rule the first ones of a batch, so that padding takes no time.
    """
    rows = len(keys)
    if not 0 < microbatch < rows:
        return clipped_sum(params, examples, keys)
    last = jnp.max(jnp.where(examples["mask"], jnp.arange(1, rows + 1), 0))
    # rows that are padded by the first one, whose copies do not count
    places = jnp.arange(rows + -rows % microbatch)
    padded = jax.tree.map(lambda leaf: leaf[jnp.where(places < rows, places, 0)], (examples, keys))
    padded[0]["mask"] &= places < rows

    def part(number):
        begin = number * microbatch
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, begin, microbatch), padded)

    def add(number, total):
        return jax.tree.map(jnp.add, total, clipped_sum(params, *part(number)))

    shapes = jax.eval_shape(lambda: clipped_sum(params, *part(0)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.fori_loop(0, (last + microbatch - 1) // microbatch, add, zeros)


def _check_stateless(model_state: PyTree) -> None:
    """Raises ValueError for a model that keeps statistics of its batches."""
    if jax.tree.leaves(model_state):
        raise ValueError(MIXES_EXAMPLES)
