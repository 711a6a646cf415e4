"""FedAvg on the toy federation in float64 NumPy, with a function of one's own on the way up."""

import jax
import numpy as np
import reference
import toy

from fljax.engine.plan.round_plan import job_table

LR = 0.2
# client 1 has no rows; client 3 is lost after its work in the second round
COHORTS = [[0, 1, 2, 3], [3, 4, 8, 0], [5, 3, 0, 4]]
TABLES = [job_table(c, accepted=[r != 1 or i != 3 for i in c]) for r, c in enumerate(COHORTS)]


def flatten(tree):
    return np.concatenate([tree["b"], tree["w"].ravel()])


def unflatten(vector):
    return {"b": vector[: toy.CLASSES], "w": vector[toy.CLASSES :].reshape(toy.FEATURES, -1)}


def largest(vector, k):
    """Returns the vector with all but its k largest coordinates zero."""
    kept = np.argsort(-np.abs(vector), kind="stable")[:k]
    return np.where(np.isin(np.arange(vector.size), kept), vector, 0)


def federated(transmit, receive=lambda mean, jobs: mean, tables=TABLES, weighted=True):
    """Returns the parameters after the rounds.

    transmit: (client, change, accepted) -> what arrives of it, a vector.
    receive: (mean of what arrived, number of jobs) -> the round's change, a vector.
    """
    params = toy.initial_params()
    for table in tables:
        received, weights = [], []
        for client, accepted in zip(table.client.tolist(), table.accepted, strict=True):
            x, y = toy.clients()[client]
            if not len(y):
                continue
            trained = reference.local_sgd(params, x, y, LR, 4, 1)[0]
            change = flatten(reference.combine(np.subtract, trained, params))
            sent = transmit(client, change, accepted)
            if accepted:
                received.append(sent)
                weights.append(len(y) if weighted else 1)
        change = receive(np.average(received, axis=0, weights=weights), len(weights))
        params = reference.combine(np.add, params, unflatten(change))
    return params


def zeros():
    """Returns {client: zero vector}."""
    return {client: np.zeros(28) for client in range(len(toy.SIZES))}


def check_kept(run, select, expected):
    """Asserts what every client keeps; select: its uplink state -> a tree like the parameters."""
    rows = select(run.client_rows().uplink[0])
    for client, kept in expected.items():
        row = flatten(jax.tree.map(lambda leaf, client=client: leaf[client], rows))
        np.testing.assert_allclose(row, kept, rtol=1e-9, atol=1e-12)
