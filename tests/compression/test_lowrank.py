"""PowerSGD against NumPy, alone and round by round in a federation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import toy
from contracts import harness

from fljax import algorithms
from fljax import compression as c
from fljax.compression.lowrank import orthonormal
from fljax.core.transforms import Pipeline

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

LR = 0.2
COHORTS = [[0, 2, 3], [3, 4, 0], [0, 3, 4]]


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def factored(matrix, query):
    """Returns (what arrives, Q'), by a QR decomposition."""
    p = np.linalg.qr(matrix @ query)[0]
    q = matrix.T @ p
    return p @ q.T, q


def check_projection(basis, matrix):
    """Projections do not depend on the basis, whose signs may differ."""
    expected = np.linalg.qr(matrix)[0]
    np.testing.assert_allclose(basis @ basis.T, expected @ expected.T, atol=1e-9)


def test_orthonormal_columns():
    matrix = np.random.default_rng(0).standard_normal((12, 3))
    basis = np.asarray(jax.jit(orthonormal)(matrix))
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    check_projection(basis, matrix)


def test_a_dependent_column_becomes_zero():
    matrix = np.random.default_rng(0).standard_normal((12, 2))
    three = np.concatenate([matrix, matrix[:, :1] * 3], axis=1)
    basis = np.asarray(jax.jit(orthonormal)(three))
    np.testing.assert_array_equal(basis[:, 2], np.zeros(12))
    check_projection(basis[:, :2], matrix)
    np.testing.assert_array_equal(jax.jit(orthonormal)(np.zeros((4, 2))), np.zeros((4, 2)))


def test_rounds_with_error_feedback():
    """The toy's weight is a matrix [6, 4]: of rank 2 it would be as large as it is."""
    link = c.powersgd(1)
    (query,) = link.init_client(toy.initial_params())
    queries = dict.fromkeys(range(9), np.asarray(query))
    lost = dict.fromkeys(range(9), np.zeros((6, 4)))
    params = toy.initial_params()
    for cohort in COHORTS:
        received, weights = [], []
        for client in cohort:
            x, y = toy.clients()[client]
            trained = reference.local_sgd(params, x, y, LR, 4, 1)[0]
            change = reference.combine(np.subtract, trained, params)
            total = change["w"] + lost[client]
            sent, queries[client] = factored(total, queries[client])
            lost[client] = total - sent
            received.append({"b": change["b"], "w": sent})
            weights.append(len(y))
        mean = reference.weighted_mean(received, weights)
        params = reference.combine(np.add, params, mean)
    pipeline = Pipeline(uplink=(c.error_feedback(link),))
    run = harness.rounds(algorithms.fedavg(LR), COHORTS, harness.MANY, pipeline=pipeline)
    toy.assert_close(run.params, params, 1e-9)
    kept = run.client_rows().uplink[0][1]
    for client, expected in lost.items():
        np.testing.assert_allclose(kept["w"][client], expected, atol=1e-9)
        np.testing.assert_allclose(kept["b"][client], 0, atol=1e-12)
    assert set(run.by_client("uplink_bits", 0).values()) == {(4 + 6 + 4) * 64}


@functools.partial(jax.jit, static_argnums=0)
def transmitted(link, tree, state):
    """Returns (message, the client's next state, what arrives)."""
    sent, state = link.encode(tree, state, None, jax.random.key(0))
    return sent, state, link.decode(sent, ())


def test_a_matrix_of_low_rank_arrives_as_it_is():
    generator = np.random.default_rng(1)
    tree = {
        "w": generator.standard_normal((3, 3, 8, 2)) @ generator.standard_normal((2, 16)),
        "b": generator.standard_normal(16),
        "small": generator.standard_normal((2, 2)),
    }
    link = c.powersgd(2)
    state = link.init_client(tree)
    sent, state, received = transmitted(link, tree, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), received, tree)
    assert int(link.bits(sent)) == (2 * (72 + 16) + 16 + 4) * 64


def test_a_zero_update_does_not_end_the_iteration():
    link = c.powersgd(1)
    tree = {"w": jnp.zeros((6, 4))}
    start = link.init_client(tree)
    _, state, received = transmitted(link, tree, start)
    np.testing.assert_array_equal(received["w"], tree["w"])
    np.testing.assert_array_equal(state[0], start[0])
