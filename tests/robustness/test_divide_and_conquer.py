"""Divide and conquer against singular values in NumPy, of all coordinates and of random ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from contracts import harness
from robustness import reference_vectors as oracle
from robustness.harness import applied

from fljax import algorithms
from fljax.core.transforms import Pipeline
from fljax.robustness.aggregators.divide_and_conquer import dnc
from fljax_kernels import random_k

PLACES, SIZE = 9, 13
STACK = np.random.default_rng(0).standard_normal((PLACES, SIZE))
STACK[[2, 6]] += 3.0  # two that agree on where to go
HOSTILE = np.isin(np.arange(PLACES), [2, 6])
VALID = np.array([True, False, True, True, False, True, True, True, True])
ALL = dnc(2)
SOME = dnc(2, iterations=3, subsample=5, filter=1.0)
KEY = jax.random.key(7)


def samples():
    keys = jax.random.split(KEY, 3)
    return [np.asarray(random_k(key, SIZE, 5)) for key in keys]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("valid", [np.ones(PLACES, bool), VALID])
def test_it_is_what_the_paper_says(devices, valid):
    for rule, filter, chosen in ((ALL, 1.5, [np.arange(SIZE)]), (SOME, 1.0, samples())):
        found = applied(rule, STACK, valid, devices=devices, key=KEY, attackers=HOSTILE)
        value, kept = oracle.divide_and_conquer(STACK[valid], 2, filter, chosen)
        np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)
        rejected, there = found.reports["robustness/rejected"]
        assert np.flatnonzero(there).tolist() == np.flatnonzero(valid).tolist()
        expected = np.delete(np.flatnonzero(valid), kept)
        assert np.flatnonzero(rejected).tolist() == expected.tolist()


def test_colluders_are_found_and_samples_differ():
    wrong = applied(ALL, STACK, attackers=HOSTILE).reports["robustness/false_negatives"]
    assert wrong[0].sum() == 0 and wrong[1].sum() == 2
    assert len({tuple(sample) for sample in samples()}) == 3


def test_it_does_not_depend_on_order_nor_on_what_is_traced():
    order = np.random.default_rng(2).permutation(PLACES)
    plain = applied(SOME, STACK, VALID, key=KEY).value
    permuted = applied(SOME, STACK[order], VALID[order], key=KEY).value
    np.testing.assert_allclose(permuted, plain, rtol=1e-12)
    make = functools.partial(dnc, iterations=3, subsample=5)
    traced = applied(make, STACK, VALID, key=KEY, traced={"f": 2, "filter": 1.0}).value
    np.testing.assert_array_equal(traced, plain)


def test_rounding_of_what_is_left_out():
    # 1.1 x 10 is a little more than 11
    make = functools.partial(dnc, subsample=SIZE)
    stack = np.random.default_rng(3).standard_normal((30, SIZE))
    found = applied(make, stack, traced={"f": 10, "filter": 1.1}).reports["robustness/rejected"]
    assert found[0].sum() == 11
    # 1.5 x 4 and 1.5 x 5
    for f, count in ((4, 6), (5, 8)):
        found = applied(dnc, STACK, traced={"f": f}).reports["robustness/rejected"]
        assert found[0].sum() == count


def test_extremes():
    equal = applied(ALL, np.tile(STACK[0], (PLACES, 1)), VALID).value
    np.testing.assert_allclose(equal, STACK[0], rtol=1e-12)
    nothing = applied(ALL, STACK, np.arange(PLACES) == 4)  # fewer than it leaves out
    np.testing.assert_array_equal(nothing.value, np.zeros(SIZE))
    everybody = applied(dnc, STACK, traced={"f": 0})
    np.testing.assert_allclose(everybody.value, STACK.mean(0), rtol=1e-12)


def test_float32_and_huge_updates():
    exact = dnc(2, filter=1.0)  # who is left out besides those is decided by digits below theirs
    # of numbers whose squares overflow, and of those whose reciprocals are taken for zero
    huge = [np.where(HOSTILE[:, None], np.sign(STACK) * size, STACK) for size in (1e30, 3e38)]
    cases = [(ALL, STACK, 1.5), *((exact, stack, 1.0) for stack in huge)]
    for rule, stack, filter in cases:
        expected = oracle.divide_and_conquer(stack, 2, filter, [np.arange(SIZE)])[0]
        with jax.enable_x64(False):
            found = applied(rule, stack.astype(np.float32)).value
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_problems_and_wrong_arguments():
    assert dnc(2).problem(5) is None
    assert "f + 1 = 5 updates, and there may be 4" in dnc(2).problem(4)
    assert "f + 1 = 7 updates, and there may be 6" in dnc(2, filter=3.0).problem(6)
    assert dnc(jnp.int32(2)).problem is dnc(2, filter=jnp.float32(1)).problem is None
    for arguments in ({"f": -1}, {"f": 1.5}, {"f": 1, "iterations": 0}, {"f": 1, "subsample": 0}):
        with pytest.raises(ValueError, match="must be"):
            dnc(**arguments)
    with pytest.raises(ValueError, match="filter = 0.0 must be above 0"):
        dnc(1, filter=0.0)


def test_devices_of_a_round_sample_the_same_coordinates():
    pipeline = Pipeline(aggregator=dnc(1, iterations=2, subsample=5))
    cohorts = [[0, 1, 2, 3, 8, 5], [], [7, 3, 6, 4]]  # an empty client, an empty cohort
    one, many = (
        harness.rounds(algorithms.fedavg(0.2), cohorts, layout, pipeline=pipeline)
        for layout in harness.LAYOUTS
    )
    toy.assert_close(many.params, one.params, 1e-9)
    rejected = [run.total("robustness/rejected", 0) for run in (one, many)]
    assert rejected[0] == rejected[1] >= 2
