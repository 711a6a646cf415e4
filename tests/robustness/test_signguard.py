"""SignGuard and its mean shift against loops in NumPy."""

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
from fljax.robustness.aggregators.signguard import signguard
from fljax.robustness.mean_shift import bandwidth, largest_cluster
from fljax_kernels import random_k

PLACES, SIZE = 12, 205
KEY = jax.random.key(3)
RULE = signguard()


def updates(seed=0):
    """Returns a stack of which some rows are long, short, zero, or mostly negative."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((PLACES, SIZE)) + 0.8
    stack[[1, 5]] *= np.array([[5.0], [0.05]])
    stack[4, 50:] = 0
    stack[[7, 9]] = -np.abs(stack[[7, 9]])
    return stack


STACK = updates()
HOSTILE = np.isin(np.arange(PLACES), [7, 9])
VALID = ~np.isin(np.arange(PLACES), [0, 10])


def chosen(size=SIZE):
    return np.asarray(random_k(KEY, size, max(size // 10, 1)))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("valid", [np.ones(PLACES, bool), VALID])
def test_it_is_what_the_paper_says(devices, valid):
    for seed in range(4):
        stack = updates(seed)
        found = applied(RULE, stack, valid, devices=devices, key=KEY, attackers=HOSTILE)
        value, kept = oracle.signguard(stack[valid], 0.1, 3.0, chosen())
        np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)
        rejected, there = found.reports["robustness/rejected"]
        assert 0 < len(kept) < there.sum() == valid.sum()
        expected = np.delete(np.flatnonzero(valid), kept)
        assert np.flatnonzero(rejected).tolist() == expected.tolist()
        assert found.reports["robustness/false_negatives"][0].sum() == 0


def test_it_does_not_depend_on_order_nor_on_what_is_traced():
    order = np.random.default_rng(2).permutation(PLACES)
    plain = applied(RULE, STACK, VALID, key=KEY).value
    permuted = applied(RULE, STACK[order], VALID[order], key=KEY).value
    np.testing.assert_allclose(permuted, plain, rtol=1e-12)
    traced = applied(signguard, STACK, VALID, key=KEY, traced={"lower": 0.1, "upper": 3.0}).value
    np.testing.assert_allclose(traced, plain, rtol=1e-12)


def test_extremes():
    equal = applied(RULE, np.tile(STACK[0], (PLACES, 1)), VALID, key=KEY)
    np.testing.assert_allclose(equal.value, STACK[0], rtol=1e-12)
    assert equal.reports["robustness/rejected"][0].sum() == 0
    zeros = applied(RULE, np.zeros((PLACES, SIZE)), key=KEY)
    assert not zeros.value.any() and zeros.reports["robustness/rejected"][0].sum() == 0
    alone = applied(RULE, STACK, np.arange(PLACES) == 3, key=KEY)
    np.testing.assert_allclose(alone.value, STACK[3], rtol=1e-12)
    nobody = applied(RULE, STACK, np.zeros(PLACES, bool), key=KEY)
    np.testing.assert_array_equal(nobody.value, np.zeros(SIZE))
    few = applied(RULE, STACK[:, :9], key=KEY)  # a tenth of them is none, and one is looked at
    np.testing.assert_allclose(few.value, oracle.signguard(STACK[:, :9], 0.1, 3.0, chosen(9))[0])


def test_float32_and_huge_updates():
    huge = np.where(HOSTILE[:, None], 1e30, STACK)
    for stack in (STACK, huge):
        expected, _ = oracle.signguard(stack, 0.1, 3.0, chosen())
        with jax.enable_x64(False):
            found = applied(RULE, stack.astype(np.float32), key=jax.random.key(3)).value
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def crowds():
    """Yields (points, who is there); some move a little for long, and two have halves alike."""
    for seed in (*range(20), 194, 276):
        rng = np.random.default_rng(seed)
        points = 0.1 * rng.random((PLACES, 3))
        points[: rng.integers(0, 7)] += rng.random(3)
        yield points, rng.random(PLACES) < 0.9
    ones = np.repeat([1.0, 0.0], PLACES // 2)[:, None] * np.ones(3)
    for points in (ones, 1 - ones):
        yield points, np.ones(PLACES, bool)


def test_clusters():
    find = jax.jit(largest_cluster)
    for points, valid in crowds():
        width = oracle.bandwidth(points[valid])
        np.testing.assert_allclose(bandwidth(points, jnp.asarray(valid), 0.5), width + 1e-5)
        labels = oracle.mean_shift(points[valid], width + 1e-5)
        sizes = [(labels == label).sum() for label in range(labels.max() + 1)]
        found = np.asarray(find(jnp.asarray(points), jnp.asarray(valid)))
        assert not found[~valid].any()
        assert found[valid].tolist() == (labels == np.argmax(sizes)).tolist()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"lower": -0.1}, "lower = -0.1 must be at least 0"),
        ({"upper": 0}, "upper = 0.* must be above 0"),
        ({"lower": 3.0}, "lower = 3 must be below upper = 3"),
        ({"upper": 0.05}, "lower = 0.1 must be below upper = 0.05"),
        ({"coordinates": 0.0}, "coordinates = 0.0 must be above 0"),
        ({"coordinates": 1.5}, "coordinates = 1.5 must be above 0 and at most 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        signguard(**arguments)


def test_devices_of_a_round_count_the_same_signs():
    pipeline = Pipeline(aggregator=signguard(coordinates=0.5))
    cohorts = [[0, 1, 2, 3, 8, 5], [], [7, 3, 6, 4]]  # an empty client, an empty cohort
    one, many = (
        harness.rounds(algorithms.fedavg(0.2), cohorts, layout, pipeline=pipeline)
        for layout in harness.LAYOUTS
    )
    toy.assert_close(many.params, one.params, 1e-9)
    assert one.total("robustness/rejected", 0) == many.total("robustness/rejected", 0)
