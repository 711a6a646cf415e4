"""Keyed permutations: all entries once, each order alike often, and nothing of size n."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fljax.core import permutations

pytestmark = pytest.mark.usefixtures("quick_compilation")
# As rounds call it, within a program.
keyed_permutation = jax.jit(permutations.keyed_permutation, static_argnums=2)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_every_entry_is_taken_somewhere_else(n):
    found = keyed_permutation(jax.random.key(n), jnp.arange(n), n)
    assert sorted(found.tolist()) == list(range(n))
    if n > 5:
        assert found.tolist() != keyed_permutation(jax.random.key(n + 1), jnp.arange(n), n).tolist()


def test_of_five_entries_each_pair_is_chosen_alike_often():
    keys = jax.random.split(jax.random.key(3), 20_000)
    places = jax.jit(jax.vmap(lambda key: keyed_permutation(key, jnp.arange(5), 5)))(keys)
    chosen = np.asarray(places) < 2
    pairs = (chosen * 2 ** np.arange(5)).sum(1)
    counts = np.unique(pairs, return_counts=True)[1]
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_few_entries_of_many_cost_no_more_than_themselves():
    few = jnp.array([[0, 7], [10**9 - 1, 123_456_789]])
    found = keyed_permutation(jax.random.key(0), few, 10**9)
    assert found.shape == few.shape and len(set(found.ravel().tolist())) == 4
    assert ((found >= 0) & (found < 10**9)).all()
