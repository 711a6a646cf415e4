"""Rounds of FedAvg in NumPy that end in any rule, for tests of rules that keep something."""

import jax
import numpy as np
import reference
import toy
from contracts.test_stacks import local_changes
from jax.flatten_util import ravel_pytree

# an empty client (1), a cohort without clients, clients that come again
COHORTS = [[0, 1, 2, 3, 8, 5], [], [7, 3, 6, 0]]
NUM_PARAMS = sum(leaf.size for leaf in jax.tree.leaves(toy.initial_params()))


def rounds(rule, state, cohorts=COHORTS):
    """Runs rounds with the clients' rate 0.2.

    Args:
      rule: (rows [n, p], clients [n], weights [n], state) -> (value [p], state), of the clients
        that have rows; not called where there are none.
      state: At the start.
      cohorts: A list of clients for each round.

    Returns:
      (parameters, state) at the end.
    """
    params = toy.initial_params()
    for cohort in cohorts:
        changes, weights = local_changes(params, cohort)
        if changes:
            rows = np.stack([flat(change) for change in changes.values()])
            clients, weights = list(changes), np.array(list(weights.values()), float)
            value, state = rule(rows, clients, weights, state)
            params = reference.combine(np.add, params, ravel_pytree(params)[1](value))
    return params, state


def flat(tree):
    """Returns all numbers of a tree, as programs order them."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
