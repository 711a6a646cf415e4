"""FetchSGD against NumPy, with the sketch as the matrix that it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from compression_reference import COHORTS, LR, TABLES, federated, largest
from contracts import harness

from fljax import algorithms
from fljax import compression as c
from fljax.core.transforms import Pipeline
from fljax_kernels import sketch, unsketch

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

ROWS, COLUMNS, SEED = 3, 12, 7


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def test_momentum_and_error_live_in_sketches():
    key = jax.random.key(SEED)
    matrix = np.asarray(jax.jit(lambda: sketch(jnp.eye(28), key, ROWS, COLUMNS))())
    unsketched = jax.jit(lambda table: unsketch(table, key, 28))
    speed, error = np.zeros((2, ROWS, COLUMNS))

    def receive(mean, jobs):
        nonlocal speed, error
        speed = 0.8 * speed + np.tensordot(mean, matrix, 1)
        error = error + speed
        update = largest(np.asarray(unsketched(error)), 6)
        error = error - np.tensordot(update, matrix, 1)
        return update

    expected = federated(lambda client, change, accepted: change, receive)
    link = c.fetch_sgd(0.2, rows=ROWS, columns=COLUMNS, momentum=0.8, seed=SEED)
    run = harness.rounds(
        algorithms.fedavg(LR), TABLES, harness.MANY, pipeline=Pipeline(uplink=(link,))
    )
    toy.assert_close(run.params, expected, 1e-9)
    kept = run.states[-1].pipeline.uplink[0]
    np.testing.assert_allclose(kept.momentum[0], speed, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(kept.error[0], error, rtol=1e-9, atol=1e-12)
    assert set(run.by_client("uplink_bits", 0).values()) == {ROWS * COLUMNS * 64}


def test_wide_sketches_are_no_compression():
    plain = harness.rounds(algorithms.fedavg(LR), COHORTS)
    pipeline = Pipeline(uplink=(c.fetch_sgd(1.0, rows=1, columns=28, momentum=0.0),))
    run = harness.rounds(algorithms.fedavg(LR), COHORTS, pipeline=pipeline)
    toy.assert_close(run.params, plain.params, 1e-9)


def test_a_round_without_clients_keeps_the_sketches():
    pipeline = Pipeline(uplink=(c.fetch_sgd(0.2, rows=ROWS, columns=COLUMNS),))
    run = harness.rounds(algorithms.fedavg(LR), [[0, 2], []], pipeline=pipeline)
    before, after = (jax.tree.leaves(state.pipeline.uplink) for state in run.states)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert np.abs(after[0]).max() > 0


def test_leaves_that_cannot_be_summed_are_refused():
    link = c.fetch_sgd()
    with pytest.raises(ValueError, match="leaves of the update are int32"):
        link.encode({"w": jnp.zeros(3), "n": jnp.zeros(2, jnp.int32)}, (), None, None)
    with pytest.raises(ValueError, match="momentum = .* must be at least 0"):
        c.fetch_sgd(momentum=1.0)
