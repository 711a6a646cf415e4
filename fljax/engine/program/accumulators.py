"""Accumulators of one device: streamed sums, the stack where one is needed, per-job results."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.core.algorithm import Aggregate
from fljax.core.transforms import UPDATE
from fljax.core.trees import add_rows, like, put, put_some, zeros_like_shape
from fljax.engine.plan.round_plan import JobArrays

PyTree = Any


class Finished(NamedTuple):
    """What one job leaves behind.

    Attributes:
      values, weights: {name: pytree}, its contributions after the uplink.
      client_rows: The client's state.
      stats: {name: scalar}.
      kept: Whether it was accepted and everything is finite.
    """

    values: dict[str, PyTree]
    weights: dict[str, PyTree]
    client_rows: PyTree
    stats: dict[str, jax.Array]
    kept: jax.Array


class Trained(NamedTuple):
    """What the jobs of a pass leave behind on one device.

    Attributes:
      sums: {name: Aggregate} with leaves [S, ...], one entry a segment.
      stack: [J, P] flattened updates of all jobs, or [J, 0] where no one needs them.
      weights: [J] their weights.
      client_rows: Client state [J, ...] after the accepted jobs.
      stats: {name: [J]}.
    """

    sums: dict[str, Aggregate]
    stack: jax.Array
    weights: jax.Array
    client_rows: PyTree
    stats: dict[str, jax.Array]


def empty(
    job: Finished, client_rows: PyTree, num_jobs: int, num_trials: int, needs_stack: bool
) -> Trained:
    """Returns zeroed accumulators for jobs of such shapes."""
    sums = {
        name: Aggregate(
            zeros_like_shape(value, num_trials),
            zeros_like_shape(job.weights[name], num_trials),
            jnp.zeros(num_trials, jnp.float32),
        )
        for name, value in job.values.items()
    }
    stack = weights = jnp.zeros((num_jobs, 0))
    if needs_stack and UPDATE in job.values:
        weight = jax.tree.leaves(job.weights[UPDATE])
        if len(weight) != 1 or weight[0].shape:
            raise ValueError(
                f"The update of a client has {len(weight)} weights of shapes "
                f"{[leaf.shape for leaf in weight]} (a sub-model), but an aggregator or cohort "
                "link that holds all updates needs one number. Use an aggregator with needs='sum' "
                "and no cohort link."
            )
        flat = jax.eval_shape(lambda tree: ravel_pytree(tree)[0], job.values[UPDATE])
        stack = jnp.zeros((num_jobs, *flat.shape), flat.dtype)
        weights = jnp.zeros(num_jobs, flat.dtype)
    stats = {name: jnp.zeros((num_jobs, *s.shape), s.dtype) for name, s in job.stats.items()}
    return Trained(sums, stack, weights, client_rows, stats)


def accumulate(
    trained: Trained,
    wave: Finished,
    indices: jax.Array,
    jobs: JobArrays,
    num_trials: int,
    needs_stack: bool,
    weights_may_vanish: bool = False,
) -> Trained:
    """Adds the finished jobs of one wave, leaves [W, ...], to the accumulators.

    Args:
      trained: The accumulators.
      wave: The jobs.
      indices: int32[W] their places on the device; beyond its jobs for none.
      jobs: All jobs of the device.
      num_trials: Number of trials.
      needs_stack: Whether all updates are held.
      weights_may_vanish: Whether some jobs may have a weight of 0 and then do not count as having
        contributed.
    """
    num_jobs = jobs.client.shape[0]
    kept = wave.kept & (indices < num_jobs)
    segment = jobs.segment[jnp.minimum(indices, num_jobs - 1)]
    # a rejected job may hold NaN, which a weight of zero would not remove
    keep = lambda leaf: jnp.where(like(kept, leaf), leaf, 0)  # noqa: E731

    def added(total, values):
        values = keep(values)
        if num_trials == 1:
            return total + values.sum(0, keepdims=True)
        return add_rows(total, segment, values)

    def counted(weight):
        if not weights_may_vanish:
            return jnp.ones_like(kept, jnp.float32)
        arrives = [(leaf != 0).reshape(len(kept), -1).any(1) for leaf in jax.tree.leaves(weight)]
        return jnp.any(jnp.stack(arrives), 0).astype(jnp.float32)

    sums = dict(trained.sums)
    stack, weights = trained.stack, trained.weights
    for name, value in wave.values.items():
        old, weight = sums[name], wave.weights[name]
        if name == UPDATE and needs_stack:
            flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(jax.tree.map(keep, value))
            stack = stack.at[indices].set(flat, mode="drop")
            weights = weights.at[indices].set(keep(weight).astype(weights.dtype), mode="drop")
        weighted = jax.tree.map(
            lambda w, v: jax.tree.map(lambda x: x * like(w, x).astype(x.dtype), v), weight, value
        )
        sums[name] = Aggregate(
            jax.tree.map(added, old.sum, weighted),
            jax.tree.map(added, old.weight, weight),
            added(old.count, counted(weight)),
        )
    client_rows = put_some(trained.client_rows, indices, wave.client_rows, kept)
    stats = put(trained.stats, indices, {name: wave.stats[name] for name in trained.stats})
    return Trained(sums, stack, weights, client_rows, stats)
