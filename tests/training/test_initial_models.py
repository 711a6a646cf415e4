"""The initial models of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax.tasks import Task
from fljax.training.initialization import init_model

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

KEY = jax.random.key(3)


def task_of(init) -> Task:
    return Task(init, loss=None, measure=None, metrics=(), kind="none")


def with_constants(key):
    params, frozen, state = (jax.random.normal(jax.random.fold_in(key, n), (4,)) for n in range(3))
    return {"w": params}, {"c": frozen}, {"s": state}


def test_given_parameters_replace_the_models_own_and_nothing_else():
    given = np.arange(4, dtype=np.float64)
    params, *others = init_model(task_of(with_constants), KEY, {"w": given})
    np.testing.assert_array_equal(params["w"], given)
    assert params["w"].dtype == jnp.asarray(given).dtype
    jax.tree.map(np.testing.assert_array_equal, others, list(with_constants(KEY)[1:]))


def test_given_parameters_are_copied():
    given = np.ones(4, np.float32)
    params, _, _ = init_model(task_of(with_constants), KEY, {"w": given})
    given[:] = 7
    np.testing.assert_array_equal(params["w"], 1)


def test_where_parameters_are_all_there_is_none_are_drawn():
    drawn = []

    def init(key):
        jax.debug.callback(drawn.append, 1)
        return {"w": jnp.zeros(4)}, {}, {}

    init_model(task_of(init), KEY, {"w": np.ones(4, np.float32)})
    jax.effects_barrier()
    assert not drawn
    init_model(task_of(init), KEY)
    jax.effects_barrier()
    assert drawn


def test_a_model_that_starts_on_the_host_takes_given_parameters():
    def init(key):
        constant = np.asarray(jax.random.normal(key, (4,)))
        return {"w": jnp.zeros(4)}, {"c": constant}, {}

    params, frozen, _ = init_model(task_of(init), KEY, {"w": np.ones(4, np.float32)})
    np.testing.assert_array_equal(params["w"], 1)
    np.testing.assert_array_equal(frozen["c"], init(KEY)[1]["c"])
