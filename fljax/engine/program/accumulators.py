"""Accumulators of one device: streamed sums, the stack where one is needed, per-job results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fljax.core.algorithm import Aggregate
from fljax.core.transforms import UPDATE
from fljax.core.trees import (
    add_rows,
    add_rows_in_order,
    beside,
    put_rows,
    put_wanted_rows,
    zeros_like_shape,
)

PyTree = Any


class Finished(NamedTuple):
    """The results of one job.

    Attributes:
      values, weights: {name: pytree}, its contributions after the uplink.
      client_rows: The client's state.
      stats: {name: scalar}.
      kept: Whether it was accepted and everything is finite.
      clusters: {name: int32}, the cluster of contributions that say one.
    """

    values: dict[str, PyTree]
    weights: dict[str, PyTree]
    client_rows: PyTree
    stats: dict[str, jax.Array]
    kept: jax.Array
    clusters: Mapping[str, jax.Array] = {}


class Trained(NamedTuple):
    """The results of a pass's jobs on one device.

    Attributes:
      sums: {name: Aggregate} with leaves [S, ...]; of contributions to K clusters [S, K, ...].
      stack: [J, P] flattened updates of all jobs, or [J, 0] where no one needs them.
      weights: [J] their weights.
      arrived: bool[J] whether a job is in the sums, or () where no one needs it.
      client_rows: Client state [J, ...] after the accepted jobs.
      stats: {name: [J]}.
    """

    sums: dict[str, Aggregate]
    stack: jax.Array
    weights: jax.Array
    arrived: jax.Array | tuple[()]
    client_rows: PyTree
    stats: dict[str, jax.Array]


class Accumulators(NamedTuple):
    """Accumulators of jobs' results on one device.

    Attributes:
      trial: int32[J] trial of each job.
      num_trials: How many there are.
      num_clusters: How many clusters of a trial there are.
      needs_stack: Whether all updates are held.
      has_own_weights: Whether clients' weights are the user's: fractions, or 0 for jobs that then
        do not count as having contributed.
      needs_arrivals: Whether it is kept which jobs are in the sums.
      on_cpu: Whether the device is a CPU.
    """

    trial: jax.Array
    num_trials: int
    num_clusters: int
    needs_stack: bool
    has_own_weights: bool
    needs_arrivals: bool
    on_cpu: bool

    def empty(self, job: Finished, client_rows: PyTree) -> Trained:
        """Returns zeroed accumulators for jobs of such shapes."""
        num_jobs = self.trial.shape[0]
        sums = {
            name: self._zeros(Aggregate(value, job.weights[name], job.kept), name in job.clusters)
            for name, value in job.values.items()
        }
        stack = weights = jnp.zeros((num_jobs, 0))
        if self.needs_stack and UPDATE in job.values:
            _check_one_weight(job.weights[UPDATE])
            flat = jax.eval_shape(lambda tree: ravel_pytree(tree)[0], job.values[UPDATE])
            stack = jnp.zeros((num_jobs, *flat.shape), flat.dtype)
            weights = jnp.zeros(num_jobs, flat.dtype)
        stats = {name: jnp.zeros((num_jobs, *s.shape), s.dtype) for name, s in job.stats.items()}
        arrived = jnp.zeros(num_jobs, bool) if self.needs_arrivals else ()
        return Trained(sums, stack, weights, arrived, client_rows, stats)

    def add(self, trained: Trained, wave: Finished, indices: jax.Array) -> Trained:
        """Adds the finished jobs of one wave, leaves [W, ...].

        Args:
          trained: What the jobs before them left.
          wave: The jobs.
          indices: int32[W] their places on the device, no two equal; beyond its jobs for none.
        """
        num_jobs = self.trial.shape[0]
        kept = wave.kept & (indices < num_jobs)
        trial = self.trial[jnp.minimum(indices, num_jobs - 1)]
        stack, weights = trained.stack, trained.weights
        if self.needs_stack and UPDATE in wave.values:
            update = jax.tree.map(lambda leaf: _kept(kept, leaf), wave.values[UPDATE])
            flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(update)
            weight = _kept(kept, wave.weights[UPDATE]).astype(weights.dtype)
            stack = stack.at[indices].set(flat, mode="drop", unique_indices=True)
            weights = weights.at[indices].set(weight, mode="drop", unique_indices=True)
        sums = {
            name: self._summed(
                trained.sums[name], value, wave.weights[name], kept, trial, wave.clusters.get(name)
            )
            for name, value in wave.values.items()
        }
        client_rows = put_wanted_rows(trained.client_rows, indices, wave.client_rows, kept)
        arrived = trained.arrived
        if self.needs_arrivals:
            arrived = put_rows(arrived, indices, kept)
        stats = {name: wave.stats[name] for name in trained.stats}
        stats = put_rows(trained.stats, indices, stats)
        return Trained(sums, stack, weights, arrived, client_rows, stats)

    def _zeros(self, job: Aggregate, has_clusters: bool) -> Aggregate:
        """Returns empty sums of contributions of such shapes."""
        zeros = zeros_like_shape(job, self.num_trials)._replace(
            count=jnp.zeros(self.num_trials, jnp.float32)
        )
        if not has_clusters:
            return zeros
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * self.num_clusters, axis=1), zeros)

    def _summed(self, old: Aggregate, value, weight, kept, trial, cluster) -> Aggregate:
        """Returns the sums of one name with the contributions of a wave."""

        add = add_rows if self.on_cpu else add_rows_in_order

        def added(total, values):
            values = _kept(kept, values)
            if cluster is not None:
                flat = total.reshape(-1, *values.shape[1:])
                place = trial * self.num_clusters + cluster
                return add(flat, place, values).reshape(total.shape)
            if self.num_trials == 1:
                return total + values.sum(0, keepdims=True, dtype=total.dtype)
            return add(total, trial, values)

        weighted = jax.tree.map(
            lambda w, v: jax.tree.map(lambda x: x * beside(w, x).astype(x.dtype), v), weight, value
        )
        return Aggregate(
            jax.tree.map(added, old.sum, weighted),
            jax.tree.map(added, old.weight, weight),
            added(old.count, self._counted(weight, kept)),
        )

    def _counted(self, weight: PyTree, kept: jax.Array) -> jax.Array:
        """Returns float32[W], 1 for a job that contributes if it is kept."""
        if not self.has_own_weights:
            return jnp.ones_like(kept, jnp.float32)
        arrives = [(leaf != 0).reshape(len(kept), -1).any(1) for leaf in jax.tree.leaves(weight)]
        return jnp.any(jnp.stack(arrives), 0).astype(jnp.float32)


def _kept(kept: jax.Array, leaf: jax.Array) -> jax.Array:
    """Returns zeros in place of what rejected jobs hold: NaN times a weight of zero is NaN."""
    return jnp.where(beside(kept, leaf), leaf, 0)


def _check_one_weight(weight: PyTree) -> None:
    leaves = jax.tree.leaves(weight)
    if len(leaves) != 1 or leaves[0].shape:
        raise ValueError(
            f"The update of a client has {len(leaves)} weights of shapes "
            f"{[leaf.shape for leaf in leaves]} (a sub-model), but an aggregator or cohort "
            "link that holds all updates needs one number. Use an aggregator with needs='sum' "
            "and no cohort link."
        )
