"""Max-pooling against its definition; its gradient goes to one entry of each window."""

import jax
import numpy as np
import pytest
from flax import nnx

from fljax.benchmarks.kernels.reference import max_pool_reference
from fljax_kernels import max_pool

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("shape, window", [((2, 6, 8, 3), (2, 2)), ((1, 7, 5, 2), (3, 2))])
def test_values_are_the_maxima(shape, window):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(max_pool(x, window), max_pool_reference(x, window))


def test_gradient_is_xlas_where_maxima_are_unique():
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)

    def loss(pool):
        return jax.grad(lambda x: (pool(x) ** 2).sum())(x)

    np.testing.assert_array_equal(
        loss(max_pool), loss(lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2)))
    )


def test_gradient_goes_to_the_first_of_equal_maxima():
    window = np.array([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: max_pool(x).sum())(window)
    np.testing.assert_array_equal(gradient.reshape(2, 2), [[0, 1], [0, 0]])


@pytest.mark.parametrize("place", range(4))
def test_nan_is_not_lost(place):
    window = np.zeros(4)
    window[place] = np.nan
    assert np.isnan(max_pool(window.reshape(1, 2, 2, 1))).all()
