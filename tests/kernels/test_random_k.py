"""Random-k selection: distinct indices, every subset as likely as any other."""

from functools import partial
from itertools import combinations
from math import comb

import jax
import numpy as np
import pytest

from fljax_kernels import random_k, random_k_mask

pytestmark = pytest.mark.usefixtures("quick_compilation")


def masks(d, k, number):
    keys = jax.random.split(jax.random.key(5), number)
    return np.asarray(jax.jit(jax.vmap(partial(random_k_mask, d=d, k=k)))(keys))


@pytest.mark.parametrize("d, k", [(1, 1), (7, 7), (7, 1), (130, 16), (130, 17), (1000, 995)])
def test_k_distinct_indices_ascending(d, k):
    keys = jax.random.split(jax.random.key(0), 20)
    one = partial(random_k, d=d, k=k)
    drawn = np.asarray(jax.jit(jax.vmap(one))(keys))
    assert drawn.dtype == np.int32 and drawn.shape == (20, k)
    assert (np.diff(drawn, axis=1) > 0).all() and drawn.min() >= 0 and drawn.max() < d
    alone = jax.jit(lambda key: (one(key), random_k_mask(key, d, k)))
    for key, expected in zip(keys, drawn, strict=True):
        indices, mask = alone(key)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(np.nonzero(mask)[0], expected)


# draws, draws of those left out, words
@pytest.mark.parametrize("d, k", [(17, 2), (17, 15), (7, 3)])
def test_every_subset_is_equally_likely(d, k):
    number = 30_000
    drawn = masks(d, k, number)
    codes, counts = np.unique(drawn @ (1 << np.arange(d)), return_counts=True)
    assert set(codes) == {sum(1 << i for i in subset) for subset in combinations(range(d), k)}
    share = 1 / comb(d, k)
    error = np.sqrt(number * share * (1 - share))
    assert abs(counts - number * share).max() < 4 * error


@pytest.mark.parametrize("k", [20, 130])
def test_indices_and_pairs_of_them_are_uniform(k):
    d, number = 200, 5000
    drawn = masks(d, k, number).astype(np.float64)
    share = k / d
    assert abs(drawn.mean(0) - share).max() < 4 * np.sqrt(share * (1 - share) / number)
    neighbours = (drawn[:, 1:] * drawn[:, :-1]).mean(0)
    pair = share * (k - 1) / (d - 1)
    assert abs(neighbours - pair).max() < 4 * np.sqrt(pair * (1 - pair) / number)


@pytest.mark.parametrize("d, k", [(5, 0), (5, 6), (0, 1)])
def test_k_out_of_range_is_refused(d, k):
    with pytest.raises(ValueError, match=f"k = {k} of {d}"):
        random_k(jax.random.key(0), d, k)
